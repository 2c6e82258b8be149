"""Recordings of many speakers: from folders and lists to disjoint sets at one sample rate."""

import csv
import hashlib
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from melglow_plugin.files import (
    AUDIO_SUFFIXES,
    audio_info,
    decode,
    paths_in,
    read_audio,
    read_scp,
    read_table,
    read_text,
    write_wav,
)
from melglow_plugin.training.resample import resample

PLAIN_FOLDERS = ("wavs", "wav", "flac", "audio")  # folders of these names are not named after speakers
MALE_BELOW = 160  # Hz: median F0 of a speaker whose sex a list leaves open


@dataclass(frozen=True)
class Recording:
    """One utterance of one speaker; empty where a list does not tell."""

    path: Path
    speaker: str
    sex: str = ""  # F or M
    language: str = ""  # en, nl, ...

    @property
    def key(self) -> str:
        """An id for ESPnet, which wants those of one speaker together."""
        name = unicodedata.normalize("NFC", f"{self.speaker}-{self.path.stem}")
        return re.sub(r"[^A-Za-z0-9_.+\u00a1-\U0010ffff-]|\s", "_", name)


# Where recordings are listed


def read_source(source: Path) -> list[Recording]:
    """The recordings of a folder or of a list.

    Args:
        source: a Kaldi-style folder (``wav.scp`` and ``utt2spk``, as in an ESPnet dump); any other folder, whose
            recordings belong to the speakers that their folders are named after; or a text file with a path a line, or
            with ``path|speaker`` (comma or tab as well, with or without a header ``file``/``path``, ``speaker``).
            Paths start from the file's folder or the one above; ids of a ``wavs/`` there serve as well. Speakers of
            plain paths are looked up in a ``SOURCES.csv`` above the recording.

    Raises:
        ValueError: nothing is there, or a line names no recording.
    """
    if source.is_dir():
        found = _kaldi(source) if (source / "wav.scp").is_file() else _folder(source)
    elif source.is_file():
        found = _listed(source)
    else:
        raise ValueError(f"{source} is neither a folder nor a list of recordings")
    if not found:
        raise ValueError(f"{source}: no recordings ({', '.join(AUDIO_SUFFIXES)})")
    return found


def _kaldi(folder: Path) -> list[Recording]:
    speakers = read_table(folder / "utt2spk")
    found = []
    for key, path in read_scp(folder / "wav.scp").items():
        if key not in speakers:
            raise ValueError(f"{folder / 'utt2spk'}: no speaker of {key}, which {folder / 'wav.scp'} names")
        found.append(Recording(Path(path).resolve(), speakers[key]))
    return found


def _folder(folder: Path) -> list[Recording]:
    return [_described(path) for path in sorted(paths_in(folder, AUDIO_SUFFIXES))]


def _listed(source: Path) -> list[Recording]:
    lines = [line for line in read_text(source).split("\n") if line.strip()]
    delimiter = next((each for each in "|\t," if each in lines[0]), None) if lines else None
    if delimiter is None:
        return [_described(_find(line.strip(), source)) for line in lines]
    rows = list(csv.reader(lines, delimiter=delimiter))
    names = ["path", "speaker"]
    if "speaker" in rows[0]:
        names = rows.pop(0)
    found = []
    for number, row in enumerate(rows, len(lines) - len(rows) + 1):
        values = dict(zip(names, row, strict=False))
        if not values.get("speaker"):
            raise ValueError(f"{source}, line {number}: {delimiter.join(row)!r} has no speaker, wanted path|speaker")
        found.append(_of_row(_find(values.get("file") or values["path"], source), values))
    return found


def _find(name: str, source: Path) -> Path:
    bases = (source.parent, source.parent.parent, source.parent.parent / "wavs")
    for base in bases:
        for suffix in ("", *AUDIO_SUFFIXES):
            if (path := base / f"{name}{suffix}").is_file():
                return path
    raise ValueError(f"{source}: {name} is no file below {source.parent} or {source.parent.parent}")


def _described(path: Path) -> Recording:
    """A recording whose speaker a ``SOURCES.csv`` above it or else its folder names, which may hold a link to it."""
    named = Path(os.path.abspath(path))
    if row := source_row(path.resolve()) or source_row(named):
        return _of_row(path, row)
    folder = named.parent
    return Recording(path.resolve(), folder.parent.name if folder.name in PLAIN_FOLDERS else folder.name)


def source_row(path: Path) -> dict[str, str] | None:
    """A recording's row in the ``SOURCES.csv`` of one of the three folders above it; None: it has none."""
    rows = (_sources(root / "SOURCES.csv").get(path.relative_to(root).as_posix()) for root in list(path.parents)[:3])
    return next(filter(None, rows), None)


