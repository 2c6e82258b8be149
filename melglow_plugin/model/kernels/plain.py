"""Location-variable convolution in torch's own operations, and what every implementation of it refuses."""

import torch
from torch import Tensor
from torch.nn import functional as F


def location_variable_conv(x: Tensor, kernel: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """:func:`melglow_plugin.model.lvc.location_variable_conv` of arguments whose checks have passed."""
    batch, frames, taps, channels, out_channels = kernel.shape
    length = x.shape[1]
    reach = dilation * (taps - 1) // 2
    padded = F.pad(x, (0, 0, reach, reach))
    # Every step beside its neighbours, tap-major like the kernel: (B, L, K * C).
    windows = torch.cat([padded[:, k * dilation : k * dilation + length] for k in range(taps)], dim=-1)
    windows = windows.reshape(batch * frames, length // frames, taps * channels)
    kernel = kernel.reshape(batch * frames, taps * channels, out_channels)
    if bias is None:
        out = torch.bmm(windows, kernel)
    else:
        out = torch.baddbmm(bias.reshape(batch * frames, 1, out_channels), windows, kernel)
    return out.view(batch, length, out_channels)


def check_steps(length: int, frames: int) -> None:
    """ValueError where ``length`` steps are no multiple of ``frames``."""
    if frames == 0 or length % frames:
        raise ValueError(f"x has {length} steps, no multiple of the kernel's {frames} frames")


def check_shapes(x: Tensor, kernel: Tensor, bias: Tensor | None, dilation: int) -> None:
    """ValueError where the arguments of a location-variable convolution disagree; both values are named."""
    if x.dim() != 3 or kernel.dim() != 5:
        raise ValueError(f"x has {x.dim()} dimensions and kernel {kernel.dim()}, wanted 3 and 5")
    batch, frames, taps, channels, out_channels = kernel.shape
    check_steps(x.shape[1], frames)
    if taps % 2 == 0:
        raise ValueError(
            f"kernel has an even number of taps, {taps}: no tap is the centre (use {taps - 1} or {taps + 1})"
        )
    if not isinstance(dilation, int) or dilation < 1:
        raise ValueError(f"dilation {dilation} is below 1")
    if (x.shape[0], x.shape[2]) != (batch, channels):
        raise ValueError(f"x has (batch, channels) {(x.shape[0], x.shape[2])}, the kernel {(batch, channels)}")
    if bias is not None and bias.shape != (batch, frames, out_channels):
        raise ValueError(f"bias has shape {tuple(bias.shape)}, the kernel asks for {(batch, frames, out_channels)}")
