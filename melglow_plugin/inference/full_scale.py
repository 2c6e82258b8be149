"""Audio within [-1, 1] that is as loud as it was."""

import torch
from torch import Tensor

PASSES = 4  # each makes up for what the gain of the one before loses
LARGEST_GAIN = 4.0


class FullScale:
    """Limits audio to [-1, 1] in blocks, one behind the other; where that takes power away, more gain makes up for it.

    A recording that is clipped is dense: its mel asks for more power than audio with higher peaks can have below full
    scale. The gain of a hop is that with which the limited hop has the power of the one given, at most
    ``LARGEST_GAIN``; from the middle of a hop to the middle of the next it changes linearly. Where nothing is beyond
    full scale, no sample changes.
    """

    def __init__(self, hop_length: int) -> None:
        self.hop = hop_length
        self._held: Tensor | None = None  # (B, T), whose next hop has not come
        self._gain: Tensor | None = None  # (B, 1), of the last hop that was returned

    def __call__(self, wav: Tensor, ends: bool) -> Tensor:
        """The audio (B, T) that the next piece ``wav`` (B, T) completes: it comes a hop late, the rest at the end."""
        if self._held is not None:
            wav = torch.cat([self._held, wav], 1)
        blocks = wav[:, : wav.shape[1] // self.hop * self.hop].unflatten(1, (-1, self.hop))
        gains = _gains(blocks)
        count = blocks.shape[1] if ends else max(0, blocks.shape[1] - 1)
        self._held = wav[:, count * self.hop :]
        if count == 0:
            return wav[:, :0]
        before = gains[:, :1] if self._gain is None else self._gain
        self._gain = gains[:, count - 1 : count]
        around = torch.cat([before, gains, gains[:, -1:]], 1)[:, : count + 2, None]
        way = (
            torch.arange(self.hop, dtype=wav.dtype, device=wav.device) + 0.5
        ) / self.hop + 0.5  # from the last middle
        rising = torch.lerp(around[:, :-2], around[:, 1:-1], way)
        falling = torch.lerp(around[:, 1:-1], around[:, 2:], way - 1)
        return (blocks[:, :count] * torch.where(way < 1, rising, falling)).flatten(1).clamp(-1, 1)


def _gains(blocks: Tensor) -> Tensor:
    """(B, N) of ``blocks`` (B, N, hop)."""
    gains = blocks.new_ones(blocks.shape[:2])
    if blocks.numel() == 0 or blocks.abs().max() <= 1:
        return gains
    wanted = blocks.square().sum(-1)
    for _ in range(PASSES):
        found = (gains[..., None] * blocks).clamp(-1, 1).square().sum(-1)
        gains = (gains * (wanted / found.clamp(min=1e-9)).sqrt()).clamp(1.0, LARGEST_GAIN)
    return gains
