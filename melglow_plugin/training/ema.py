"""The running mean of a flow's weights; it synthesizes better than the raw weights."""

import copy

import torch
from torch import Tensor

from melglow_plugin.model.mel_model import MelModel


def exponential_average(decay: float):
    """An update for ``torch.optim.swa_utils.AveragedModel`` whose memory grows with the run.

    The decay of step n is ``min(decay, (1 + n) / (10 + n))``, so the first steps soon have little weight.
    """

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], n_averaged: Tensor | int) -> None:
        n = float(n_averaged)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


class RunningMean:
    """A flow whose weights are the mean of another flow's; no module, so that nothing saves or trains it by accident.

    Args:
        learning: the flow that is trained.
        decay: of the mean, at most, per step.
    """

    def __init__(self, learning: MelModel, decay: float) -> None:
        self._average = exponential_average(decay)
        self.flow = copy.deepcopy(learning).requires_grad_(False).eval()
        self.count = 0  # of steps

    def update(self, learning: MelModel) -> None:
        """Add the weights after an optimizer step to the mean."""
        self.flow.to(next(learning.parameters()).device)  # a trainer may move it at any time
        self._average(list(self.flow.parameters()), list(learning.parameters()), self.count)
        self.count += 1

    def set(self, flow: MelModel, count: int) -> None:
        """Be equal to ``flow``, a mean of ``count`` steps."""
        self.flow.load_state_dict(flow.state_dict())
        self.count = count
