"""Location-variable convolution as fused GPU kernels in Triton, forward and backward.

``choice.py`` chooses between these and the plain operator. A program holds a block of one hop's steps
and reads each tap of it straight from the signal: the K * C windows of the plain operator never reach memory.
Products are in the kernel's precision, sums in float32. Tillet et al., "Triton", MAPL 2019.

Not run on a GPU yet: the tests run it in Triton's interpreter; benchmarks/gpu.py is for a machine with a GPU.
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from melglow_plugin.model.kernels import choice, plain
from melglow_plugin.model.kernels.choice import LARGEST_BLOCK

WARPS = 4  # of a program; a guess until benchmarks/gpu.py has compared others
SMALLEST = 16  # side of a block: tl.dot takes none below


def location_variable_conv(x: Tensor, kernel: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """:func:`melglow_plugin.model.lvc.location_variable_conv` of at most 32 bits, whose checks have passed.

    Args:
        x: (B, L, C).
        kernel: (B, F, K, C, D); its precision is that of the products and of the result.
        bias: (B, F, D).
        dilation: steps between taps.

    Returns:
        (B, L, D).

    Raises:
        RuntimeError: its gradients are differentiated again; the plain operator's can be.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        kernel, bias = kernel.to(dtype), None if bias is None else bias.to(dtype)
    return _LocationVariableConv.apply(x, kernel, bias, dilation)


class _LocationVariableConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.dilation, ctx.has_bias = dilation, bias is not None
        x, kernel_rows = x.contiguous(), rows_of(kernel)
        bias_rows = kernel_rows if bias is None else rows_of(bias)  # where there is none, nothing is read
        y = torch.empty(*x.shape[:2], kernel.shape[-1], dtype=kernel.dtype, device=x.device)
        shape, grid, blocks = plan(x, kernel, columns=kernel.shape[-1])
        with torch.cuda.device_of(x):
            _forward[grid](
                x, kernel_rows, bias_rows, y, *shape, dilation, kernel_rows.stride(0), bias_rows.stride(0),
                BIAS=bias is not None, **blocks,
            )  # fmt: skip
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):
        x, kernel = ctx.saved_tensors
        needs_x, needs_kernel, needs_bias, _ = ctx.needs_input_grad
        dy = dy.contiguous()
        try:
            dx = _gradient_of_x(dy, x, kernel, ctx.dilation) if needs_x else None
            dkernel = _gradient_of_kernel(dy, x.contiguous(), kernel, ctx.dilation) if needs_kernel else None
        except Exception as error:
            choice.fall_back(error)
            convolve = functools.partial(plain.location_variable_conv, bias=None, dilation=ctx.dilation)
            pullback = torch.func.vjp(convolve, x.to(dy.dtype), kernel)[1]
            dx, dkernel = pullback(dy)
            dx = dx.to(x.dtype)
        dbias = dy.unflatten(1, (kernel.shape[1], -1)).sum(2) if ctx.has_bias and needs_bias else None
        return dx, dkernel, dbias, None


