"""The frames of a round of refinement, and the audio of its frames, in one Triton kernel each.

:func:`melglow_plugin.inference.refine.refine` says what is computed, and is the referee of the tests.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024  # samples of a program


def windowed_frames(
    wav: Tensor, window: Tensor, ends: Tensor, count: int, hop_length: int, left: int, reach: int, reflects: bool
) -> Tensor:
    """``count`` frames of ``wav`` (B, T), windowed: (B, F, n_fft).

    Args:
        window: (n_fft,).
        ends: samples of each example, (B,) int64.
        hop_length: samples from one frame to the next.
        left: samples of padding before the first.
        reach: samples of padding on the longer side: a shorter wav is not reflected.
        reflects: whether padding reflects, else it is 0.
    """
    wav, n_fft = wav.contiguous(), len(window)
    out = torch.empty(len(wav), count, n_fft, dtype=wav.dtype, device=wav.device)
    with torch.cuda.device_of(wav):
        _frames[len(wav) * count, triton.cdiv(n_fft, BLOCK)](
            wav, window, ends, out, wav.shape[1], count, n_fft, hop_length, left, reach, REFLECTS=reflects, BLOCK=BLOCK
        )
    return out


def audio_of_frames(frames: Tensor, window: Tensor, ends: Tensor, wav: Tensor, hop_length: int, left: int) -> Tensor:
    """The least-squares audio (B, T) of ``frames`` (B, F, n_fft), not windowed; ``wav`` (B, T) where no frame reaches.

    Frames that begin behind their example's end do not count.
    """
    wav, n_fft = wav.contiguous(), len(window)
    out = torch.empty_like(wav)
    with torch.cuda.device_of(wav):
        _audio[len(wav), triton.cdiv(wav.shape[1], BLOCK)](
            frames.contiguous(), window, ends, wav, out, wav.shape[1], frames.shape[1], n_fft, hop_length, left,
            SPAN=triton.cdiv(n_fft, hop_length), BLOCK=BLOCK,
        )  # fmt: skip
    return out


@triton.jit
def _frames(
    wav, window, ends, out, length, count, n_fft, hop, left, reach, REFLECTS: tl.constexpr, BLOCK: tl.constexpr
):
    n = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    example = n // count
    end = tl.load(ends + example)
    place = n % count * hop + j - left
    if REFLECTS:
        reflected = tl.where(place < 0, -place, place)
        reflected = tl.where(reflected < end, reflected, 2 * (end - 1) - reflected)
        place = tl.where(end > reach, reflected, place)
    inside = (j < n_fft) & (place >= 0) & (place < end)
    value = tl.load(wav + example * length + place, inside, 0.0)
    tl.store(out + n * n_fft + j, value * tl.load(window + j, j < n_fft, 0.0), j < n_fft)


@triton.jit
def _audio(
    parts, window, ends, wav, out, length, count, n_fft, hop, left, SPAN: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    example = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid = tl.load(ends + example) // hop
    total, weight = tl.full((BLOCK,), 0.0, tl.float32), tl.full((BLOCK,), 0.0, tl.float32)
    for back in range(SPAN):
        frame = (t + left) // hop - back
        j = t + left - frame * hop
        there = (t < length) & (frame >= 0) & (frame < count) & (frame < valid) & (j < n_fft)
        w = tl.load(window + j, there, 0.0)
        total += w * tl.load(parts + (example * count + frame) * n_fft + j, there, 0.0)
        weight += w * w
    before = tl.load(wav + example * length + t, t < length, 0.0)
    tl.store(out + example * length + t, tl.where(weight > 1e-3, total / tl.maximum(weight, 1e-3), before), t < length)
