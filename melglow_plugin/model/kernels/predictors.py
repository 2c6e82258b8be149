"""One layer of the kernel predictors of all couplings, a convolution over frames, in one Triton kernel."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from melglow_plugin.model.kernels.triton import SMALLEST, precision

FRAMES = 16  # of a program


def frame_conv(x: Tensor, lengths: Tensor | None, weight: Tensor, bias: Tensor, residual: bool) -> Tensor:
    """Convolution over frames and leaky ReLU, for N networks at once.

    Args:
        x: (1 or N, B, F, inputs), of any strides; the same for all networks, or one for each.
        lengths: frames of each example, (B,) int64: frames behind them count as 0; None: nothing is padding.
        weight: (N, taps, inputs, outputs).
        bias: (N, outputs).
        residual: whether ``x`` is added.

    Returns:
        (N, B, F, outputs).
    """
    networks, taps, inputs, outputs = weight.shape
    _, batch, frames, _ = x.shape
    strides = (x.stride(0) if len(x) > 1 else 0, *x.stride()[1:])
    out = torch.empty(networks, batch, frames, outputs, dtype=x.dtype, device=x.device)
    with torch.cuda.device_of(x):
        _frame_conv[networks, batch, triton.cdiv(frames, FRAMES)](
            x, x if lengths is None else lengths, weight, bias, out, batch, frames, inputs, outputs, *strides,
            MASKED=lengths is not None, RESIDUAL=residual, TAPS=taps, FRAMES=FRAMES, IN=SMALLEST,
            OUT=max(SMALLEST, triton.next_power_of_2(outputs)), PRECISION=precision(),
        )  # fmt: skip
    return out


@triton.jit
def _frame_conv(
    x, lengths, weight, bias, out, batch, frames, inputs, outputs, x_network, x_example, x_frame, x_input,
    MASKED: tl.constexpr, RESIDUAL: tl.constexpr, TAPS: tl.constexpr, FRAMES: tl.constexpr, IN: tl.constexpr,
    OUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    network, example = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    f, d = tl.program_id(2) * FRAMES + tl.arange(0, FRAMES), tl.arange(0, OUT)
    end = frames
    if MASKED:
        end = tl.load(lengths + example).to(tl.int32)
    x += network * x_network + example * x_example
    total = tl.full((FRAMES, OUT), 0.0, tl.float32)
    for k in range(TAPS):
        source = f + k - TAPS // 2
        inside = (source >= 0) & (source < end)
        for first in range(0, inputs, IN):
            c = first + tl.arange(0, IN)
            values = tl.load(
                x + source[:, None] * x_frame + c[None, :] * x_input, inside[:, None] & (c < inputs)[None, :], 0.0
            )
            rows = weight + ((network * TAPS + k) * inputs + c[:, None]) * outputs + d[None, :]
            known = (c < inputs)[:, None] & (d < outputs)[None, :]
            total += tl.dot(values, tl.load(rows, known, 0.0), input_precision=PRECISION)
    total += tl.load(bias + network * outputs + d, d < outputs, 0.0)[None, :]
    total = tl.where(total > 0, total, 0.1 * total)
    there = (f < frames)[:, None] & (d < outputs)[None, :]
    if RESIDUAL:
        own = (f < end)[:, None] & (d < outputs)[None, :]
        total += tl.load(x + f[:, None] * x_frame + d[None, :] * x_input, own, 0.0)
    place = ((network * batch + example) * frames + f[:, None]) * outputs + d[None, :]
    tl.store(out + place, total, there)
