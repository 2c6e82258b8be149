"""From one filterbank to another through the magnitude spectrum: an estimate, with the error to expect of it."""

import math

import torch
from torch import Tensor

ITERATIONS = 30


def spectrum_of(m: Tensor, bank: Tensor) -> Tensor:
    """A smooth non-negative spectrum whose mel is ``m``.

    Starts from the mel's density interpolated over frequency in logarithms; then Richardson-Lucy steps, which keep it
    non-negative, bring ``bank @ spectrum`` to ``m``. Outside the bank's band the nearest edge goes on.

    Args:
        m: linear mel, (..., M, F), positive.
        bank: (M, K) for K bins of an STFT.

    Returns:
        (..., K, F).
    """
    area = bank.sum(1).clamp(min=1e-12)
    centre = (bank * torch.arange(bank.shape[1], device=bank.device)).sum(1) / area
    used = bank.sum(1) > 0  # narrow low filters may hold no bin at all
    density = (m[..., used, :] / area[used, None]).clamp(min=1e-12).log()
    spectrum = (interpolation(centre[used], torch.arange(bank.shape[1], device=bank.device)) @ density).exp()
    inside, weight = bank.sum(0) > 0, bank.sum(0).clamp(min=1e-12)[:, None]
    for _ in range(ITERATIONS):
        ratio = m / (bank @ spectrum).clamp(min=1e-30)
        factor = (bank.mT @ ratio) / weight
        spectrum = torch.where(inside[:, None], spectrum * factor, spectrum)
    return spectrum


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


def example_speech(sample_rate: int, seconds: float = 2.0) -> Tensor:
    """A sound with what speech has (glottal pulses through moving formants, hiss, pauses), (T,) in float64."""
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    phase = torch.cumsum(2 * math.pi * (130 + 50 * torch.sin(3 * time)) / sample_rate, 0)
    voice = torch.zeros_like(time)
    for k in range(1, int(min(sample_rate / 2, 10_000) // 190) + 1):
        hz = k * (130 + 50 * torch.sin(3 * time))
        gain = torch.zeros_like(time)
        for base, swing, width, level in ((550, 250, 120, 1.0), (1600, 600, 200, 0.4), (2700, 200, 300, 0.2)):
            formant = base + swing * torch.sin((5 + level) * time)
            gain += level / (1 + ((hz - formant) / width).square())
        voice += (gain + 0.01) / math.sqrt(k) * torch.sin(k * phase)
    hiss = torch.cat([noise[:1], noise[1:] - 0.9 * noise[:-1]])
    voiced = torch.sin(4 * time).clamp(min=0)
    return (
        0.1 * voiced * voice + 0.01 * (1 - voiced).clamp(min=0) * torch.sin(2.3 * time).square() * hiss + 2e-4 * noise
    )
