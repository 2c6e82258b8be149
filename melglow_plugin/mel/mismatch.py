"""The distance of a mel from the mels of the training."""

import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor

# A mel_mismatch from which a mel is probably of another convention. Measured (docs/mel.md): right mels of five voices
# stay below 1.
MISMATCH_THRESHOLD = 1.2
FEWEST_FRAMES, MOST_FRAMES = 150, 2000  # fewer frames are too few for statistics, more cost time
CALLS = 8  # of each vocoder: a process rarely changes its source of mels, and comparing waits for the device
# Files that a warning passes over; before Python 3.12 it names the caller of the vocoder.
_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
_NOT_THE_CALLER: dict = {"skip_file_prefixes": _OURS} if sys.version_info >= (3, 12) else {"stacklevel": 4}
_warned = False  # once in a process


def mel_mismatch(mel: Tensor, mean: Tensor, std: Tensor) -> float:
    """Distance of a mel's statistics from those of the training; up to 1 in the right convention, more in others.

    With z in standard deviations of the training, the larger of the root mean square over bins of mean(z) and
    2 ln(std(z)), and of how far the loudest hundredth lies above 2.

    Args:
        mel: (M, F).
        mean, std: of the training mels, (M,) each.

    Returns:
        NaN where the mel is too short or constant, or the statistics are not set.
    """
    mel = mel[:, :MOST_FRAMES]
    # Digital silence, most of whose bins lie at their floor, says nothing about the rest.
    mel = mel[:, ((mel - mel.amin(1, keepdim=True)) < 0.01 * std[:, None]).float().mean(0) < 0.5]
    z = (mel - mean[:, None]) / std[:, None]
    unset = not mean.any() and bool((std == 1).all())
    if unset or z.shape[1] < FEWEST_FRAMES or z.std(1).mean() < 0.05:
        return float("nan")
    spread = z.std(1).clamp(min=1e-3).log()
    shape = (z.mean(1).square() + 4 * spread.square()).mean().sqrt()
    return float(torch.maximum(shape, z.flatten().quantile(0.99) - 2))


class MismatchAlarm:
    """A warning where one of a vocoder's first mels differs much from those of the training."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, mel: Tensor, lengths: Tensor | None, mean: Tensor, std: Tensor) -> None:
        """Compare the first of ``mel`` (B, M, F) with the training's statistics, unless that was done often enough."""
        global _warned
        if _warned or self.calls >= CALLS:
            return
        self.calls += 1
        mel = mel[0] if lengths is None else mel[0, :, : int(lengths[0])]
        if (found := mel_mismatch(mel, mean, std)) > MISMATCH_THRESHOLD:
            _warned = True
            warnings.warn(
                f"this mel (values {mel.min():.2f} to {mel.max():.2f}, mean {mel.mean():.2f}) differs much from "
                f"those of the training (mean {mean.mean():.2f}, standard deviation {std.mean():.2f}): mel_mismatch "
                f"{found:.1f}, at most 1 where the convention is right and the voice clean. `melglow doctor MEL.npy` "
                "tells which convention it follows; a telephone's band or music may differ as much.",
                **_NOT_THE_CALLER,
            )
