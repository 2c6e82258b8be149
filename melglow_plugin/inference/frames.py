"""Frames of audio where a mel has them, and audio of frames."""

import torch
from torch import Tensor
from torch.nn import functional as F

from melglow_plugin.mel.convention import MelConvention


def framed(
    wav: Tensor, convention: MelConvention, count: int, lengths: Tensor | None, hop: int | None = None
) -> Tensor:
    """``count`` frames (B, F, n_fft) of ``wav`` (B, T), the first where the convention has it, then each ``hop`` later.

    Beyond the ends the wav is padded as when a mel is extracted. ``hop`` None: that of the convention.
    """
    hop, left = hop or convention.hop_length, convention.context
    right = max(0, convention.n_fft - hop - left)
    if lengths is None:
        reflects = convention.pad_mode == "reflect" and wav.shape[-1] > max(left, right)
        padded = F.pad(wav, (left, right), mode="reflect" if reflects else "constant")
    else:
        padded = _padded_at(wav, lengths[:, None] * convention.hop_length, left, right, convention.pad_mode)
    return padded.unfold(-1, convention.n_fft, hop)[:, :count]


def _padded_at(wav: Tensor, ends: Tensor, left: int, right: int, pad_mode: str) -> Tensor:
    """``wav`` (B, T) padded before its first sample and behind ``ends`` (B, 1): (B, left + T + right)."""
    places = torch.arange(-left, wav.shape[-1] + right, device=wav.device)
    inside = (places >= 0) & (places < ends)
    if pad_mode == "reflect":
        reflected = torch.minimum(places.abs(), 2 * (ends - 1) - places.abs())
        known = inside | ((ends > max(left, right)) & (reflected >= 0))
    else:
        reflected, known = places.expand(len(wav), -1), inside
    return wav.gather(1, reflected.clamp(0, wav.shape[-1] - 1)).where(known, 0.0)


def overlap_add(frames: Tensor, convention: MelConvention, wav: Tensor) -> Tensor:
    """The sum (B, T) of ``frames`` (B, F, n_fft), each where the convention has it in ``wav`` (B, T)."""
    total = summed(frames, convention.hop_length)[:, convention.context : convention.context + wav.shape[-1]]
    return F.pad(total, (0, wav.shape[-1] - total.shape[-1]))


def summed(frames: Tensor, hop: int) -> Tensor:
    """The sum of ``frames`` (B, F, n_fft), each ``hop`` samples behind the one before, from the first's start on."""
    batch, count, n_fft = frames.shape
    overlaps = -(-n_fft // hop)
    total = frames.new_zeros(batch, count + overlaps - 1, hop)  # four times as fast as F.fold
    for i, part in enumerate(frames.split(hop, dim=-1)):
        total[:, i : i + count, : part.shape[-1]] += part
    return total.flatten(1)
