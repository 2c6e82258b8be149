"""Another sample rate, or another playing speed: a windowed sinc in polyphase form, in torch alone."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

ZEROS = 32  # of the sinc on either side
ROLLOFF = 0.96  # of half the lower rate; from there to half the rate the filter falls
CHUNK = 1 << 20  # samples at once


def resample(wav: Tensor, old: int, new: int) -> Tensor:
    """``wav`` (..., T) at ``old`` Hz -> (..., ceil(T * new / old)) at ``new`` Hz; zeros are taken beyond its ends.

    Smith and Gossett, "A flexible sampling-rate conversion method", ICASSP 1984. With 20 and 23 for the rates, a
    recording that is played at its own rate is 15 % longer and lower.
    """
    if min(old, new) < 1:
        raise ValueError(f"rates {old} and {new} Hz: both must be above 0")
    common = math.gcd(old, new)
    old, new = old // common, new // common
    if old == new:
        return wav
    kernels, reach = _kernels(old, new)
    given, wav = wav, wav.double() if wav.device.type == "cuda" else wav  # where cuDNN rounds float32 to TF32
    flat, length = wav.reshape(-1, 1, wav.shape[-1]), -(-wav.shape[-1] * new // old)
    frames = -(-length // new)
    padded = F.pad(flat, (reach, max(0, frames * old + reach - wav.shape[-1])))
    kernels = kernels.to(wav.device, wav.dtype)
    # (N, new, frames): phase p of frame f is output sample f * new + p.
    size = max(1, CHUNK // old)
    pieces = [
        F.conv1d(padded[..., f * old : (min(f + size, frames) - 1) * old + kernels.shape[-1]], kernels, stride=old)
        for f in range(0, frames, size)
    ]
    out = torch.cat(pieces, dim=-1).mT.flatten(1)[:, :length]
    return out.reshape(*wav.shape[:-1], length).to(given.dtype)


@lru_cache(maxsize=32)
def _kernels(old: int, new: int) -> tuple[Tensor, int]:
    """Filters (new, 1, K), one for each phase, for windows that begin ``reach`` samples before a frame's first."""
    cutoff = ROLLOFF * min(1.0, new / old)  # of half the old rate
    reach = math.ceil(ZEROS / cutoff)
    phase = torch.arange(new, dtype=torch.float64)[:, None] * old / new  # place of each output, in old samples
    distance = torch.arange(-reach, old + reach, dtype=torch.float64) - phase
    window = torch.where(distance.abs() < reach, torch.cos(distance * math.pi / (2 * reach)).square(), 0.0)
    return (cutoff * torch.sinc(cutoff * distance) * window)[:, None], reach
