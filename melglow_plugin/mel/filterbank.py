"""Triangular mel filters."""

import math
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=32)
def mel_filterbank(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    fmin: float,
    fmax: float,
    mel_scale: str = "slaney",
    mel_norm: str = "slaney",
) -> np.ndarray:
    """Triangular filters over the bins of an STFT, (M, n_fft // 2 + 1), float32; equal to ``librosa.filters.mel``."""
    to_mel, to_hz = (_hz_to_htk, _htk_to_hz) if mel_scale == "htk" else (_hz_to_slaney, _slaney_to_hz)
    edges = to_hz(np.linspace(to_mel(fmin), to_mel(fmax), n_mels + 2))
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    widths = np.diff(edges)
    ramps = edges[:, None] - bins
    bank = np.maximum(0, np.minimum(-ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]))
    if mel_norm == "slaney":
        bank *= (2 / (edges[2:] - edges[:-2]))[:, None]
    return bank.astype(np.float32)


def _hz_to_htk(hz):
    return 2595 * np.log10(1 + np.asarray(hz) / 700)


def _htk_to_hz(mel):
    return 700 * (10 ** (np.asarray(mel) / 2595) - 1)


# Slaney's Auditory Toolbox: linear below 1 kHz (3 mels each 200 Hz), then 27 mels each factor of 6.4.
def _hz_to_slaney(hz):
    hz = np.asarray(hz, dtype=float)
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / math.log(6.4))


def _slaney_to_hz(mel):
    mel = np.asarray(mel, dtype=float)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(math.log(6.4) / 27 * (np.maximum(mel, 15) - 15)))
