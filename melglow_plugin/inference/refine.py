"""Refinement: the magnitudes of the flow's output move towards the mel, its phases stay."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from melglow_plugin.mel.convention import MelConvention

DEFAULT_REFINE_STEPS = 1  # rounds of a model that comes from a trainer and says nothing of them
# Of a magnitude in one round: 6 dB up, 18 dB down. Where an acoustic model's mel is blurred, the gaps between harmonics
# are full, and raising them to it sounds worse than lowering the rest (NOTEBOOK.md of the recipe).
LARGEST_RISE, LARGEST_FALL = 2.0, 8.0
MOST_ROUNDS = 1000


def check_rounds(rounds: int) -> int:
    """``rounds``, or a ValueError where it is none."""
    if not isinstance(rounds, int) or isinstance(rounds, bool) or not 0 <= rounds <= MOST_ROUNDS:
        raise ValueError(f"refine {rounds!r} is no whole number from 0 to {MOST_ROUNDS}")
    return rounds


def reach_frames(convention: MelConvention, rounds: int) -> int:
    """Frames on either side of a sample that can change it."""
    return math.ceil(rounds * convention.n_fft / convention.hop_length)


def refine(wav: Tensor, mel: Tensor, convention: MelConvention, rounds: int) -> Tensor:
    """Move the magnitudes of a wav towards its ``mel`` and keep its phases.

    A round takes the STFT of which the mel is made, multiplies its magnitudes by one Richardson-Lucy step towards
    ``mel``, keeps its phases, and returns by the least-squares inverse of Griffin and Lim ("Signal estimation
    from modified short-time Fourier transform", 1984, eq. 6). Phases and fine
    structure, which the mel does not contain, stay those of ``wav``.

    Args:
        wav: (B, F * hop_length).
        mel: (B, M, F) in the numbers of ``convention``, none of it padding.
        convention: what the mel means.
        rounds: 0 returns ``wav``.

    Returns:
        (B, F * hop_length).
    """
    if rounds == 0:
        return wav
    with torch.autocast(wav.device.type, enabled=False):  # a mel in 16 bits would be too coarse
        target, window = convention.to_linear(mel.to(wav.dtype)).mT, _window(convention, wav)
        bank = convention.filterbank(wav) * convention.preemphasis_power(wav) ** (convention.power / 2)
        area = bank.sum(0)
        for _ in range(rounds):
            spectrum = torch.fft.rfft(_frames(wav, convention, mel.shape[-1]) * window)
            magnitude = spectrum.abs().clamp(min=max(convention.spectrum_floor, 1e-7)) ** convention.power
            ratio = target / (magnitude @ bank.mT).clamp(min=1e-12)
            gain = torch.where(area > 0, (ratio @ bank) / area.clamp(min=1e-12), 1.0) ** (1 / convention.power)
            spectrum = spectrum * gain.clamp(1 / LARGEST_FALL, LARGEST_RISE)
            wav = _overlap_add(torch.fft.irfft(spectrum, convention.n_fft) * window, window, convention, wav)
        return wav


def _window(convention: MelConvention, like: Tensor) -> Tensor:
    window = convention.stft_window(like)
    left = (convention.n_fft - convention.win_length) // 2
    return F.pad(window, (left, convention.n_fft - convention.win_length - left))


def _frames(wav: Tensor, convention: MelConvention, count: int) -> Tensor:
    """(B, F, n_fft), each where the convention has it; beyond the ends the wav is padded as when a mel is extracted."""
    left = convention.context
    right = max(0, convention.n_fft - convention.hop_length - left)
    reflects = convention.pad_mode == "reflect" and wav.shape[-1] > max(left, right)
    padded = F.pad(wav, (left, right), mode="reflect" if reflects else "constant")
    return padded.unfold(-1, convention.n_fft, convention.hop_length)[:, :count]


def _overlap_add(frames: Tensor, window: Tensor, convention: MelConvention, wav: Tensor) -> Tensor:
    """The wav whose windowed frames are nearest to ``frames`` in least squares; samples that no frame sees stay."""
    length = (frames.shape[1] - 1) * convention.hop_length + convention.n_fft

    def added(parts: Tensor) -> Tensor:
        shape, kernel, hop = (1, length), (1, convention.n_fft), (1, convention.hop_length)
        return F.fold(parts.mT, shape, kernel, stride=hop)[:, 0, 0]

    weight = added((window * window).expand(1, frames.shape[1], -1))
    there = slice(convention.context, convention.context + wav.shape[-1])
    total, weight = added(frames)[:, there], weight[:, there]
    missing = wav.shape[-1] - total.shape[-1]
    total, weight = F.pad(total, (0, missing)), F.pad(weight, (0, missing))
    return torch.where(weight > 1e-3, total / weight.clamp(min=1e-3), wav)
