"""Files of recordings, mels and figures: read as numbers, refused in one line, written whole."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path


def listed(paths: list[Path]) -> Iterator[tuple[str, Path]]:
    """(id, file) of files, and of the entries of any ``.scp`` among them."""
    from melglow_plugin.corpus import read_scp

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

    from melglow_plugin.checkpoint import write_whole

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
