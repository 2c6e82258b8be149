"""How sharp a mel is, and how many rounds of refinement suit it: a recording's takes more than an acoustic model's."""

from collections.abc import Sequence

import torch
from torch import Tensor

from melglow_plugin.inference import arguments
from melglow_plugin.inference.noise import batch_seeds
from melglow_plugin.mel.convention import MelConvention

AUTO = "auto"
BINS = 80  # of the mels that were measured: neighbouring bins of another number differ by another amount
# Of 62 recordings of 28 speakers 0.55 to 0.95, of 40 sentences of FastSpeech2 and FastPitch 0.31 to 0.44 (NOTEBOOK.md).
SHARP = 0.5
ROUNDS_SHARP, ROUNDS_BLURRED = 4, 1
LOUD = 5.0  # nats below the loudest frame, by the mean of the bins: quieter frames do not count


def sharpness(mel: Tensor, convention: MelConvention, lengths: Tensor | None = None) -> Tensor:
    """Mean absolute second difference of the log-amplitudes over neighbouring bins, in the loud frames.

    Args:
        mel: (B, M, F) in the numbers of ``convention``.
        lengths: frames of each example, (B,); None: all.

    Returns:
        (B,), in nats.
    """
    nats = convention.to_log_linear(mel) / convention.power
    level = nats.mean(1)
    if lengths is not None:
        level = level.masked_fill(torch.arange(mel.shape[-1], device=mel.device) >= lengths[:, None], -torch.inf)
    loud = level > level.amax(1, keepdim=True) - LOUD
    bend = nats.diff(n=2, dim=1).abs().mean(1)
    return bend.where(loud, 0.0).sum(1) / loud.sum(1)


def rounds_of(mel: Tensor, convention: MelConvention, lengths: Tensor | None = None) -> list[int]:
    """Rounds of refinement for each example; arguments as of :func:`sharpness`. ValueError: there is no measure."""
    if convention.n_mels != BINS:
        raise ValueError(f"refine {AUTO!r} knows mels of {BINS} bins, this one has {convention.n_mels}: name a number")
    sharp = sharpness(mel, convention, lengths) > SHARP
    return [ROUNDS_SHARP if each else ROUNDS_BLURRED for each in sharp.tolist()]


def by_sharpness(
    vocoder, mel: Tensor, lengths: Tensor | Sequence[int] | None, seed: int | Sequence[int] | None, sigma: float
) -> Tensor:
    """A call of ``vocoder`` with ``refine`` of :func:`rounds_of`; the other arguments and the result are the call's."""
    batch = arguments.checked_mel(mel, vocoder.convention.n_mels, vocoder.device)
    known = arguments.checked_lengths(lengths, batch)
    rounds, seeds = rounds_of(batch, vocoder.convention, known), batch_seeds(seed, len(batch))
    wav = batch.new_zeros(len(batch), batch.shape[-1] * vocoder.hop_length)
    for count in sorted(set(rounds)):
        rows = [i for i, own in enumerate(rounds) if own == count]
        own_lengths = None if known is None else known[rows]
        wav[rows] = vocoder(batch[rows], own_lengths, sigma=sigma, seed=[seeds[i] for i in rows], refine=count)
    return wav[0] if mel.dim() == 2 else wav
