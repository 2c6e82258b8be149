"""Outputs: each appears whole or not at all, and a command replaces no file that it did not write itself."""

import contextlib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO


@dataclass
class _Guard:
    """What the running command has read and written; files are known by device and number, whatever their spelling."""

    overwrite: bool
    read: dict[tuple[int, int], Path] = field(default_factory=dict)
    written: set[tuple[int, int]] = field(default_factory=set)
    claimed: dict[str, Path] = field(default_factory=dict)  # output -> the input that it is made of


_guard: _Guard | None = None


@contextlib.contextmanager
def guarded(overwrite: bool = False) -> Iterator[None]:
    """Inside, writing refuses to replace what is an input or was there before; without it, nothing is refused.

    Args:
        overwrite: replace what was there before, if it is no input.
    """
    global _guard
    before, _guard = _guard, _Guard(overwrite)
    try:
        yield
    finally:
        _guard = before


def note_input(path: str | Path) -> None:
    """From now on the running command writes nothing over this file."""
    if _guard is not None and (identity := _identity(path)):
        _guard.read[identity] = Path(path)


def check_output(path: str | Path) -> None:
    """ValueError where writing ``path`` would replace an input, or a file that the running command did not write."""
    if _guard is None or (identity := _identity(path)) is None or identity in _guard.written:
        return
    if identity in _guard.read:
        raise ValueError(f"{path} is the input {_guard.read[identity]}: write somewhere else")
    if not _guard.overwrite:
        raise ValueError(f"{path} is there already, and this command did not write it: --overwrite replaces it")


def claim(path: Path, source: str | Path) -> None:
    """Say, before anything is computed, that ``path`` will be made of ``source``; ValueError where another has."""
    if _guard is not None:
        other = _guard.claimed.setdefault(_spelled(path), Path(source))
        if other != Path(source) and (_identity(other) is None or _identity(other) != _identity(source)):
            raise ValueError(f"{other} and {source} would both become {path}: give the folder above them")


def _identity(path: str | Path) -> tuple[int, int] | None:
    for look in (os.stat, os.lstat):  # the latter for a link that leads nowhere
        with contextlib.suppress(OSError, ValueError):
            found = look(path)
            return found.st_dev, found.st_ino
    return None


def _spelled(path: Path) -> str:
    """One spelling for all that name the same file."""
    real = unicodedata.normalize("NFC", os.path.realpath(path))
    return real.casefold() if _ignores_case(Path(path).parent) else real


def _ignores_case(folder: Path) -> bool:
    folder = Path(os.path.realpath(folder))
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    other = folder.with_name(folder.name.swapcase()) if folder.name else folder
    return other != folder and other.exists() and other.samefile(folder)


def make_folder(path: Path) -> None:
    """The folder with those above it; ValueError where a file stands in its place."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), path)
        raise ValueError(f"{file} is a file, wanted a folder") from error


def write_bytes(path: Path, content: bytes) -> None:
    """A file that appears whole or not at all."""
    with atomic_write(path) as file:
        file.write(content)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """A text file of these lines, in UTF-8."""
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


@contextlib.contextmanager
def atomic_write(path: str | Path, tag: object = None) -> Iterator[BinaryIO]:
    """Write under a temporary name, flush to disk, rename: a reader sees the old file or the new one.

    Args:
        path: the file; its folder is there.
        tag: part of the temporary name; None: the process's number. With a constant, what a killed writer left behind
            is written over by the next one.

    Raises:
        OSError: naming ``path``.
        ValueError: the running command did not write the file that is there (:func:`guarded`).
    """
    path = Path(path)
    check_output(path)
    # 60 characters of the name: with all of them, it could become longer than names may be.
    temporary = path.with_name(f".{path.name[-60:]}.{os.getpid() if tag is None else tag}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # A full disk is met without a name, and the temporary one means nothing to a reader.
        if error.filename is None or str(error.filename) == str(temporary):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    if _guard is not None and (identity := _identity(path)):
        _guard.written.add(identity)
