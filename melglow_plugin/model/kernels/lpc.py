"""Linear prediction on a GPU in three Triton kernels, float64 inside: the filters of all frames, and synthesis in two.

``LinearPrediction`` says what is computed, and is the referee of the tests; there, block by block, it takes about two
hundred launches.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from melglow_plugin.model.linear_prediction import LinearPrediction, Prediction


def condition(lpc: LinearPrediction, mel: Tensor) -> Prediction:
    """``lpc.condition(mel)`` of ``mel`` (B, M, F), without gradients; ``log_det`` is of no use to synthesis: empty."""
    batch, n_mels, frames = mel.shape
    order = lpc.order
    made: dict[str, Any] = {"dtype": torch.float64, "device": mel.device}
    coefficients = torch.empty(batch, frames, order, **made)
    log_gain, start = torch.empty(batch, frames, **made), torch.empty(batch, order, order, **made)
    with torch.cuda.device_of(mel):
        _levinson[batch * frames,](
            mel.float().contiguous(), lpc.log_power, lpc.band_autocorrelations, coefficients, log_gain, start,
            n_mels, frames, WIDENING=lpc.WIDENING, QUANTISATION=lpc.QUANTISATION, MAX_NATS=lpc.MAX_NATS,
            ORDER=order, SIZE=_side(order), LAGS=_side(order + 1), MELS=_side(n_mels), num_warps=1,
        )  # fmt: skip
    return Prediction(coefficients, log_gain, start, mel.new_empty(0))


def inverse(lpc: LinearPrediction, z: Tensor, filters: Prediction) -> Tensor:
    """``lpc.inverse(z, None, cond=filters)`` of ``z`` (B, T): wav (B, T) in float32."""
    z = z.contiguous()
    batch, frames, order = filters.coefficients.shape
    made: dict[str, Any] = {"dtype": torch.float64, "device": z.device}
    ends = torch.empty(batch * frames, order, **made)
    transitions = torch.empty(batch * frames, order, order, **made)
    wav = torch.empty(z.shape, dtype=torch.float32, device=z.device)
    given, sizes = (z, *(part.contiguous() for part in filters[:3])), (frames, lpc.hop_length)
    compiled = {"ORDER": order, "SIZE": _side(order)}
    with torch.cuda.device_of(z):
        _respond[batch * frames,](*given, ends, transitions, *sizes, COLUMNS=_side(order + 1), num_warps=4, **compiled)
        _synthesize[batch * frames,](
            *given, ends, transitions, wav, *sizes, lpc.reach_frames, num_warps=1, **compiled
        )  # fmt: skip
    return wav


def _side(n: int) -> int:
    return max(2, triton.next_power_of_2(n))


# The kernels. Program n is a frame, counted over all examples.


@triton.jit
def _later(x, first, SIZE: tl.constexpr):
    """``x`` (SIZE,) one element later, ``first`` at the beginning."""
    i = tl.arange(0, SIZE)
    moved = tl.sum(tl.where(i[:, None] == i[None, :] + 1, x[None, :], 0.0), 1)
    return tl.where(i == 0, first, moved)


@triton.jit
def _levinson(
    mel, log_power, band_autocorrelations, coefficients, log_gain, start, n_mels, frames,
    # As arguments they would be rounded to float32.
    WIDENING: tl.constexpr, QUANTISATION: tl.constexpr, MAX_NATS: tl.constexpr,
    ORDER: tl.constexpr, SIZE: tl.constexpr, LAGS: tl.constexpr, MELS: tl.constexpr,
):  # fmt: skip
    """A frame's autocorrelation from its mel, and the Levinson-Durbin recursion.

    ``backwards`` and ``mirrored`` are the autocorrelation and the filter in reverse: a step moves them by one.
    """
    n = tl.program_id(0).to(tl.int64)
    example, frame = n // frames, n % frames
    bins, lags, i = tl.arange(0, MELS), tl.arange(0, LAGS), tl.arange(0, SIZE)
    nats = tl.load(mel + (example * n_mels + bins) * frames + frame, bins < n_mels, 0.0).to(tl.float64)
    nats = nats * tl.load(log_power + bins, bins < n_mels, 0.0).to(tl.float64)
    power = tl.exp(tl.minimum(tl.maximum(nats, -MAX_NATS), MAX_NATS))
    known = (lags <= ORDER)[:, None] & (bins < n_mels)[None, :]
    bands = tl.load(band_autocorrelations + lags[:, None] * n_mels + bins[None, :], known, 0.0).to(tl.float64)
    r = tl.sum(bands * power[None, :], 1)  # (LAGS,)
    error = tl.sum(tl.where(lags == 0, r, 0.0), 0) + QUANTISATION
    log_widening = tl.log(tl.full((SIZE,), 1.0, tl.float64) * WIDENING)
    a, mirrored, backwards = (
        tl.full((SIZE,), 0.0, tl.float64),
        tl.full((SIZE,), 0.0, tl.float64),
        tl.full((SIZE,), 0.0, tl.float64),
    )
    for order in range(1, ORDER + 1):
        if frame == 0:
            row = start + (example * ORDER + order - 1) * ORDER
            scaled = -a * tl.exp(log_widening * (i + 1)) / tl.sqrt(error)
            tl.store(row + order - 2 - i, scaled, i < order - 1)
            tl.store(row + i, tl.where(i == order - 1, 1.0 / tl.sqrt(error), 0.0), (i >= order - 1) & (i < ORDER))
        now = tl.sum(tl.where(lags == order, r, 0.0), 0)
        unexplained = now - tl.sum(a * backwards, 0)
        reflection = unexplained / error
        error -= unexplained * reflection
        before = a
        a = tl.where(i == order - 1, reflection, a - reflection * mirrored)
        mirrored = _later(mirrored - reflection * before, reflection, SIZE)
        backwards = _later(backwards, now, SIZE)
    tl.store(coefficients + n * ORDER + i, a * tl.exp(log_widening * (i + 1)), i < ORDER)
    tl.store(log_gain + n, -0.5 * tl.log(error))


@triton.jit
def _taps(z, coefficients, log_gain, start, n, t, frames, hop, ORDER: tl.constexpr, SIZE: tl.constexpr):
    """Sample t of frame n: its drive, and the weight of each earlier sample.

    Element i of the weights is that of the latest sample whose number in the frame is i modulo SIZE.
    """
    i = tl.arange(0, SIZE)
    e = tl.load(z + n * hop + t).to(tl.float64)
    # Not for the first samples of an example: they have filters of their own, of lower orders.
    k = (t - 1 - i) & (SIZE - 1)
    weights = tl.load(coefficients + n * ORDER + k, k < ORDER, 0.0)
    drive = e * tl.exp(-tl.load(log_gain + n))
    if (n % frames == 0) & (t < ORDER):
        row = start + (n // frames * ORDER + t) * ORDER
        diagonal = tl.load(row + t)
        weights = -tl.load(row + i, i < t, 0.0) / diagonal
        drive = e / diagonal
    return drive, weights


@triton.jit
def _respond(
    z, coefficients, log_gain, start, ends, transitions, frames, hop,
    ORDER: tl.constexpr, SIZE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A frame's last ORDER samples, the latest first: after silence, and as a linear map of those before the frame."""
    n = tl.program_id(0).to(tl.int64)
    i, column = tl.arange(0, SIZE)[:, None], tl.arange(0, COLUMNS)[None, :]
    # Column 0 is the response to z; column m that to a 1 at m samples before the frame.
    past = tl.where((column > 0) & (i == SIZE - column), 1.0, 0.0).to(tl.float64)
    for t in range(hop):
        drive, weights = _taps(z, coefficients, log_gain, start, n, t, frames, hop, ORDER, SIZE)
        y = tl.sum(past * weights[:, None], 0)[None, :] + tl.where(column == 0, drive, 0.0)
        past = tl.where(i == t % SIZE, y, past)
    m = (hop - 1 - i) & (SIZE - 1)  # counted back from the frame's end
    tl.store(ends + n * ORDER + m, tl.sum(tl.where(column == 0, past, 0.0), 1)[:, None], m < ORDER)
    of_past = (m < ORDER) & (column > 0) & (column <= ORDER)
    tl.store(transitions + (n * ORDER + m) * ORDER + column - 1, past, of_past)


@triton.jit
def _synthesize(
    z, coefficients, log_gain, start, ends, transitions, wav, frames, hop, reach,
    ORDER: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """A frame's samples, from the state that ``reach`` frames before it leave."""
    n = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, SIZE)
    m = SIZE - 1 - i  # place i of the state holds the sample m + 1 before the frame
    state = tl.full((SIZE,), 0.0, tl.float64)
    for back in range(reach):
        g = n - reach + back
        if back >= reach - n % frames:
            places = (g * ORDER + m)[:, None] * ORDER + m[None, :]
            of_past = (m < ORDER)[:, None] & (m < ORDER)[None, :]
            passed = tl.sum(tl.load(transitions + places, of_past, 0.0) * state[None, :], 1)
            state = passed + tl.load(ends + g * ORDER + m, m < ORDER, 0.0)
    for t in range(hop):
        drive, weights = _taps(z, coefficients, log_gain, start, n, t, frames, hop, ORDER, SIZE)
        y = tl.sum(state * weights, 0) + drive
        tl.store(wav + n * hop + t, y.to(wav.dtype.element_ty))
        state = tl.where(i == t % SIZE, y, state)
