"""The magnitudes of a model's sample, moved to its mel, and by a postfilter to what is likely."""

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from melglow_plugin.inference.refine import constants, gain_towards
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.postfilter import Postfilter

STEPS = 6  # of Richardson and Lucy towards the mel; none of their change is taken back, as no old phase contradicts it
STEPS_AFTER = 3  # behind a postfilter, which moves the magnitudes little
LOWEST = 1e-6  # magnitude of the envelope


class Magnitudes:
    """Log magnitudes of frames, ``times`` for each of a mel's, as they are and moved to the mel.

    Args:
        convention: what the mel means.
        postfilter: of the model; None: it has none.
        times: frames of the STFT for each of the mel's, 1 or 2.
    """

    def __init__(self, convention: MelConvention, postfilter: Postfilter | None, times: int) -> None:
        self.convention, self.postfilter, self.times = convention, postfilter, times
        frames = 0 if postfilter is None else postfilter.reach
        self.reach = 1 + -(-frames // times)  # frames of the mel on either side of one that can change it

    def __call__(self, spectrum: Tensor, mel: Tensor) -> Tensor:
        """(B, times * F, K) in nats, of the ``spectrum`` (B, times * F, K), complex, and the ``mel`` (B, M, F)."""
        log_magnitude, target = self.towards_mel(spectrum, mel)
        if self.postfilter is None:
            return log_magnitude
        log_magnitude = log_magnitude + self.postfilter(log_magnitude, self.envelope(target))
        return log_magnitude + self._log_gain(log_magnitude[:, :: self.times].exp(), target, STEPS_AFTER)

    def towards_mel(self, spectrum: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """What a postfilter is given: log magnitudes (B, times * F, K); and the linear mel (B, F, M)."""
        magnitude = spectrum.abs().clamp(min=max(self.convention.spectrum_floor, 1e-7))
        target = self.convention.to_linear(mel.to(magnitude.dtype)).mT
        return magnitude.log() + self._log_gain(magnitude[:, :: self.times], target, STEPS), target

    def envelope(self, target: Tensor) -> Tensor:
        """The log magnitudes (B, times * F, K) that are the same throughout a filter, of the linear mel (B, F, M)."""
        area, spread = _envelope_constants(self.convention, target.dtype, target.device)
        log_power = F.linear(target / area, spread).clamp(min=1e-12).log()
        return self._with_frames_between((log_power / self.convention.power).clamp(min=math.log(LOWEST)))

    def _log_gain(self, of_mel: Tensor, target: Tensor, steps: int) -> Tensor:
        """What moves the magnitudes (B, F, K) of the mel's frames towards it, for all frames: (B, times * F, K)."""
        _, *filters = constants(self.convention, of_mel.dtype, of_mel.device)
        gain = gain_towards(target, of_mel, self.convention.power, *filters, steps=steps, relaxation=1.0)
        return self._with_frames_between(gain.log())

    def _with_frames_between(self, logs: Tensor) -> Tensor:
        """(B, F, K) -> (B, times * F, K): between two frames their mean."""
        if self.times == 1:
            return logs
        later = torch.cat([logs[:, 1:], logs[:, -1:]], 1)
        return torch.stack([logs, (logs + later) / 2], 2).flatten(1, 2)


@functools.cache
def _envelope_constants(convention: MelConvention, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The sum of each filter (M,), and its share of each bin (K, M); a bin that no filter has takes the nearest."""
    with torch.inference_mode(False):
        _, bank, _, spread, unseen, _ = constants(convention, dtype, device)
        seen = (unseen == 0).nonzero()[:, 0]
        bins = torch.arange(len(unseen), device=device)
        nearest = (bins[:, None] - seen).abs().argmin(1)
        return bank.sum(1).clamp(min=1e-12), spread[seen[nearest]].contiguous()
