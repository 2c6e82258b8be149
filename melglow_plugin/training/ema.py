"""The running mean of a flow's weights, which speaks better than the weights that are learning."""

import copy

import torch
from torch import Tensor

from melglow_plugin.model.melflow import MelFlow


def exponential_average(decay: float):
    """An update for ``torch.optim.swa_utils.AveragedModel`` whose memory grows with the run.

    The first steps are soon forgotten: step n counts as ``min(decay, (1 + n) / (10 + n))`` says.
    """

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], n_averaged: Tensor | int) -> None:
        n = float(n_averaged)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


class RunningMean:
    """A flow that follows another one; no module, so that nobody saves or trains it by accident.

    Args:
        learning: the flow that is trained.
        decay: of the mean, at most, per step.
    """

    def __init__(self, learning: MelFlow, decay: float) -> None:
        self._average = exponential_average(decay)
        self.flow = copy.deepcopy(learning).requires_grad_(False).eval()
        self.count = 0  # of steps

    def update(self, learning: MelFlow) -> None:
        """Take in what an optimizer's step left."""
        self.flow.to(next(learning.parameters()).device)  # a trainer may move it at any time
        self._average(list(self.flow.parameters()), list(learning.parameters()), self.count)
        self.count += 1

    def set(self, flow: MelFlow, count: int) -> None:
        """Be equal to ``flow``, a mean of ``count`` steps."""
        self.flow.load_state_dict(flow.state_dict())
        self.count = count
