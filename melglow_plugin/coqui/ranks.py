"""Training on several ranks."""

import torch
from torch import Tensor, nn
from trainer.utils.distributed import is_dist_avail_and_initialized

from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.training.objective import FlowObjective


class Step(nn.Module):
    """Flow and loss in one ``forward``, as DistributedDataParallel needs them."""

    def __init__(self, flow: MelModel, objective: FlowObjective) -> None:
        super().__init__()
        self.flow, self.objective = flow, objective

    def forward(self, wav: Tensor, mel: Tensor, spectral: bool, noise: torch.Generator):
        return self.objective(self.flow, wav, mel, spectral, noise)


def rank_and_world() -> tuple[int, int]:
    """Of this process; (0, 1) where there is one only."""
    if is_dist_avail_and_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
