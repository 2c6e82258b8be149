"""Recordings: one reader, which refuses damaged and incomplete files."""

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

from melglow_plugin.files.arrays import load_ark
from melglow_plugin.files.writing import input_file, make_folder, write_bytes

LOUDEST = 16.0  # 24 dB above full scale: no recording, but integers kept as floats
FULL = 1.1  # 0.8 dB above full scale: codecs, filters and resampling of a sound recording take it less far
_UNKNOWN = 0x7FFFF000  # sizes from here on are what programs write that do not know the length yet


def read_audio(path: str | Path):
    """A recording (T, channels), float32 in [-1, 1], and its rate in Hz.

    A warning names one whose samples lie above full scale; they are kept as they are.

    Raises:
        ValueError: it cannot be read, ends before its header says, is empty, or holds values that are not finite or
            scaled as integers; the file is named.
    """
    import numpy as np

    wav, rate = decode(path)
    if not wav.size:
        raise ValueError(f"{path} is empty: 0 samples")
    if bad := int((~np.isfinite(wav)).sum()):
        raise ValueError(f"{path} holds {bad} samples that are not finite, of {wav.size}")
    peak = float(np.abs(wav).max())
    if peak > LOUDEST or (peak > 1.5 and not (wav % 1).any()):
        raise ValueError(f"{path} has values to {peak:,.0f}, wanted at most 1: scaled as integers?")
    if peak > FULL:
        warnings.warn(f"{path} peaks at {peak:.2f}, above full scale (1): copies of it will clip", stacklevel=2)
    return wav, rate


def decode(path: str | Path):
    """The samples (T, channels) of a recording in float32, whatever their values, and its rate in Hz.

    Raises:
        ValueError: it cannot be read, or ends before its header says; the file is named.
    """
    import soundfile

    if ".ark:" in str(path).lower():
        return _from_ark(str(path))
    with _opening(path) as file:
        return soundfile.read(_with_right_size(file), dtype="float32", always_2d=True)


def audio_info(path: str | Path):
    """``samplerate`` in Hz, ``channels``, ``frames`` and ``duration`` in seconds, from the header; or ValueError."""
    import soundfile

    with _opening(path) as file:
        return soundfile.info(file)


@contextlib.contextmanager
def _opening(path: str | Path) -> Iterator[Path]:
    """An input file; what libsndfile cannot read is a ValueError that names it."""
    import soundfile

    path = input_file(path)
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty: 0 bytes")
    try:
        yield path
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a suffix that libsndfile takes for raw samples
        raise ValueError(f"{path} cannot be read: {getattr(error, 'error_string', error)}") from error


def _from_ark(place: str):
    import numpy as np

    found = load_ark(place)
    if not isinstance(found, tuple) or len(found) != 2:
        raise ValueError(f"{place} holds no recording")
    rate, wav = found if isinstance(found[0], int) else found[::-1]
    wav = np.asarray(wav)
    if wav.dtype.kind == "i":
        wav = wav / np.float32(-float(np.iinfo(wav.dtype).min))
    return wav.astype(np.float32).reshape(len(wav), -1), int(rate)


def _with_right_size(path: Path) -> Path | io.BytesIO:
    """``path``; or its content with the size of its data put right, where a program wrote it that did not know it.

    Raises:
        ValueError: the file ends before its header says.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(4) != b"RIFF" or file.seek(8) != 8 or file.read(4) != b"WAVE":
            return path
        while len(head := file.read(8)) == 8:
            kind, claimed = struct.unpack("<4sI", head)
            here = file.tell()
            if kind == b"data":
                break
            file.seek(claimed + claimed % 2, 1)
        else:
            return path
        held = size - here
        if claimed <= held and not (claimed == 0 and held > 0):
            return path
        if 0 < claimed < _UNKNOWN:
            raise ValueError(f"{path} ends early: its header says {claimed} bytes of samples, {held} are there")
        file.seek(0)
        content = bytearray(file.read())
    content[here - 4 : here] = struct.pack("<I", held)
    content[4:8] = struct.pack("<I", size - 8)
    return io.BytesIO(bytes(content))


def read_wav(path: str | Path, sample_rate: int, remedy: str = ""):
    """A mono recording (T,) at ``sample_rate``; ValueError as :func:`read_audio`, and for other rates and channels.

    ``remedy`` ends the message of the latter two.
    """
    import torch

    wav, rate = read_audio(path)
    if rate != sample_rate:
        raise ValueError(f"{path} has {rate} Hz, the model {sample_rate} Hz{remedy}")
    if wav.shape[1] != 1:
        raise ValueError(f"{path} has {wav.shape[1]} channels, the model 1{remedy}")
    return torch.from_numpy(wav[:, 0])


def read_any_wav(path: str | Path):
    """A recording (T,), its channels averaged, and its rate in Hz; ValueError as :func:`read_audio`."""
    import torch

    wav, rate = read_audio(path)
    return torch.from_numpy(wav.mean(1)), rate


def write_wav(path: Path, wav, sample_rate: int) -> None:
    """``wav`` (T,) or (T, channels) as WAV or, by its suffix, FLAC; the file appears whole or not at all."""
    make_folder(path.parent)
    write_bytes(path, audio_bytes(wav, sample_rate, "FLAC" if path.suffix.lower() == ".flac" else "WAV"))


def audio_bytes(wav, sample_rate: int, format: str) -> bytes:
    """A recording (T,) or (T, channels), tensor or array, in 16 bits, as a file of that ``format`` of libsndfile's."""
    import soundfile
    import torch

    buffer = io.BytesIO()  # libsndfile's own message for a full disk is unclear
    samples = torch.as_tensor(wav).clamp(-1, 1).cpu().numpy()
    soundfile.write(buffer, samples, sample_rate, subtype="PCM_16", format=format)
    return buffer.getvalue()
