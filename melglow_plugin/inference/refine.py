"""Refinement: the magnitudes of the flow's output move towards the mel, its phases stay."""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from melglow_plugin.checks import whole_number
from melglow_plugin.inference.frames import framed, overlap_add
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.kernels import choice

STEPS = 3  # of Richardson and Lucy in a round; a step costs a tenth of the round's two FFTs and sums
RELAXATION = 1.4  # of the change that these steps find: overlapping frames take part of it back
# Of a magnitude in one round: 8 dB up, 18 dB down. Where an acoustic model's mel is blurred, the gaps between harmonics
# are full, and raising them to it sounds worse than lowering the rest (NOTEBOOK.md of the recipe). A frame that is too
# quiet as a whole, as where a mel is unlike those of the training, may rise by its shortfall of power more.
LARGEST_RISE, LARGEST_FALL, LARGEST_SHORTFALL = 2.4, 8.0, 8.0
MOST_ROUNDS = 1000


def check_rounds(rounds: object) -> int:
    """``rounds``, or a ValueError where it is none."""
    if rounds == "auto":
        raise ValueError("refine 'auto' is for calls with a whole mel; here it is a whole number")
    number = whole_number(rounds)
    if number is None or not 0 <= number <= MOST_ROUNDS:
        raise ValueError(f"refine {rounds!r} is no whole number from 0 to {MOST_ROUNDS}")
    return number


def reach_frames(convention: MelConvention, rounds: int) -> int:
    """Frames on either side of a sample that can change it."""
    return math.ceil(rounds * convention.n_fft / convention.hop_length)


def refine(wav: Tensor, mel: Tensor, convention: MelConvention, rounds: int, lengths: Tensor | None = None) -> Tensor:
    """Move the magnitudes of a wav towards its ``mel`` and keep its phases.

    With the STFT ``S`` of the wav, the filterbank ``B``, the linear mel ``m`` and the power ``p`` of the convention, a
    round is ``STEPS`` Richardson-Lucy steps of the magnitudes::

        gain = gain * (B.T @ (m / (B @ (gain * abs(S))**p)) / B.T @ 1) ** (1 / p)      # from gain = 1 on
        shortfall = clip((sum(m) / sum(B @ abs(S)**p)) ** (2 / p), 1, LARGEST_SHORTFALL)
        gain = gain + (RELAXATION - 1) / shortfall * (gain - 1)
        S = S * clip(gain, 1 / LARGEST_FALL, LARGEST_RISE * shortfall)

    and the least-squares inverse STFT of Griffin and Lim ("Signal estimation from modified short-time Fourier
    transform", 1984, eq. 6). Phases and fine structure, which the mel does not contain, stay those of ``wav``.

    Args:
        wav: (B, F * hop_length).
        mel: (B, M, F) in the numbers of ``convention``.
        convention: what the mel means.
        rounds: 0 returns ``wav``.
        lengths: frames of each example of a padded batch, (B,); None: nothing is padding.

    Returns:
        (B, F * hop_length); the samples behind each length mean nothing.
    """
    if rounds == 0:
        return wav
    if not torch.is_grad_enabled() and wav.dtype == torch.float32 and choice.takes_fused(wav, wav.dtype):
        try:
            return _refined(wav, mel, convention, rounds, lengths, _fused_transforms)
        except Exception as error:
            choice.fall_back(error)
    return _refined(wav, mel, convention, rounds, lengths, _transforms)


def _refined(
    wav: Tensor, mel: Tensor, convention: MelConvention, rounds: int, lengths: Tensor | None, transforms: Callable
) -> Tensor:
    """:func:`refine` by a pair of ``transforms``, as :func:`_transforms` gives them."""
    with torch.autocast(wav.device.type, enabled=False):  # a mel in 16 bits would be too coarse
        target = convention.to_linear(mel.to(wav.dtype)).mT.contiguous()
        window, *filters = constants(convention, wav.dtype, wav.device)
        lowest = max(convention.spectrum_floor, 1e-7)
        to_frames, to_audio = transforms(wav, mel.shape[-1], convention, window, lengths)
        for _ in range(rounds):
            spectrum = torch.fft.rfft(to_frames(wav))
            magnitude = spectrum.abs().clamp(min=lowest)
            spectrum = spectrum * gain_towards(target, magnitude, convention.power, *filters)
            wav = to_audio(torch.fft.irfft(spectrum, convention.n_fft), wav)
        return wav


