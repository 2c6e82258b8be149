"""A gated layer of location-variable convolution in one Triton kernel, and the inverse of a coupling in its last one.

``LVCBlock``, ``AffineCoupling`` and ``InvertibleConv1x1`` say what is computed, and are the referees of the tests.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from melglow_plugin.model.kernels.triton import SMALLEST, convolved, plan, rows_of


class Closing(NamedTuple):
    """What follows the last layer of a coupling, as matrices over all channels S of ``x``.

    Whatever is no channel of this coupling stays as it is: its columns and rows are those of the identity, or zero.
    """

    log_s: Tensor  # from the layers' sum to log_s of each channel, (A, S)
    t: Tensor  # the same for t, (A, S)
    conv_1x1: Tensor  # the inverse of the 1x1 convolution, (S, S)
    start: Tensor  # into the layers of the coupling that comes next, (S, C); zeros where none comes
    start_bias: Tensor  # (C,)
    max_log_s: float


def layer(
    hidden: Tensor, kernel: Tensor, bias: Tensor, dilation: int, mask: Tensor | None, end: Tensor, total: Tensor,
    total_bias: Tensor | None = None, closing: Closing | None = None, x: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """One layer of ``LVCNet`` without gradients: convolution, gate, share of the outputs, residual connection, mask.

    Args:
        hidden: (B, L, C).
        kernel: (B, F, K, C, 2C); its precision is that of the products of the convolution.
        bias: (B, F, 2C).
        dilation: steps between taps.
        mask: (B, L, 1), 0 in padded steps, or None.
        end: columns of the net's closing 1x1 convolution for this layer's gates, negated, (C, A).
        total: outputs of the layers so far, (B, L, A); this layer's are added.
        total_bias: with the first layer, where ``total`` begins, whatever it holds, (A,).
        closing: with the last layer, undoes the coupling and the 1x1 convolution before it in ``x``.
        x: with ``closing``, all channels, (B, L, S); changed.

    Returns:
        What the next layer takes, (B, L, C): with ``closing``, the first layer of the coupling that comes next.
    """
    channels, outputs = hidden.shape[-1], end.shape[1]
    hidden, kernel_rows, bias_rows = hidden.contiguous(), rows_of(kernel), rows_of(bias)
    out = torch.empty_like(hidden)
    shape, (n, steps, _), blocks = plan(hidden, kernel, columns=channels)
    all_channels = 1 if x is None else x.shape[-1]
    sides = {"SUM": outputs, "ALL": all_channels}
    blocks |= {name: max(SMALLEST, triton.next_power_of_2(side)) for name, side in sides.items()}
    # Where there is none, nothing is read.
    absent = hidden
    with torch.cuda.device_of(hidden):
        _layer[n, steps](
            hidden, kernel_rows, bias_rows, absent if mask is None else mask.contiguous(), end, total,
            absent if total_bias is None else total_bias, out, absent if x is None else x,
            *((absent,) * 5 if closing is None else closing[:5]), *shape[:-1], dilation, outputs, all_channels,
            kernel_rows.stride(0), bias_rows.stride(0), 1.0 if closing is None else closing.max_log_s,
            MASKED=mask is not None, BEGINS=total_bias is not None, CLOSES=closing is not None, **blocks,
        )  # fmt: skip
    return out


@triton.jit
def _gated(
    hidden, kernel, bias, n, steps, outs, frames, hop, channels, dilation,
    TAPS: tl.constexpr, STEPS: tl.constexpr, IN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What the gates of hop n let through in ``outs`` of the channels, negated, (STEPS, IN)."""
    known = outs < channels
    # The columns of the filter, then those of the gate.
    filtered = convolved(
        hidden, kernel, n, steps, outs, channels, frames, hop, channels, 2 * channels, dilation,
        TAPS, STEPS, IN, IN, PRECISION,
    )  # fmt: skip
    gate = convolved(
        hidden, kernel + channels, n, steps, outs, channels, frames, hop, channels, 2 * channels, dilation,
        TAPS, STEPS, IN, IN, PRECISION,
    )  # fmt: skip
    filtered += tl.load(bias + outs, known, 0.0).to(tl.float32)[None, :]
    gate += tl.load(bias + channels + outs, known, 0.0).to(tl.float32)[None, :]
    # As lvc_net._minus_gated. The plain operator rounds to the kernel's precision before it.
    gate = 1 / (1 + tl.exp(-gate))
    return gate - 2 * gate / (1 + tl.exp(-filtered))


