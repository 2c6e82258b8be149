"""Text files and lists of files: one reader for every encoding, line end, id and place that occurs."""

import codecs
import glob
import os
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from melglow_plugin.files.archives import split_part
from melglow_plugin.files.writing import kind_of, note_input

AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".aiff", ".aif")  # in capitals, too
OTHER_AUDIO = (".m4a", ".aac", ".mp4", ".wma", ".amr", ".webm", ".caf", ".au", ".w64")  # recordings that are not read
MEL_SUFFIXES = (".npy", ".npz", ".pt")
_OTHER_MARKS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32",
                codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One file of a command's input: its id, its path as written, and the list that names it, if one does."""

    key: str
    path: str
    list_file: Path | None = None
    line: int = 0

    @property
    def where(self) -> str:
        """How a message names it."""
        return f"{self.list_file}, line {self.line}: {self.key}" if self.list_file else self.path

    def file(self) -> Path:
        """The file; ValueError names all places that were looked at."""
        places = [Path()] if self.list_file is None else _places(self.list_file)
        for folder in places:
            if found := existing(folder / (file := split_part(self.path)[0])):
                return Path(str(found) + self.path[len(file) :])
        if (path := Path(self.path)).exists() and not path.is_dir():
            raise ValueError(f"{path}: {kind_of(path)}")
        beside = "" if len(places) == 1 or Path(self.path).is_absolute() else f" here, nor in {places[1]} or above it"
        raise ValueError(f"{self.path}: no such file{beside}")


