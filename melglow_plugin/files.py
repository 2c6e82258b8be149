"""Files of recordings, mels and figures: read as numbers, refused in one line, written whole."""

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_FILE_BYTES = 2_000_000  # YAML is read at a few 100 kB a second
AUDIO_SUFFIXES = (".flac", ".wav")


def write_whole(path: Path, content: bytes) -> None:
    """A file that appears whole or not at all."""
    with whole_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def whole_file(path: str | Path, tag: object = None) -> Iterator[BinaryIO]:
    """Write under a temporary name, flush to disk, rename: a reader sees the old file or the new one.

    Args:
        path: the file.
        tag: part of the temporary name; None: the process's number. With a constant, what a killed writer left behind
            is written over by the next one.

    Raises:
        OSError: naming ``path``.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid() if tag is None else tag}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # a full disk, met while writing
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def read_mapping(path: Path) -> dict:
    """A JSON or YAML file of named values; ValueError names the file otherwise. Nothing in it executes."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {MAX_FILE_BYTES}: no configuration")
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no {'JSON' if path.suffix == '.json' else 'YAML'}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, wanted named values")
    return values


def _yaml(text: str):
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def read_scp(path: Path) -> dict[str, str]:
    """``wav.scp``: id -> path; ValueError on pipes, which no reader here executes."""
    if not Path(path).is_file():
        raise ValueError(f"{path} is missing: run the stage that makes it")
    entries = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split(maxsplit=1)
        if len(fields) != 2:
            raise ValueError(f"{path}, line {number}: {line!r}, wanted an id and a path")
        check_id(fields[0], f"{path}, line {number}")
        if fields[1].rstrip().endswith("|"):
            raise ValueError(f"{path}, line {number}: {fields[0]} is a command, wanted an audio file")
        entries[fields[0]] = fields[1].strip()
    return entries


def check_id(key: str, where: str) -> None:
    """ValueError where a file named after the id would lie outside the folder it is written to."""
    if Path(key).is_absolute() or ".." in Path(key).parts or "\0" in key:
        raise ValueError(f"{where}: the id {key!r} leads out of the folder")


def listed(paths: list[Path]) -> Iterator[tuple[str, Path]]:
    """(id, file) of files, and of the entries of any ``.scp`` among them."""
    for path in paths:
        if path.suffix == ".scp":
            if not (entries := read_scp(path)):
                raise ValueError(f"{path} is empty")
            yield from ((key, Path(file)) for key, file in entries.items())
        else:
            yield path.stem, path


def read_array(path: Path):
    """The numbers of a ``.npy``, of any shape."""
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, MemoryError, OverflowError) as error:
        raise ValueError(f"{path} is no .npy of numbers: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} is no .npy of numbers: it holds several arrays, or none")
    return array


def read_mel(path: Path, frames_first: bool):
    """A mel (M, F) from ``.npy``."""
    import numpy as np
    import torch

    mel = read_array(path)
    if mel.ndim != 2 or not np.issubdtype(mel.dtype, np.floating):
        raise ValueError(f"{path}: {mel.dtype} of shape {mel.shape}, wanted floats of two dimensions")
    return torch.from_numpy(mel.T if frames_first else mel).float()


def read_wav(path: Path, sample_rate: int):
    """A mono recording (T,) at ``sample_rate``."""
    import soundfile
    import torch

    try:
        wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if rate != sample_rate:
        raise ValueError(f"{path} has {rate} Hz, the model {sample_rate} Hz")
    if wav.shape[1] != 1:
        raise ValueError(f"{path} has {wav.shape[1]} channels, the model 1")
    return torch.from_numpy(wav[:, 0])


def read_any_wav(path: Path):
    """A recording (T,), its channels averaged, and its rate in Hz."""
    import soundfile
    import torch

    try:
        wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return torch.from_numpy(wav.mean(1)), rate


def write_wav(path: Path, wav, sample_rate: int) -> None:
    """16-bit PCM; it appears whole or not at all."""
    import soundfile

    # libsndfile tells of a full disk in words of its own: it writes into memory.
    buffer = io.BytesIO()
    soundfile.write(buffer, wav.clamp(-1, 1).cpu().numpy(), sample_rate, subtype="PCM_16", format="WAV")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


def append_csv(path: Path, row: dict) -> None:
    """A row more, under the names of its columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def read_csv(path: Path) -> list[dict[str, str]]:
    """A row each, by column."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