@triton.jit
def _matrix(values, row, column, n_rows, n_columns):
    """(rows, columns) of a matrix of ``n_columns``, 0 outside of it."""
    inside = (row < n_rows)[:, None] & (column < n_columns)[None, :]
    return tl.load(values + row[:, None] * n_columns + column[None, :], inside, 0.0)


@triton.jit
def _undone(
    x, outputs, valid, log_s_weight, t_weight, conv_1x1, all_channels, n_outputs, max_log_s,
    SUM: tl.constexpr, ALL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Channels before a coupling, of those behind it and its net's ``outputs`` (STEPS, SUM)."""
    a, s = tl.arange(0, SUM), tl.arange(0, ALL)
    log_s = tl.dot(outputs, _matrix(log_s_weight, a, s, n_outputs, all_channels), input_precision=PRECISION)
    t = tl.dot(outputs, _matrix(t_weight, a, s, n_outputs, all_channels), input_precision=PRECISION)
    log_s = max_log_s * (2 / (1 + tl.exp(-2 * log_s / max_log_s)) - 1)  # tanh
    moved = (tl.load(x, valid, 0.0) - t) * tl.exp(-log_s)
    return tl.dot(moved, _matrix(conv_1x1, s, s, all_channels, all_channels), input_precision=PRECISION)


@triton.jit
def _layer(
    hidden, kernel, bias, mask, end, total, total_bias, out, x, log_s_weight, t_weight, conv_1x1, start, start_bias,
    frames, hop, channels, dilation, outputs, all_channels, kernel_row, bias_row, max_log_s,
    MASKED: tl.constexpr, BEGINS: tl.constexpr, CLOSES: tl.constexpr, TAPS: tl.constexpr, STEPS: tl.constexpr,
    IN: tl.constexpr, OUT: tl.constexpr, SUM: tl.constexpr, ALL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    steps = tl.program_id(1) * STEPS + tl.arange(0, STEPS)
    c, a = tl.arange(0, IN), tl.arange(0, SUM)
    minus_gate = _gated(
        hidden, kernel + n * kernel_row, bias + n * bias_row, n, steps, c, frames, hop, channels, dilation,
        TAPS, STEPS, IN, PRECISION,
    )  # fmt: skip
    rows, inside = n * hop + steps, steps < hop
    sums = total + rows[:, None] * outputs + a[None, :]
    summed = inside[:, None] & (a < outputs)[None, :]
    share = tl.dot(minus_gate, _matrix(end, c, a, channels, outputs), input_precision=PRECISION)
    if BEGINS:
        share += tl.load(total_bias + a, a < outputs, 0.0)[None, :]
    else:
        share += tl.load(sums, summed, 0.0)
    kept = tl.full((STEPS,), 1.0, tl.float32)
    if MASKED:
        kept = tl.load(mask + rows, inside, 0.0).to(tl.float32)
    places, known = rows[:, None] * channels + c[None, :], inside[:, None] & (c < channels)[None, :]
    if CLOSES:
        s = tl.arange(0, ALL)
        both = x + rows[:, None] * all_channels + s[None, :]
        valid = inside[:, None] & (s < all_channels)[None, :]
        undone = _undone(
            both, share, valid, log_s_weight, t_weight, conv_1x1, all_channels, outputs, max_log_s, SUM, ALL, PRECISION
        )
        tl.store(both, undone, valid)
        after = tl.dot(undone, _matrix(start, s, c, all_channels, channels), input_precision=PRECISION)
        after += tl.load(start_bias + c, c < channels, 0.0)[None, :]
    else:
        tl.store(sums, share, summed)
        after = tl.load(hidden + places, known, 0.0).to(tl.float32) - minus_gate
    tl.store(out + places, (after * kept[:, None]).to(out.dtype.element_ty), known)