def gain_towards(
    target: Tensor, magnitude: Tensor, power: float,
    bank: Tensor, least: Tensor, spread: Tensor, unseen: Tensor, lowest_gain: Tensor,
    *, steps: int = STEPS, relaxation: float = RELAXATION,
) -> Tensor:  # fmt: skip
    """What a round multiplies ``magnitude`` (B, F, K) with on the way to the linear mel ``target`` (B, F, M)."""
    before = magnitude if power == 1 else magnitude**power
    mels, estimate = F.linear(before, bank, least), before
    shortfall = (target.sum(-1, keepdim=True) / mels.sum(-1, keepdim=True)).pow(2 / power).clamp(1.0, LARGEST_SHORTFALL)
    for step in range(steps):
        mels = F.linear(estimate, bank, least) if step else mels
        estimate = estimate * F.linear(target / mels, spread, unseen)
    gain = estimate / before if power == 1 else (estimate / before) ** (1 / power)
    # The frames beside one that is too quiet are too quiet as well, and take less of its change back.
    gain = torch.addcdiv(gain, gain - 1, shortfall, value=relaxation - 1)
    return torch.clamp(gain, lowest_gain, LARGEST_RISE * shortfall)


@functools.cache
def constants(convention: MelConvention, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """What a round needs of a convention, and a graph cannot make anew; it is kept, for graphs read where it lies.

    The window in the middle of n_fft samples; the filters (M, n_fft / 2 + 1) on a recording's magnitudes; what a mel
    bin without a filter has; the filters (n_fft / 2 + 1, M) which sum to 1 in each bin of the STFT; 1 for each bin that
    has no filter, else 0; the smallest gain, (1,).
    """
    with torch.inference_mode(False):  # else none could be used in training later
        like = torch.empty(0, dtype=dtype, device=device)
        window = convention.stft_window(like)
        missing = convention.n_fft - len(window)
        window = F.pad(window, (missing // 2, missing - missing // 2))
        bank = convention.filterbank(like) * convention.preemphasis_power(like) ** (convention.power / 2)
        area = bank.sum(0)
        least = bank.new_full((len(bank),), 1e-12)
        spread, unseen = (bank / area.clamp(min=1e-12)).mT.contiguous(), (area == 0).to(dtype)
        return window, bank, least, spread, unseen, bank.new_full((1,), 1 / LARGEST_FALL)


def _transforms(
    wav: Tensor, count: int, convention: MelConvention, window: Tensor, lengths: Tensor | None
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]:
    """From audio (B, T) to ``count`` windowed frames (B, F, n_fft), and from frames back, to the nearest audio.

    Back, the second argument is the audio before: samples that no frame sees stay.
    """
    valid = None if lengths is None else torch.arange(count, device=wav.device) < lengths[:, None]

    def of_valid(frames: Tensor) -> Tensor:
        return frames if valid is None else frames.where(valid[..., None], 0.0)

    weight = overlap_add(of_valid((window * window).expand(1, count, -1)), convention, wav)

    def to_audio(frames: Tensor, before: Tensor) -> Tensor:
        total = overlap_add(of_valid(frames * window), convention, wav)
        return torch.where(weight > 1e-3, total / weight.clamp(min=1e-3), before)

    return lambda wav: framed(wav, convention, count, lengths) * window, to_audio


def _fused_transforms(wav: Tensor, count: int, convention: MelConvention, window: Tensor, lengths: Tensor | None):
    """:func:`_transforms` by one kernel each."""
    from melglow_plugin.inference import refine_triton  # needs Triton

    hop, left = convention.hop_length, convention.context
    ends = torch.full((len(wav),), wav.shape[1], device=wav.device) if lengths is None else lengths * hop
    reach, reflects = max(left, convention.n_fft - hop - left), convention.pad_mode == "reflect"
    return (
        lambda wav: refine_triton.windowed_frames(wav, window, ends, count, hop, left, reach, reflects),
        lambda frames, before: refine_triton.audio_of_frames(frames, window, ends, before, hop, left),
    )
