"""The noise of :func:`melglow_plugin.inference.noise.noise_rows` in one Triton kernel."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024  # samples of a program


def scaled_noise(seeds: Tensor, start: Tensor, sigma: Tensor, length: int) -> Tensor:
    """``sigma`` () times the noise of ``seeds`` (B,) int64 from sample ``start`` () int64 on: (B, length), float32."""
    out = torch.empty(len(seeds), length, dtype=torch.float32, device=seeds.device)
    with torch.cuda.device_of(seeds):
        _noise[len(seeds), triton.cdiv(length, BLOCK)](seeds, start, sigma, out, length, BLOCK=BLOCK)
    return out


@triton.jit
def _hash(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def _noise(seeds, start, sigma, out, length, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    number = (place + 1 + tl.load(start)).to(tl.uint64, bitcast=True)
    key = _hash(tl.load(seeds + row).to(tl.uint64, bitcast=True) * 0x9E3779B97F4A7C15)
    bits = _hash(key + number * 0x9E3779B97F4A7C15)
    radius = ((bits >> 32).to(tl.float64) + 0.5) / 4294967296.0
    angle = ((bits & 0xFFFFFFFF).to(tl.float64) + 0.5) / 4294967296.0
    normal = tl.sqrt(-2 * tl.log(radius)) * tl.cos(6.283185307179586 * angle)
    tl.store(out + row * length + place, tl.load(sigma) * normal.to(tl.float32), place < length)
