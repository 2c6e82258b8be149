"""Sharpening: a mel of an acoustic model gets the contrast of a recording's before it is synthesized."""

import functools
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from melglow_plugin.checks import real_number
from melglow_plugin.inference.chunks import stream_columns
from melglow_plugin.inference.sharpness import LEAST_BINS, bend_of_noise
from melglow_plugin.mel.convention import MelConvention

# Of the contrast of a blurred frame, which becomes 1 + RAISE times as large: mels of FastSpeech2 then have the mean
# sharpness of recordings (egs/ljspeech/voc1/NOTEBOOK.md).
RAISE = 3.0
# Mean sharpness of a frame and those before it: RAISE is whole below BLURRED and 0 above SHARP. Of the frames of
# recordings 99 % are above 0.85, of FastSpeech2's and FastPitch's mels 91 and 99 % below 0.7.
BLURRED, SHARP = 0.7, 0.85
LARGEST = 0.6  # change in nats of the amplitude: a mel that is smooth by itself, as a deep hum's, is not torn apart
HANN = (1 / 12, 3 / 12, 4 / 12, 3 / 12, 1 / 12)  # weights of five neighbouring bins in their mean
STRONGEST = 4  # strength: more is noise


def check_strength(strength: object) -> float:
    """``strength``, or a ValueError where it is none."""
    number = real_number(strength)
    if number is None or not 0 <= number <= STRONGEST:
        raise ValueError(f"sharpen {strength!r} is no number from 0 to {STRONGEST}")
    return number


def sharpened(mel: Tensor, convention: MelConvention, strength: float) -> Tensor:
    """Raise the contrast over the upper half of the bins in the frames that are blurred.

    An acoustic model predicts means of the possible mels, which lack contrast; synthesized as they are, they sound
    dull and noisy. This is unsharp masking of the log-mel ``L``, a spectral postfilter of parametric synthesis::

        blur = clip((SHARP - sharpness) / (SHARP - BLURRED), 0, 1)
        change = clip(strength * RAISE * blur * (L - mean of L over five bins), -LARGEST, LARGEST)
        L = L + change - ln(sum(exp(L + change)) / sum(exp(L)))     # the sum over the upper half stays

    where ``sharpness`` (:mod:`melglow_plugin.inference.sharpness`) is the mean of the frame's and of those just before
    it. Frames that are sharp, as nearly all of a recording's are, stay bit by bit.

    Args:
        mel: (B, M, F) in the numbers of ``convention``.
        convention: what the mel means.
        strength: 0: none; 1: the contrast of recordings, for the acoustic models that were measured.

    Returns:
        (B, M, F), where a frame depends on itself and :func:`past_frames` before it. A mel of fewer than 6 bins, which
        has no sharpness, as it is.
    """
    if not strength or mel.shape[1] < LEAST_BINS:
        return mel
    with torch.autocast(mel.device.type, enabled=False):  # a mel in 16 bits would be too coarse
        weight, bias, slope, floor = _constants(convention, mel.dtype, mel.device)
        found = torch.baddbmm(bias, weight.expand(len(mel), -1, -1), mel)
        size, largest = len(slope), LARGEST * convention.power
        lower, upper = mel[:, :-size], mel[:, -size:]
        log_mel, contrast, bends = found[:, :size], found[:, size : 2 * size], found[:, 2 * size :]
        blur = ((SHARP - _lately(bends.abs().sum(1), convention)) / (SHARP - BLURRED)).clamp(0, 1)
        change = (contrast * (strength * RAISE * blur[:, None])).clamp(-largest, largest)
        linear = log_mel.clamp(-80.0, 80.0).exp()  # also of what stands in padding; NaN would reach all examples
        change = change - ((linear * change.exp()).sum(1, keepdim=True) / linear.sum(1, keepdim=True)).log()
        raised = torch.addcdiv(upper, change, slope)
        return torch.cat([lower, torch.maximum(raised, torch.minimum(upper, floor))], dim=1)


def sharpened_pieces(pieces: Iterable[Tensor], convention: MelConvention, strength: float) -> Iterator[Tensor]:
    """:func:`sharpened` of a mel that arrives in ``pieces`` (M, F_i), without delay."""
    yield from stream_columns(
        lambda mel, first: sharpened(mel[None], convention, strength)[0], pieces, past_frames(convention), 0
    )


def past_frames(convention: MelConvention) -> int:
    """Frames before a frame that can change it: those of two FFTs, as neighbours have much of their audio in common."""
    return math.ceil(2 * convention.n_fft / convention.hop_length) - 1


def _lately(sharpness: Tensor, convention: MelConvention) -> Tensor:
    """Mean of each frame's sharpness and those before it, as far as there are any: (B, F) -> (B, F)."""
    past = past_frames(convention)
    known = torch.arange(1, sharpness.shape[1] + 1, device=sharpness.device).clamp(max=past + 1)
    return F.pad(sharpness, (past, 0)).unfold(1, past + 1, 1).sum(-1) / known


@functools.cache
def _constants(convention: MelConvention, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """What a CUDA graph cannot make anew, for the N upper bins of a mel: weight (1, R, M), bias (1, R, 1), the nats of
    a change by 1 in a value (N, 1), and the least values (N, 1).

    Applied to a mel, the first N rows give ``L`` of these bins, the next N its contrast, ``L`` less its mean; the
    absolute values of the others add up to the sharpness of the frame.
    """
    with torch.inference_mode(False):  # else none could be used in training later
        bins = convention.n_mels
        one, half = torch.eye(bins, dtype=torch.float64), bins // 2
        contrast = one.clone()
        for step, share in zip(range(-2, 3), HANN, strict=True):
            contrast -= share * one[(torch.arange(bins) + step).clamp(0, bins - 1)]
        bends = one[half:].diff(n=2, dim=0)
        bends /= len(bends) * bend_of_noise(convention)
        rows, nothing = torch.cat([one[half:], contrast[half:], bends]), one[:, :1] * 0
        offset = convention.to_log_linear(nothing)
        slope = convention.to_log_linear(nothing + 1) - offset
        floor = convention.from_linear(nothing)
        constants = (rows * slope.T)[None], (rows @ offset)[None], slope[half:], floor[half:]
        return tuple(each.to(device, dtype) for each in constants)