def _gradient_of_x(dy: Tensor, x: Tensor, kernel: Tensor, dilation: int) -> Tensor:
    rows, dx = rows_of(kernel), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    shape, grid, blocks = plan(x, kernel, columns=x.shape[-1])
    hops_reached = triton.cdiv(dilation * (kernel.shape[2] // 2), shape[1])
    with torch.cuda.device_of(x):
        _backward_x[grid](dy, rows, dx, *shape, dilation, hops_reached, rows.stride(0), **blocks)
    return dx


def _gradient_of_kernel(dy: Tensor, x: Tensor, kernel: Tensor, dilation: int) -> Tensor:
    dkernel = torch.empty(kernel.shape, dtype=kernel.dtype, device=kernel.device)
    shape, (n, _, outs), blocks = plan(x, kernel, columns=kernel.shape[-1])
    ins = triton.cdiv(x.shape[-1], blocks["IN"])
    with torch.cuda.device_of(x):
        _backward_kernel[n, kernel.shape[2] * ins, outs](dy, x, dkernel, *shape, dilation, **blocks)
    return dkernel


def rows_of(values: Tensor) -> Tensor:
    """(B, F, ...) -> (B * F, ...) with the numbers of each frame side by side: a copy only where they are not."""
    rows = values.reshape(values.shape[0] * values.shape[1], -1)
    return rows if rows.stride(1) == 1 else rows.contiguous()


def plan(x: Tensor, kernel: Tensor, columns: int) -> tuple[tuple, tuple, dict]:
    """Sizes; the grid: frames of all examples, blocks of a hop's steps, blocks of ``columns``; what is compiled in."""
    batch, frames, taps, channels, out_channels = kernel.shape
    hop = x.shape[1] // frames
    sides = (min(LARGEST_BLOCK, triton.next_power_of_2(n)) for n in (hop, channels, out_channels, columns))
    steps, ins, outs, column_block = (max(SMALLEST, side) for side in sides)
    grid = (batch * frames, triton.cdiv(hop, steps), triton.cdiv(columns, column_block))
    blocks = {"TAPS": taps, "STEPS": steps, "IN": ins, "OUT": outs, "PRECISION": precision(), "num_warps": WARPS}
    return (frames, hop, channels, out_channels), grid, blocks


def precision() -> str:
    """As the plain operator's products: exact float32 unless TF32 was allowed."""
    matmul = torch.backends.cuda.matmul
    # The new switch can always be read; after it was used, the old one cannot.
    allowed = matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
    return "tf32" if allowed else "ieee"


# The kernels. Program 0 of the grid is a frame n, counted over all examples; in 64 bits, for what lies behind it may
# be more than 2**31 numbers. Steps are counted from the beginning of the frame's hop.


@triton.jit
def convolved(
    x, kernel, n, steps, columns, n_columns, frames, hop, channels, out_channels, dilation,
    TAPS: tl.constexpr, STEPS: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``steps`` of hop n under some columns of its ``kernel``, (STEPS, OUT); n_columns bounds the columns."""
    total = tl.full((STEPS, OUT), 0.0, tl.float32)
    before = (n % frames) * hop  # steps of this example
    for k in range(TAPS):
        sources = steps + (k - TAPS // 2) * dilation
        inside = (steps < hop) & (before + sources >= 0) & (before + sources < frames * hop)
        for c in range(0, channels, IN):
            ins = c + tl.arange(0, IN)
            tap = tl.load(
                x + (n * hop + sources)[:, None] * channels + ins[None, :],
                inside[:, None] & (ins < channels)[None, :], 0.0,
            )  # fmt: skip
            weight = tl.load(
                kernel + (k * channels + ins)[:, None] * out_channels + columns[None, :],
                (ins < channels)[:, None] & (columns < n_columns)[None, :], 0.0,
            )  # fmt: skip
            total += tl.dot(tap.to(weight.dtype), weight, input_precision=PRECISION)
    return total


@triton.jit
def _forward(
    x, kernel, bias, y, frames, hop, channels, out_channels, dilation, kernel_row, bias_row,
    BIAS: tl.constexpr, TAPS: tl.constexpr, STEPS: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    steps = tl.program_id(1) * STEPS + tl.arange(0, STEPS)
    outs = tl.program_id(2) * OUT + tl.arange(0, OUT)
    total = convolved(
        x, kernel + n * kernel_row, n, steps, outs, out_channels, frames, hop, channels, out_channels, dilation,
        TAPS, STEPS, IN, OUT, PRECISION,
    )  # fmt: skip
    if BIAS:
        total += tl.load(bias + n * bias_row + outs, outs < out_channels, 0.0).to(tl.float32)[None, :]
    tl.store(
        y + (n * hop + steps)[:, None] * out_channels + outs[None, :],
        total.to(y.dtype.element_ty), (steps < hop)[:, None] & (outs < out_channels)[None, :],
    )  # fmt: skip


@triton.jit
def _backward_x(
    dy, kernel, dx, frames, hop, channels, out_channels, dilation, hops_reached, kernel_row,
    TAPS: tl.constexpr, STEPS: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Each step gathers from the steps of y that it was a tap of: nothing is added atomically."""
    n = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * STEPS
    steps = first + tl.arange(0, STEPS)
    ins = tl.program_id(2) * IN + tl.arange(0, IN)
    total = tl.full((STEPS, IN), 0.0, tl.float32)
    for k in range(TAPS):
        offset = (k - TAPS // 2) * dilation
        targets = steps - offset
        # They lie in one hop, ``near`` from this, or in two neighbours. Division rounds towards 0, so of no negatives.
        near = (first - offset + hops_reached * hop) // hop - hops_reached
        for _ in range(2):
            exists = (n % frames + near >= 0) & (n % frames + near < frames)
            inside = exists & (steps < hop) & (targets >= near * hop) & (targets < (near + 1) * hop)
            for d in range(0, out_channels, OUT):
                outs = d + tl.arange(0, OUT)
                gradient = tl.load(
                    dy + (n * hop + targets)[:, None] * out_channels + outs[None, :],
                    inside[:, None] & (outs < out_channels)[None, :], 0.0,
                )  # fmt: skip
                weight = tl.load(
                    kernel + (n + near) * kernel_row + (k * channels + ins)[None, :] * out_channels + outs[:, None],
                    exists & (ins < channels)[None, :] & (outs < out_channels)[:, None], 0.0,
                )  # fmt: skip
                total += tl.dot(gradient, weight, input_precision=PRECISION)
            near += 1
    tl.store(
        dx + (n * hop + steps)[:, None] * channels + ins[None, :],
        total.to(dx.dtype.element_ty), (steps < hop)[:, None] & (ins < channels)[None, :],
    )  # fmt: skip


@triton.jit
def _backward_kernel(
    dy, x, dkernel, frames, hop, channels, out_channels, dilation,
    TAPS: tl.constexpr, STEPS: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tap of a frame's kernel: the hop as it stood under this tap, transposed, times the hop's gradient."""
    n = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) % TAPS
    ins = tl.program_id(1) // TAPS * IN + tl.arange(0, IN)
    outs = tl.program_id(2) * OUT + tl.arange(0, OUT)
    before = (n % frames) * hop
    total = tl.full((IN, OUT), 0.0, tl.float32)
    for first in range(0, hop, STEPS):
        steps = first + tl.arange(0, STEPS)
        sources = steps + (k - TAPS // 2) * dilation
        inside = (steps < hop) & (before + sources >= 0) & (before + sources < frames * hop)
        tap = tl.load(
            x + (n * hop + sources)[None, :] * channels + ins[:, None],
            inside[None, :] & (ins < channels)[:, None], 0.0,
        )  # fmt: skip
        gradient = tl.load(
            dy + (n * hop + steps)[:, None] * out_channels + outs[None, :],
            (steps < hop)[:, None] & (outs < out_channels)[None, :], 0.0,
        )  # fmt: skip
        total += tl.dot(tap.to(gradient.dtype), gradient, input_precision=PRECISION)
    places = ((n * TAPS + k) * channels + ins)[:, None] * out_channels + outs[None, :]
    tl.store(
        dkernel + places, total.to(dkernel.dtype.element_ty), (ins < channels)[:, None] & (outs < out_channels)[None, :]
    )