@cache
def _sources(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a list with a header, by file; none where there is no list, or it names no speakers."""
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file) if row.get("file") and row.get("speaker")}


def _of_row(path: Path, row: Mapping[str, str]) -> Recording:
    speaker = f"{row['corpus']}_{row['speaker']}" if row.get("corpus") else row["speaker"]
    pitch = float(row.get("f0_median_hz") or math.nan)
    by_pitch = "" if math.isnan(pitch) else "M" if pitch < MALE_BELOW else "F"
    return Recording(path.resolve(), speaker, row.get("sex") or by_pitch, (row.get("language") or "").split("-")[0])


# Sets


def hold_out(recordings: Iterable[Recording], share: float = 0.05) -> list[list[Recording]]:
    """Train, dev and eval: whole speakers leave training, ``share`` of them for each of the other sets, at least one.

    Which ones follows from their names alone, so a corpus that grows keeps most of them; where it grows by so many
    speakers that more are held out, these may have been in train.

    Raises:
        ValueError: fewer than three speakers.
    """
    speakers: dict[str, list[Recording]] = {}
    for each in recordings:
        speakers.setdefault(each.speaker, []).append(each)
    if len(speakers) < 3:
        counted = "1 speaker" if len(speakers) == 1 else f"{len(speakers)} speakers"
        raise ValueError(
            f"{counted} ({', '.join(speakers)}): three are needed to hold two out; --same_speakers true holds "
            "recordings out"
        )
    names = sorted(speakers, key=_place)
    count = max(1, round(share * len(names)))
    parts = names[2 * count :], names[:count], names[count : 2 * count]
    return [[each for name in sorted(part) for each in speakers[name]] for part in parts]


def hold_out_recordings(recordings: Iterable[Recording], share: float = 0.05, most: int = 50) -> list[list[Recording]]:
    """Train, dev and eval of the same speakers: about ``share`` of the recordings for dev and eval each, at least one.

    Which ones follows from each id alone, so that what was in train is not in dev or eval when recordings are added.

    Args:
        most: recordings of dev, and of eval.

    Raises:
        ValueError: fewer than three recordings.
    """
    ordered = sorted(recordings, key=lambda each: _place(each.key))
    if len(ordered) < 3:
        named = ", ".join(each.key for each in ordered)
        raise ValueError(f"{len(ordered)} recordings ({named}): three are needed to hold two out")
    places, largest = [_place(each.key) for each in ordered], min(most, len(ordered) // 3)
    dev = min(largest, max(1, sum(place < share for place in places)))
    evaluated = min(largest, max(1, sum(place >= 1 - share for place in places)))
    parts = ordered[dev:-evaluated], ordered[:dev], ordered[-evaluated:]
    return [sorted(part, key=lambda each: each.key) for part in parts]


def _place(name: str) -> float:
    """From 0 up to 1, evenly spread over names."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) / 16**12


def check_sets(sets: Mapping[str, list[Recording]], speakers_apart: bool = True) -> dict[str, list[tuple[str, str]]]:
    """Refuse what is in two sets, or two recordings under one id; find what is twice in one set.

    Args:
        sets: by name; the first is the one that is trained on.
        speakers_apart: no speaker of the first may be in another.

    Returns:
        set -> (id, reason) of the recordings whose samples are those of one before.

    Raises:
        ValueError: a recording is in two sets, or a speaker of the first in another; the message names both.
    """
    train = next(iter(sets))
    seen: dict[str, tuple[str, Recording]] = {}
    keys: dict[str, Path] = {}
    twice: dict[str, list[tuple[str, str]]] = {name: [] for name in sets}
    for name, recordings in sets.items():
        for each in recordings:
            if keys.setdefault(each.key, each.path) != each.path:
                raise ValueError(f"{each.path} and {keys[each.key]} have one id, {each.key}: rename one of them")
            before, other = seen.setdefault(_digest(each.path), (name, each))
            if before != name:
                raise ValueError(f"{each.path} of {name} is the recording {other.path} of {before}")
            if other is not each:
                twice[name].append((each.key, f"the same samples as {other.path}"))
    speakers = {each.speaker for each in sets[train]}
    for name, recordings in list(sets.items())[1:]:
        if speakers_apart and (both := sorted(speakers & {each.speaker for each in recordings})):
            raise ValueError(
                f"speaker {both[0]} is in {train} and in {name} ({len(both)} such): hold speakers out whole, "
                "or allow it by --same_speakers true"
            )
    return twice


@cache
def _digest(path: Path) -> str:
    """Of the samples: the same in another container. Of the file where it cannot be read: stage 1 leaves it out."""
    try:
        wav, rate = decode(path)
    except ValueError:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256(f"{rate} {wav.shape}".encode() + wav.tobytes()).hexdigest()


# One sample rate


def at_rate(recording: Recording, sample_rate: int, folder: Path) -> Recording:
    """The recording itself where it has that rate; else a copy in ``folder``, which is made once of these samples.

    The level of a copy that would clip is reduced. 16-bit FLAC; channels stay as they are, for the check that follows.

    Args:
        sample_rate: Hz.

    Raises:
        ValueError: the rate of the recording is lower: the missing band would be learned as silence.
    """
    try:
        rate = audio_info(recording.path).samplerate
    except ValueError:
        return recording  # stage 1 names it and leaves it out
    if rate == sample_rate:
        return recording
    if rate < sample_rate:
        raise ValueError(f"{recording.path} has {rate} Hz, wanted {sample_rate} Hz or more")
    copy = folder / f"{recording.key}-{_digest(recording.path)[:12]}-{sample_rate}.flac"
    if not copy.is_file():
        try:
            wav, _ = read_audio(recording.path)
        except ValueError:
            return recording  # likewise
        wav = resample(torch.from_numpy(wav.T), rate, sample_rate).T
        write_wav(copy, wav / max(1.0, float(wav.abs().max()) / 0.998), sample_rate)
    return replace(recording, path=copy)
