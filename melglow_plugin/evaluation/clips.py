"""What a page plays: the files of an utterance at one level, as FLAC, and pictures of their mels."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from melglow_plugin.evaluation.evaluate import level_gain
from melglow_plugin.files import read_any_wav
from melglow_plugin.mel.convention import MelConvention

RANGE = 80  # dB shown below a recording's loudest bin


@dataclass(frozen=True)
class System:
    """A row of the table and a player of every clip: the recording, a vocoder, a reference method.

    Where ``everywhere`` is False, some clips have it only.
    """

    name: str
    about: str = ""
    everywhere: bool = True


@dataclass(frozen=True)
class Clip:
    """One utterance.

    Args:
        wavs: system name -> audio file.
        scores: system name -> score -> value.
    """

    key: str
    text: str
    wavs: Mapping[str, Path]
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def spread(keys: Sequence[str], most: int) -> list[str]:
    """At most ``most`` of ``keys``, evenly from the first on."""
    return list(keys) if len(keys) <= most else [keys[i * len(keys) // most] for i in range(most)]


def levelled(clip: Clip, systems: Sequence[System]) -> tuple[dict[str, np.ndarray], int]:
    """system -> wav at the recording's level, all turned down alike where one would clip; and their sample rate."""
    wavs, rates = {}, {}
    for system in systems:
        if system.name not in clip.wavs:
            if not system.everywhere:
                continue
            raise ValueError(f"clip {clip.key} has wavs of {', '.join(clip.wavs)}, none of {system.name}")
        wav, rates[system.name] = read_any_wav(clip.wavs[system.name])
        wavs[system.name] = wav.numpy()
    if len(set(rates.values())) > 1:
        raise ValueError(f"clip {clip.key}: sample rates differ, {rates} Hz")
    sample_rate, recording = rates[systems[0].name], wavs[systems[0].name]
    wavs = {name: wav * np.float32(level_gain(recording, wav, sample_rate)) for name, wav in wavs.items()}
    peak = max(float(np.abs(wav).max(initial=0.0)) for wav in wavs.values())
    return {name: wav / np.float32(max(1.0, peak / 0.99)) for name, wav in wavs.items()}, sample_rate


def log_mel(wav: np.ndarray, sample_rate: int) -> np.ndarray:
    """In dB, (128, F)."""
    convention = MelConvention(sample_rate, n_mels=128, fmin=0, fmax=None, log_base=10.0, gain=20.0, floor=1e-6)
    wav = np.pad(wav, (0, max(0, convention.n_fft - len(wav))))
    return convention.extract(torch.from_numpy(wav)).numpy()


def picture(mel: np.ndarray, top: float) -> bytes:
    """A PNG of a mel in dB (M, F), low bands below; ``top`` dB are brightest."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, mel, vmin=top - RANGE, vmax=top, cmap="magma", origin="lower", format="png")
    return file.getvalue()
