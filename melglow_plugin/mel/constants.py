"""The constants of a mel convention where they are used: a GPU gets them once, not in every call."""

from functools import cache

import torch
from torch import Tensor

from melglow_plugin.mel.filterbank import mel_filterbank


@cache
def constant(convention, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A convention's ``window``, ``filterbank``, ``mean`` or ``std``; do not change it in place.

    A graph of CUDA operations could not hold a copy from the CPU, and reads this one where it lies, so it is kept.
    """
    with torch.inference_mode(False):  # else none could be used in training later
        return _made(convention, name, dtype).to(device)


def _made(c, name: str, dtype: torch.dtype) -> Tensor:
    if name == "window":
        make = {"hann": torch.hann_window, "hamming": torch.hamming_window}.get(c.window, torch.ones)
        return make(c.win_length, dtype=dtype)
    if name == "filterbank":
        bank = mel_filterbank(c.sample_rate, c.n_fft, c.n_mels, c.fmin, c.fmax, c.mel_scale, c.mel_norm)
        return torch.from_numpy(bank).to(dtype)
    return torch.tensor(getattr(c, name), dtype=dtype)
