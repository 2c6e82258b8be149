"""A corpus on disk: where its recordings and splits are, and which recordings cannot be trained on."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from melglow_plugin.files import AUDIO_SUFFIXES, files_in, keyed_lines, lines_of, read_audio, write_lines

SETS = ("tr_no_dev", "dev", "eval1")  # as ESPnet calls them


def read_metadata(corpus: Path) -> dict[str, str]:
    """``metadata.csv`` of an LJSpeech tree, ``id|text|normalised text``: id -> normalised text."""
    path = corpus / "metadata.csv"
    if not path.is_file():
        raise ValueError(f"{path} is missing: a corpus is a folder with metadata.csv and wavs/")
    for number, line in lines_of(path):
        if not line.partition("|")[2]:
            raise ValueError(f"{path}, line {number}: 1 field, wanted id|text or id|text|normalised text")
    return {key: rest.split("|")[-1] for key, (_, rest) in keyed_lines(path, "|").items()}


def find_recordings(corpus: Path, ids: Iterable[str]) -> dict[str, Path]:
    """id -> its file in ``wavs/`` or in the folder itself; ValueError names the first that has none, or two."""
    there = {folder: files_in(folder, AUDIO_SUFFIXES) for folder in (corpus / "wavs", corpus) if folder.is_dir()}
    found = {}
    for key in ids:
        found[key] = next((files[key] for files in there.values() if key in files), None)
        if found[key] is None:
            raise ValueError(
                f"{corpus}: metadata.csv names {key}, but there is no {corpus / 'wavs' / key}.flac or .wav, nor one "
                f"in {corpus}"
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
        chosen = {name: list(keyed_lines(path, "\n")) for name, path in lists.items()}
        for name, keys in chosen.items():
            if missing := sorted(set(keys) - set(ids)):
                raise ValueError(f"{lists[name]} names {missing[0]}, which metadata.csv has not")
        check_disjoint(chosen, lists)
        return chosen
    ids = sorted(ids)
    held_out = 500 if len(ids) >= 5000 else max(2, len(ids) // 10)
    if len(ids) <= held_out:
        raise ValueError(f"{corpus}: {len(ids)} recordings are too few to hold {held_out} out for dev and eval")
    first_dev, first_eval = len(ids) - held_out, len(ids) - held_out // 2
    return dict(zip(SETS, (ids[:first_dev], ids[first_dev:first_eval], ids[first_eval:]), strict=True))


def check_disjoint(chosen: Mapping[str, Iterable[str]], lists: Mapping[str, Path]) -> None:
    """ValueError where an id is in two of the sets, whose lists are named."""
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


def recording_faults(path: str | Path, sample_rate: int, min_samples: int) -> list[str]:
    """Why a recording cannot be trained on, each with what was found and what was wanted; empty if it can.

    Args:
        path: an audio file.
        sample_rate: Hz.
        min_samples: samples that a training crop needs.
    """
    if ".ark:" in str(path).lower():
        return [f"{path} is in an archive: training reads audio files (ESPnet: format_wav_scp.sh --audio_format flac)"]
    try:
        wav, rate = read_audio(path)
    except (ValueError, OSError) as error:
        return [str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")]
    faults = []
    if rate != sample_rate:
        faults.append(f"sample rate {rate} Hz, wanted {sample_rate} Hz")
    if wav.shape[1] != 1:
        faults.append(f"{wav.shape[1]} channels, wanted 1")
    if len(wav) < min_samples:
        faults.append(f"{len(wav)} samples, a training crop needs {min_samples}")
    if np.ptp(wav) < 1e-3:
        faults.append(f"silence: values from {wav.min():g} to {wav.max():g}")
    clipped = float(np.mean(np.abs(wav) >= 0.999))
    if clipped > 0.001:
        faults.append(f"clipped: {clipped:.2%} of the samples are at full scale")
    return faults
