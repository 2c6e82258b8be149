"""A corpus on disk: where its recordings and splits are, and which recordings cannot be trained on."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from melglow_plugin.files import AUDIO_SUFFIXES, check_id

SETS = ("tr_no_dev", "dev", "eval1")  # as ESPnet calls them


def read_metadata(corpus: Path) -> dict[str, str]:
    """``metadata.csv`` of an LJSpeech tree, ``id|text|normalised text``: id -> normalised text."""
    path = corpus / "metadata.csv"
    if not path.is_file():
        raise ValueError(f"{path} is missing: a corpus is a folder with metadata.csv and wavs/")
    texts = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n"), 1):
        fields = line.rstrip("\r").split("|")
        if len(fields) < 2:
            raise ValueError(f"{path}, line {number}: {len(fields)} field, wanted id|text or id|text|normalised text")
        check_id(fields[0], f"{path}, line {number}")
        if fields[0] in texts:
            raise ValueError(f"{path}, line {number}: {fields[0]} is there twice")
        texts[fields[0]] = fields[-1]
    return texts


def find_recordings(corpus: Path, ids: Iterator[str]) -> dict[str, Path]:
    """id -> its file in ``wavs/`` or in the folder itself; ValueError names the first that has none."""
    found = {}
    for key in ids:
        candidates = [folder / f"{key}{suffix}" for folder in (corpus / "wavs", corpus) for suffix in AUDIO_SUFFIXES]
        found[key] = next((c for c in candidates if c.is_file()), None)
        if found[key] is None:
            raise ValueError(
                f"{corpus}: metadata.csv names {key}, but there is no {candidates[0]} or .flac, .wav beside it"
            )
    return found


def split(corpus: Path, ids: list[str]) -> dict[str, list[str]]:
    """The ids of each set: the lists in ``splits/`` if there are any, else ESPnet's rule for LJSpeech.

    That rule takes the last 500 sorted ids, half for dev and half for eval. A corpus of less than 5,000 gives a tenth.
    """
    names = dict(zip(SETS, ("train", "dev", "eval"), strict=True))
    lists = {name: corpus / "splits" / f"{stem}.txt" for name, stem in names.items()}
    present = [path for path in lists.values() if path.is_file()]
    if present and len(present) < len(lists):
        missing = ", ".join(str(path) for path in lists.values() if path not in present)
        raise ValueError(f"{present[0]} is there, but {missing} is not: give all three lists or none")
    if present:
        chosen = {name: path.read_text(encoding="utf-8").split() for name, path in lists.items()}
        for name, keys in chosen.items():
            if missing := sorted(set(keys) - set(ids)):
                raise ValueError(f"{lists[name]} names {missing[0]}, which metadata.csv has not")
        _check_disjoint(chosen, lists)
        return chosen
    ids = sorted(ids)
    held_out = 500 if len(ids) >= 5000 else max(2, len(ids) // 10)
    if len(ids) <= held_out:
        raise ValueError(f"{corpus}: {len(ids)} recordings are too few to hold {held_out} out for dev and eval")
    first_dev, first_eval = len(ids) - held_out, len(ids) - held_out // 2
    return dict(zip(SETS, (ids[:first_dev], ids[first_dev:first_eval], ids[first_eval:]), strict=True))


def _check_disjoint(chosen: dict[str, list[str]], lists: dict[str, Path]) -> None:
    seen: dict[str, str] = {}
    for name, keys in chosen.items():
        for key in keys:
            if key in seen:
                raise ValueError(
                    f"{key} is in {lists[seen[key]]} and again in {lists[name]}: held-out data is never trained on"
                )
            seen[key] = name


def write_data_dir(folder: Path, recordings: dict[str, Path], texts: dict[str, str]) -> None:
    """A Kaldi-style directory: wav.scp, utt2spk, spk2utt, text, sorted by id."""
    keys = sorted(recordings)
    if not keys:
        raise ValueError(f"{folder}: no recordings")
    folder.mkdir(parents=True, exist_ok=True)
    lines = {
        "wav.scp": [f"{k} {recordings[k].resolve()}" for k in keys],
        "utt2spk": [f"{k} LJ" for k in keys],
        "spk2utt": [f"LJ {' '.join(keys)}"],
        "text": [f"{k} {texts[k]}" for k in keys],
    }
    for name, content in lines.items():
        write_lines(folder / name, content)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """A text file that appears whole or not at all; OSError names it."""
    from melglow_plugin.files import write_whole

    try:
        write_whole(path, "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:  # of the temporary file, or without a name where the disk is full
        raise OSError(error.errno, error.strerror, str(path)) from error


def recording_faults(path: str | Path, sample_rate: int, min_samples: int) -> list[str]:
    """Why a recording cannot be trained on, each with what was found and what was wanted; empty if it can.

    Args:
        path: an audio file.
        sample_rate: Hz.
        min_samples: samples that a training crop needs.
    """
    import soundfile

    try:
        wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        return [f"cannot be read: {error}"]
    faults = []
    if rate != sample_rate:
        faults.append(f"sample rate {rate} Hz, wanted {sample_rate} Hz")
    if wav.shape[1] != 1:
        faults.append(f"{wav.shape[1]} channels, wanted 1")
    if len(wav) < min_samples:
        faults.append(f"{len(wav)} samples, a training crop needs {min_samples}")
    if len(wav) == 0:
        return faults
    if not np.isfinite(wav).all():
        faults.append("values that are not finite")
    elif np.ptp(wav) < 1e-3:
        faults.append(f"silence: values from {wav.min():g} to {wav.max():g}")
    clipped = float(np.mean(np.abs(wav) >= 0.999))
    if clipped > 0.001:
        faults.append(f"clipped: {clipped:.2%} of the samples are at full scale")
    return faults
