"""What the modules of all models share: the type of networks that read a mel, a typed list of modules, precision."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class MelNet(nn.Module):
    """A network that reads the mel."""

    reach_steps: int  # of the signal, on either side of what they change
    reach_frames: int  # of the mel, on either side
    mel_conv: nn.Conv1d  # the layer that takes the normalised mel

    def condition(self, mel: Tensor, frame_mask: Tensor | None = None):
        """All that the network needs of the normalised ``mel`` (B, M, F); ``frame_mask`` (B, 1, F) is 0 in padding."""
        raise NotImplementedError


class ModulesOf(nn.ModuleList, Generic[M]):
    """``nn.ModuleList`` whose members have the type ``M``, for type checkers."""

    if TYPE_CHECKING:

        def __getitem__(self, index: int) -> M: ...  # type: ignore[override]
        def __iter__(self) -> Iterator[M]: ...


def full_precision(x: Tensor) -> Tensor:
    """``x`` in float32, or float64 where it is that."""
    return x if x.dtype == torch.float64 else x.float()
