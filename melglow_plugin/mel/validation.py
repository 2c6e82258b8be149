"""Which values the fields of a mel convention may have, and which tensors are mels and recordings."""

import dataclasses
import math
from numbers import Real
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from melglow_plugin.checks import short

MAX_SIZES = {"sample_rate": 1_000_000, "n_mels": 1024}  # of the others: 65,536; a filterbank stays below 300 MB


def check_kinds(convention) -> None:
    """ValueError naming the field where a value is none of its kind, before anything is computed from it."""
    for field in dataclasses.fields(convention):
        name, value, kinds = field.name, getattr(convention, field.name), get_args(field.type) or (field.type,)
        if value is None and (type(None) in kinds or name == "fmin"):
            continue
        if int in kinds:
            lowest, highest = 0 if name == "pad" else 1, MAX_SIZES.get(name, 65_536)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                number = "positive whole number" if lowest else "whole number from 0 on"
                raise ValueError(f"{name} {short(value)} is no {number}")
            if value > highest:
                raise ValueError(f"{name} {value} is above {highest}")
        elif float in kinds and not _is_finite(value):
            raise ValueError(f"{name} {short(value)} is no finite number")
        elif bool in kinds and not isinstance(value, bool):
            raise ValueError(f"{name} {short(value)} is neither true nor false")
        elif name in ("clip", "mean", "std") and not (
            isinstance(value, tuple | list | np.ndarray) and all(map(_is_finite, value))
        ):
            raise ValueError(f"{name} {short(value)} is no list of finite numbers")


def check_values(convention) -> None:
    """ValueError naming the fields where values of the right kinds make no mel."""
    c = convention
    if c.win_length > c.n_fft:
        raise ValueError(f"win_length {c.win_length} is above n_fft {c.n_fft}")
    if not 0 <= c.fmin < c.fmax <= c.sample_rate / 2:
        raise ValueError(
            f"fmin {c.fmin:g} and fmax {c.fmax:g} Hz do not lie in order between 0 and half of "
            f"sample_rate {c.sample_rate}"
        )
    choices = {
        "window": ("hann", "hamming", "none"),
        "pad_mode": ("reflect", "constant"),
        "mel_scale": ("slaney", "htk"),
        "mel_norm": ("slaney", "none"),
    }
    for name, allowed in choices.items():
        if getattr(c, name) not in allowed:
            raise ValueError(f"{name} {short(getattr(c, name))} is none of {', '.join(allowed)}")
    for name in ("spectrum_eps", "spectrum_floor", "eps", "floor"):
        if getattr(c, name) < 0:
            raise ValueError(f"{name} {getattr(c, name):g} is below 0")
    if c.floor <= 0 and c.eps <= 0:
        raise ValueError(f"floor {c.floor:g} and eps {c.eps:g}: one must be positive, or silence has no logarithm")
    if c.log_base <= 1 or c.gain == 0 or c.scale == 0 or c.power <= 0:
        raise ValueError(
            f"log_base {c.log_base}, gain {c.gain}, scale {c.scale}, power {c.power}: "
            "the base must be above 1, the power positive, the others not 0"
        )
    if c.clip is not None and not (len(c.clip) == 2 and c.clip[0] < c.clip[1]):
        raise ValueError(f"clip {short(c.clip)}: wanted two numbers, the lower one first")
    if (c.mean is None) != (c.std is None):
        raise ValueError("mean and std come together: one of them is missing")
    for name in ("mean", "std"):
        if getattr(c, name) is not None and len(getattr(c, name)) != c.n_mels:
            raise ValueError(f"{name} has {len(getattr(c, name))} values for n_mels {c.n_mels}")
    if c.std is not None and min(c.std) <= 0:
        raise ValueError(f"std has a value of {min(c.std):g}, wanted all above 0")


def check_floats(name: str, value) -> None:
    """ValueError unless ``value`` is a tensor of floats that all lie in memory."""
    if not isinstance(value, Tensor):
        shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
        raise ValueError(f"{name} is a {type(value).__name__}{shape}, wanted a tensor")
    if not value.is_floating_point():
        raise ValueError(f"{name} is {value.dtype} of shape {tuple(value.shape)}, wanted floats")
    if value.layout != torch.strided or value.is_nested or value.is_meta:
        raise ValueError(f"{name} is {value.layout} on {value.device}, wanted a dense tensor with its values in memory")


def check_mel(mel, n_mels: int) -> None:
    """ValueError unless ``mel`` is a float tensor (n_mels, F) or (B, n_mels, F)."""
    check_floats("mel", mel)
    if mel.dim() not in (2, 3) or mel.shape[-2] != n_mels:
        hint = " (frames and bins exchanged?)" if mel.dim() and mel.shape[-1] == n_mels else ""
        raise ValueError(
            f"mel is a Tensor of shape {tuple(mel.shape)}, this convention wants ({n_mels}, F) or "
            f"(B, {n_mels}, F){hint}"
        )


def check_wav(wav) -> None:
    """ValueError unless ``wav`` is a float tensor (T,) or (B, T) of one sample or more."""
    if not isinstance(wav, Tensor) or wav.dim() not in (1, 2) or not wav.is_floating_point():
        found = f"{getattr(wav, 'dtype', type(wav).__name__)} of shape {tuple(getattr(wav, 'shape', ()))}"
        raise ValueError(f"wav is {found}, wanted float of (T,) or (B, T)")
    check_floats("wav", wav)
    if wav.numel() == 0:
        raise ValueError(f"wav is empty, of shape {tuple(wav.shape)}")


def _is_finite(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