def read_text(path: str | Path) -> str:
    """A text file in UTF-8, with or without a byte-order mark; line ends become ``\\n``.

    Raises:
        ValueError: it has another encoding; the message names the file and the line.
    """
    note_input(path)
    content = Path(path).read_bytes()
    if encoding := next((name for mark, name in _OTHER_MARKS.items() if content.startswith(mark)), None):
        raise ValueError(f"{path} is in {encoding}: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise ValueError(f"{path}, line {line}: byte 0x{byte:02X} is no UTF-8: save the file as UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{path}, line {line}: it holds zero bytes, as UTF-16 has them: save the file as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines_of(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers from 1 on."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if (line := line.strip("\ufeff")).strip():  # joined files have a mark in the middle
            yield number, line


def check_id(key: str, where: str) -> str:
    """The id in composed form (Unicode NFC), as every list and every file name is compared.

    Raises:
        ValueError: it holds blanks or control characters, or a file named after it would lie outside the folder it is
            written to.
    """
    if drive := PureWindowsPath(key).drive:
        raise ValueError(f"{where}: the id {key!r} begins as Windows' drive {drive}")
    if Path(key).is_absolute() or key == "." or ".." in Path(key).parts or "\0" in key:
        raise ValueError(f"{where}: the id {key!r} leads out of the folder")
    if not key or any(c.isspace() or unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in key):
        raise ValueError(f"{where}: the id {key!r} is empty or holds blanks, which separate the columns of lists")
    if (plain := str(PurePosixPath(key.replace("\\", "/")))) != key:
        raise ValueError(f"{where}: the id {key!r} is no plain name: write it as {plain!r}")
    return unicodedata.normalize("NFC", key)


def keyed_lines(path: str | Path, separator: str | None = None) -> dict[str, tuple[int, str]]:
    """id -> the number of its line, and what follows the id; ValueError: none is there, or one twice.

    Args:
        separator: what ends the id; None: blanks.
    """
    found: dict[str, tuple[int, str]] = {}
    for number, line in lines_of(path):
        head, *rest = line.split(separator, 1)
        where = f"{path}, line {number}"
        key = check_id(head, where)
        if key in found:
            raise ValueError(f"{where}: {key} is there twice, first in line {found[key][0]}")
        found[key] = number, "".join(rest).strip()
    if not found:
        raise ValueError(f"{path} is empty")
    return found


def read_list(path: str | Path) -> list[Entry]:
    """``wav.scp`` or ``feats.scp``, an id and a path in each line.

    Raises:
        ValueError: the list is missing or empty, an id is there twice or cannot name a file, a path is a command, which
            no reader here executes, or ``segments`` stand beside it; list and line are named.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing: run the stage that makes it")
    if path.name == "wav.scp" and path.with_name("segments").is_file():
        raise ValueError(
            f"{path.with_name('segments')} divides the recordings of {path}, and is not read: cut them first "
            "(ESPnet: scripts/audio/format_wav_scp.sh --segments)"
        )
    entries = []
    for key, (number, file) in keyed_lines(path).items():
        if not file:
            raise ValueError(f"{path}, line {number}: {key!r}, wanted an id and a path")
        if file.endswith("|"):
            raise ValueError(f"{path}, line {number}: {key} is a command, wanted an audio file")
        entries.append(Entry(key, file, path, number))
    return entries


def read_scp(path: str | Path) -> dict[str, str]:
    """``wav.scp``: id -> path, as :func:`read_list` reads it; what is not found stays as it is written."""
    return {entry.key: _found(entry) for entry in read_list(path)}


def read_table(path: str | Path) -> dict[str, str]:
    """``utt2spk`` or ``text``: id -> the rest of its line; ValueError as :func:`read_list` for what its ids may be."""
    return {key: rest for key, (_, rest) in keyed_lines(path).items()}


def _found(entry: Entry) -> str:
    try:
        return str(entry.file())
    except ValueError:
        return entry.path


def _places(list_file: Path) -> list[Path]:
    """Where a relative path in a list may start: here, beside the list, or in a folder above it, as in recipes."""
    return [Path(), *Path(os.path.abspath(list_file)).parents]


def existing(path: Path) -> Path | None:
    """``path``, or the file beside it whose name is the same in another Unicode normal form; None: neither is there."""
    if path.is_file():
        return path
    wanted = unicodedata.normalize("NFC", path.name)
    if wanted.isascii() or not path.parent.is_dir():
        return None
    return next((p for p in path.parent.iterdir() if unicodedata.normalize("NFC", p.name) == wanted), None)


def files_in(folder: Path, suffixes: Iterable[str], without: Path | None = None) -> dict[str, Path]:
    """id -> file, of a folder and those in it; an id is the path from the folder on, without its suffix.

    Args:
        without: a folder that is passed over, where it lies inside.

    Raises:
        ValueError: two files have one id; both are named.
    """
    found: dict[str, Path] = {}
    for path in paths_in(folder, suffixes, without):
        key = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        if key in found:
            raise ValueError(f"{found[key]} and {path} have one id, {key}")
        found[key] = path
    return found


def paths_in(folder: Path, suffixes: Iterable[str], without: Path | None = None) -> Iterator[Path]:
    """The files that :func:`files_in` names, in order; folders that are links are entered, each folder once.

    Where recordings are wanted, a warning names those of other kinds that are passed over.
    """
    others: list[Path] = []
    seen, excluded = set(), None if without is None else os.path.realpath(without)
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen or (real == excluded and Path(place) != Path(folder)):
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in suffixes and not name.startswith("._"):  # the latter: macOS's, beside each file
                yield path
            elif ".wav" in suffixes and path.suffix.lower() in OTHER_AUDIO and not name.startswith("._"):
                others.append(path)
    if others:
        kinds = ", ".join(AUDIO_SUFFIXES)
        warnings.warn(f"{others[0]}: passed over, {len(others)} such in {folder}; read are {kinds}", stacklevel=2)


def listed(paths: Iterable[Path], suffixes: Iterable[str], without: Path | None = None) -> list[Entry]:
    """What a command is given: files, lists (``.scp``) and folders, each file with its id.

    Args:
        paths: as typed; ``*`` is resolved where the shell did not.
        suffixes: of the files to take from folders.
        without: a folder inside those given that is passed over, such as the command's output.

    Raises:
        ValueError: a list is not as it should be, or a folder holds no such file.
    """
    entries = []
    for path in map(Path, paths):
        if path.is_dir():
            if not (found := files_in(path, suffixes, without)):
                raise ValueError(f"{path} is a folder without {', '.join(suffixes)} files")
            entries += [Entry(key, str(file)) for key, file in found.items()]
        elif path.suffix.lower() == ".scp":
            entries += read_list(path)
        elif "*" in path.name and not path.exists() and (matches := sorted(glob.glob(str(path)))):
            entries += listed(map(Path, matches), suffixes, without)
        else:
            entries.append(Entry(unicodedata.normalize("NFC", path.stem), str(path)))
    return entries
