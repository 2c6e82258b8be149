"""Gaussian noise keyed by seed and absolute position: any part can be computed alone, in any order, on any device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from melglow_plugin.checks import real_number, whole_number
from melglow_plugin.model.kernels import choice

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, 2**64 over the golden ratio
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def noise_rows(seeds: Tensor, start: int | Tensor, length: int) -> Tensor:
    """Samples ``start`` to ``start + length`` of the endless standard normal sequences of ``seeds`` (B,) int64.

    Counter-based: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014) hashes the
    position, the Box-Muller transform makes it Gaussian. Chunks, batches and devices therefore agree. No value is
    needed on the CPU.

    Returns:
        (B, length), float32.
    """
    position = torch.arange(1, length + 1, device=seeds.device, dtype=torch.int64) + start
    # The same number. Without an operation that it does not know, torch.compile multiplies index and constant as
    # numbers without a limit, and fails where its code needs the product in 64 bits.
    position = position ^ 0
    bits = _hash(_hash(seeds[:, None] * _GOLDEN) + position * _GOLDEN)
    radius, angle = _unit(bits >> 32), _unit(bits)
    return ((-2 * radius.log()).sqrt() * (2 * torch.pi * angle).cos()).float()


def scaled_noise(seeds: Tensor, start: Tensor, sigma: Tensor, length: int) -> Tensor:
    """``sigma`` () times :func:`noise_rows` of ``seeds`` (B,) from ``start`` () on, (B, length): on a GPU a kernel."""
    if choice.takes_fused(sigma, sigma.dtype):
        try:
            from melglow_plugin.inference import noise_triton  # needs Triton

            return noise_triton.scaled_noise(seeds, start, sigma, length)
        except Exception as error:
            choice.fall_back(error)
    return sigma * noise_rows(seeds, start, length)


def _hash(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # torch shifts in copies of the sign


def _unit(bits: Tensor) -> Tensor:
    """The low 32 bits as a number in the open interval (0, 1)."""
    return ((bits & 0xFFFFFFFF).double() + 0.5) / 2**32


def noise_of(seeds: Sequence[int], sigma: float, length: int, device: torch.device, start: int = 0) -> Tensor:
    """Noise of standard deviation ``sigma`` for each seed, (B, length); equal seeds are computed once."""
    known = sorted(set(seeds))
    rows = noise_rows(torch.tensor(known, device=device), start, length)
    return sigma * rows[[known.index(seed) for seed in seeds]]


def batch_seeds(seed: int | Sequence[int] | Tensor | None, batch: int) -> list[int]:
    """One seed for each example, of one for all, one for each, or None for new ones."""
    given = seed.tolist() if isinstance(seed, Tensor | np.ndarray) else seed
    given = given if isinstance(given, Sequence) else [given] * batch
    seeds = [new_seed() if s is None else checked_seed(s) for s in given]
    if len(seeds) != batch:
        raise ValueError(f"{len(seeds)} seeds for a batch of {batch}")
    return seeds


def check_sigma(sigma: object) -> float:
    """``sigma``; ValueError unless it is a finite number from 0 on."""
    number = real_number(sigma)
    if number is None or not 0 <= number < float("inf"):
        raise ValueError(f"sigma {sigma!r} is no finite number from 0 on")
    return number


def checked_seed(seed: object) -> int:
    """``seed``; ValueError unless it is a whole number of 64 bits."""
    number = whole_number(seed)
    if number is None or not -(2**63) <= number < 2**63:
        raise ValueError(f"seed {seed!r} is no whole number of 64 bits")
    return number


def new_seed() -> int:
    """From torch's global generator."""
    return int(torch.randint(2**62, ()))
