"""Outputs: each appears whole or not at all, and a command replaces no file that it did not write itself."""

import contextlib
import os
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

OVERWRITE = "--overwrite replaces it"


@dataclass
class _Guard:
    """What the running command has read and written, whatever the spelling of a path."""

    overwrite: bool
    read: dict[tuple[int, int] | str, Path] = field(default_factory=dict)  # by device and number, and by spelling
    written: set[str] = field(default_factory=set)
    claimed: dict[str, dict[str, Path]] = field(default_factory=dict)  # by spelling: outputs, and what each is made of


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


def input_file(path: str | Path) -> Path:
    """A file that is there, noted as an input; or ValueError."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: {kind_of(path)}")
    note_input(path)
    return path


def kind_of(path: Path) -> str:
    """What stands in the place of a file, in words."""
    return "a folder" if path.is_dir() else "a pipe or device, wanted a file" if path.exists() else "no such file"


def check_folder(path: Path) -> None:
    """ValueError unless files can be made in this folder, which need not be there yet."""
    place = next((p for p in (path, *path.parents) if p.exists()), path)
    if not place.is_dir():
        raise ValueError(f"{place} is a file, wanted a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{place}: no file can be written there: Permission denied")


def note_input(path: str | Path) -> None:
    """From now on the running command writes nothing over this file."""
    if _guard is not None and (identity := _identity(path)):
        _guard.read[identity] = _guard.read[_spelled(path)] = Path(path)


def check_output(path: str | Path) -> None:
    """ValueError where no file can be written, or ``path`` is an input or a file that the command did not write."""
    check_folder(Path(path).parent)
    if _guard is None or (identity := _identity(path)) is None or _real(path) in _guard.written:
        return
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder, wanted a file")
    source = _guard.read.get(identity)
    if not source and (named := _guard.read.get(_spelled(path))):  # some file systems number no files
        source = named if _real(named) == _real(path) or _ignores_case(Path(path).parent) else None
    if source:
        raise ValueError(f"{path} is the input {source}: write somewhere else")
    if not _guard.overwrite:
        raise ValueError(f"{path} is there already: {OVERWRITE}")


def claim(path: Path, source: str | Path) -> None:
    """Say, before anything is computed, that ``path`` will be made of ``source``; ValueError where another has."""
    if _guard is None:
        return
    others = _guard.claimed.setdefault(_spelled(path), {})
    for place, other in others.items():
        same = other == Path(source) or (_identity(other) is not None and _identity(other) == _identity(source))
        if not same and (place == _real(path) or _ignores_case(path.parent)):
            raise ValueError(f"{other} and {source} would both become {path}: give the folder above them")
    others[_real(path)] = Path(source)


def _identity(path: str | Path) -> tuple[int, int] | None:
    for look in (os.stat, os.lstat):  # the latter for a link that leads nowhere
        with contextlib.suppress(OSError, ValueError):
            found = look(path)
            return found.st_dev, found.st_ino
    return None


def _real(path: str | Path) -> str:
    return unicodedata.normalize("NFC", os.path.realpath(path))


def _spelled(path: str | Path) -> str:
    """One spelling for all that name the same file where case does not count."""
    return _real(path).casefold()


def _ignores_case(folder: Path) -> bool:
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(prefix=".case", dir=folder) as probe:
            return Path(probe.name).with_name(Path(probe.name).name.swapcase()).exists()
    except OSError:
        return False  # then nothing can be written there


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
    if _guard is not None:
        _guard.written.add(_real(path))
