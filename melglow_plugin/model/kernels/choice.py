"""Which implementation computes a location-variable convolution: the fused Triton kernels or the plain operator."""

import warnings

import torch
from torch import Tensor

LARGEST_BLOCK = 32  # sides of what a fused kernel holds at once: compiled at 64, registers spilled
_fused_wanted: bool | None = None
_fused_failed = False  # after the first failure, which a warning announces, the plain operator is used


def use_fused(choice: bool | None) -> None:
    """Choose between the fused Triton kernels (``melglow_plugin.model.kernels.triton``) and the plain operator.

    Args:
        choice: None, as at the start: the fused ones for CUDA tensors of at most 32 bits; where Triton is missing or
            fails, the plain one after one warning. False: the plain one. True: the fused ones also off CUDA, which
            Triton's interpreter can do (TRITON_INTERPRET=1), and whatever goes wrong is raised.
    """
    global _fused_wanted, _fused_failed
    _fused_wanted, _fused_failed = choice, False


def takes_fused(x: Tensor, kernel_dtype: torch.dtype) -> bool:
    """Whether the fused kernels shall compute a convolution of ``x`` with kernels of that dtype."""
    if torch.compiler.is_compiling() or x.dtype.itemsize > 4 or kernel_dtype.itemsize > 4 or _fused_failed:
        return False
    agree = x.dtype == kernel_dtype or torch.is_autocast_enabled(x.device.type)  # else the plain one raises
    return agree and (x.device.type == "cuda" if _fused_wanted is None else _fused_wanted)


def fits(channels: int, outputs: int) -> bool:
    """Whether a fused kernel holds a layer of a net with so many hidden channels and outputs."""
    return max(channels, outputs) <= LARGEST_BLOCK


def fall_back(error: Exception) -> None:
    """Warn once that the plain operator is used instead.

    ``error`` is raised after ``use_fused(True)``, without memory, and within the capture of a graph: the kernels have
    run before it, so what failed is the capture.
    """
    global _fused_failed
    if _fused_wanted or isinstance(error, torch.cuda.OutOfMemoryError) or _captures():
        raise error
    if not _fused_failed:
        _fused_failed = True
        warnings.warn(
            f"the fused LVC kernels do not run here, the plain operator does instead, slower: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            stacklevel=3,
        )


def _captures() -> bool:
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
