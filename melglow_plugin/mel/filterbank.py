"""Triangular mel filters, and where they lie."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


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


def geometry(bank: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and area of each filter of ``bank`` (M, K), (M,) each in bins of the spectrum.

    The area is 0 for a narrow low filter that holds no bin at all; its centre means nothing.
    """
    area = bank.sum(1)
    return (bank * torch.arange(bank.shape[1], device=bank.device)).sum(1) / area.clamp(min=1e-12), area


def interpolation(centres: Tensor, places: Tensor) -> Tensor:
    """(K, M): row k interpolates linearly between the M centres on either side of place k, constant beyond the ends."""
    places = places.to(centres).clamp(centres[0], centres[-1])
    right = torch.searchsorted(centres.contiguous(), places).clamp(1, len(centres) - 1)
    share = (places - centres[right - 1]) / (centres[right] - centres[right - 1]).clamp(min=1e-9)
    matrix = torch.zeros(len(places), len(centres), dtype=centres.dtype, device=centres.device)
    rows = torch.arange(len(places), device=centres.device)
    matrix[rows, right - 1] = 1 - share
    matrix[rows, right] = share
    return matrix
