"""Convolutions whose float32 is float32 on a GPU, too: PyTorch lets cuDNN round the factors to TF32 by default."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv1d(nn.Conv1d):
    """``nn.Conv1d`` of stride 1 with a bias; in float32 on a GPU it is a sum of matrix products.

    Products obey ``torch.set_float32_matmul_precision`` alone, forward and in the gradients, and by default they are
    exact. ``torch.backends.cudnn.flags`` would change the precision of the whole process, and not that of gradients.
    """

    def forward(self, input: Tensor) -> Tensor:
        if rounds_to_tf32(input):
            return by_products(input, self.weight, cast(Tensor, self.bias), self.dilation[0])
        return super().forward(input)


class Conv2d(nn.Conv2d):
    """``nn.Conv2d``; of float32 on a GPU it computes in float64, which cuDNN does not round. Meant for few channels."""

    def forward(self, input: Tensor) -> Tensor:
        if rounds_to_tf32(input):
            wide = self._conv_forward(input.double(), self.weight.double(), cast(Tensor, self.bias).double())
            return wide.to(input.dtype)
        return super().forward(input)


def rounds_to_tf32(x: Tensor) -> bool:
    """Whether cuDNN would convolve ``x`` in TF32: in 16 bits, its own or autocast's, it would not."""
    return x.device.type == "cuda" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cuda")


def by_products(x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """A product for each tap: ``x`` (B, C, T), ``weight`` (D, C, K), K odd, ``bias`` (D,) -> (B, D, T)."""
    batch, _, length = x.shape
    taps = weight.permute(2, 0, 1).contiguous()  # (K, D, C)
    reach = dilation * (len(taps) // 2)
    padded = F.pad(x, (reach, reach)) if reach else x
    out = bias[:, None]
    for k, tap in enumerate(taps):
        part = padded[..., k * dilation : k * dilation + length]
        out = torch.baddbmm(out, tap.expand(batch, -1, -1), part)
    return out
