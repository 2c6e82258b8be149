"""How sharp a mel is, and how many rounds of refinement suit it: a recording's takes more than an acoustic model's."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from melglow_plugin.inference import arguments
from melglow_plugin.inference.noise import batch_seeds
from melglow_plugin.mel.convention import MelConvention

AUTO = "auto"
LEAST_BINS = 6
# Of 62 recordings of 28 speakers 1.13 to 2.52, of 40 sentences of FastSpeech2 and FastPitch 0.39 to 0.58
# (egs/ljspeech/voc1/RESULTS.md).
SHARP = 0.85
ROUNDS_SHARP, ROUNDS_BLURRED = 4, 1
LOUD = 5.0  # nats below the loudest frame, by the mean of the bins: quieter frames do not count


def sharpness(mel: Tensor, convention: MelConvention, lengths: Tensor | None = None) -> Tensor:
    """Mean absolute second difference of the log-mel over neighbouring bins, as a multiple of white noise's.

    Of the loud frames and the upper half of the bins, where the harmonics of a voice are closer than the filters are
    wide. Acoustic models predict means of the possible mels, which lack the differences of each.

    Args:
        mel: (B, M, F) in the numbers of ``convention``, of 6 bins or more.
        lengths: frames of each example, (B,); None: all.

    Returns:
        (B,).
    """
    log_mel = convention.to_log_linear(mel)
    level = log_mel.mean(1) / convention.power
    if lengths is not None:
        level = level.masked_fill(torch.arange(mel.shape[-1], device=mel.device) >= lengths[:, None], -torch.inf)
    loud = level > level.amax(1, keepdim=True) - LOUD
    return _bend(log_mel).where(loud, 0.0).sum(1) / loud.sum(1) / bend_of_noise(convention)


def _bend(log_mel: Tensor) -> Tensor:
    """Mean absolute second difference over the upper half of the bins: (B, M, F) -> (B, F)."""
    return log_mel[:, log_mel.shape[1] // 2 :].diff(n=2, dim=1).abs().mean(1)


@functools.cache
def bend_of_noise(convention: MelConvention) -> float:
    """Mean absolute second difference, in nats, of the log-mel of white noise: the unit of sharpness."""
    noise = 0.1 * torch.randn(1, 2**17, generator=torch.Generator().manual_seed(0))
    return float(_bend(convention.to_log_linear(convention.extract(noise))).mean())


def rounds_of(mel: Tensor, convention: MelConvention, lengths: Tensor | None = None) -> list[int]:
    """Rounds of refinement for each example; arguments as of :func:`sharpness`. ValueError: there is no measure."""
    if convention.n_mels < LEAST_BINS:
        raise ValueError(f"refine {AUTO!r} needs mels of {LEAST_BINS} bins, this one has {convention.n_mels}")
    sharp = sharpness(mel, convention, lengths) > SHARP
    return [ROUNDS_SHARP if each else ROUNDS_BLURRED for each in sharp.tolist()]


def by_sharpness(
    vocoder,
    mel: Tensor,
    lengths: Tensor | Sequence[int] | None,
    seed: int | Sequence[int] | Tensor | None,
    sigma: float,
    sharpen: float | None,
) -> Tensor:
    """A call of ``vocoder`` with ``refine`` of :func:`rounds_of`; the other arguments and the result are the call's."""
    batch = arguments.checked_mel(mel, vocoder.convention.n_mels, vocoder.device)
    known = arguments.checked_lengths(lengths, batch)
    rounds, seeds = rounds_of(batch, vocoder.convention, known), batch_seeds(seed, len(batch))
    wav = batch.new_zeros(len(batch), batch.shape[-1] * vocoder.hop_length)
    for count in sorted(set(rounds)):
        rows = [i for i, own in enumerate(rounds) if own == count]
        own_lengths = None if known is None else known[rows]
        own_seeds = [seeds[i] for i in rows]
        wav[rows] = vocoder(batch[rows], own_lengths, sigma=sigma, seed=own_seeds, refine=count, sharpen=sharpen)
    return wav[0] if mel.dim() == 2 else wav
