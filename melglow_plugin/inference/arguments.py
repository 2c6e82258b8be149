"""What a vocoder refuses: ValueError names the argument, what was found and what was wanted."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.mel.validation import check_floats, check_mel, check_wav

WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_likelihood(model, verb: str) -> None:
    """ValueError where ``model`` is no flow, so that ``verb`` has no meaning."""
    if not model.has_likelihood:
        raise ValueError(
            f"{verb}: {type(model).__name__} is no flow and has no likelihood (a flow is MelGlow or WaveGlow)"
        )


def checked_mel(mel: Tensor, n_mels: int, device: torch.device, allow_empty: bool = False) -> Tensor:
    """A mel (M, F) or (B, M, F) of finite values as a batch (B, M, F) in float32 on ``device``."""
    batch = mel_batch(mel, n_mels, device, allow_empty)
    check_finite(batch)
    return batch


def one_mel(mel: Tensor, n_mels: int, device: torch.device) -> Tensor:
    """A mel (M, F) of finite values, or a batch of it alone, as (M, F) in float32 on ``device``."""
    batch = checked_mel(mel, n_mels, device)
    if len(batch) != 1:
        raise ValueError(f"mel is a batch of {len(batch)}, of shape {tuple(mel.shape)}; wanted one mel ({n_mels}, F)")
    return batch[0]


def check_finite(mel: Tensor) -> None:
    """ValueError unless all values are finite; waits for the device."""
    if not torch.isfinite(mel).all():
        raise ValueError(f"mel holds {int((~torch.isfinite(mel)).sum())} values that are not finite")


def mel_batch(mel: Tensor, n_mels: int, device: torch.device, allow_empty: bool = False) -> Tensor:
    """A mel (M, F) or (B, M, F) of any values as a batch (B, M, F) in float32 on ``device``."""
    check_mel(mel, n_mels)
    if mel.numel() == 0 and not allow_empty:
        raise ValueError(f"mel is empty, of shape {tuple(mel.shape)}")
    mel = mel.to(device, torch.float32)
    return mel[None] if mel.dim() == 2 else mel


def checked_piece(piece: Tensor, n_mels: int, device: torch.device) -> Tensor:
    """A piece (M, F) of a stream's mel, in float32 on ``device``; it may be empty."""
    if getattr(piece, "ndim", 0) != 2:
        raise ValueError(f"mel_chunks: a piece of shape {tuple(getattr(piece, 'shape', ()))}, wanted (M, F)")
    return checked_mel(piece, n_mels, device, allow_empty=True)[0]


def checked_lengths(lengths, mel: Tensor) -> Tensor | None:
    """Frames of each example of ``mel`` (B, M, F), (B,); None where nothing is padding.

    Given on the CPU they need no wait for the device.
    """
    if lengths is None:
        return None
    try:
        lengths = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"lengths {lengths!r}: wanted {len(mel)} whole numbers") from error
    if lengths.shape != (len(mel),) or lengths.dtype not in WHOLE:
        raise ValueError(f"lengths: {lengths.dtype} of shape {tuple(lengths.shape)}, wanted {len(mel)} whole numbers")
    if not ((lengths >= 1) & (lengths <= mel.shape[-1])).all():
        raise ValueError(f"lengths {lengths.tolist()} do not lie between 1 and the mel's {mel.shape[-1]} frames")
    # Equal lengths are no padding, and cheaper without masks.
    return None if (lengths == mel.shape[-1]).all() else lengths.to(mel.device)


def checked_signal(signal: Tensor, mel: Tensor, hop_length: int, name: str) -> Tensor:
    """A signal (T,) or (B, T) of ``mel`` (B, M, F) as a batch (B, T) in float32 on its device."""
    expected = (len(mel), mel.shape[-1] * hop_length)
    check_floats(name, signal)
    batch = signal[None] if signal.dim() == 1 else signal
    if tuple(batch.shape) != expected:
        raise ValueError(f"{name} has shape {tuple(signal.shape)}, this mel asks for {expected}")
    batch = batch.to(mel.device, torch.float32)
    if not torch.isfinite(batch).all():
        raise ValueError(f"{name} holds values that are not finite")
    return batch


def checked_wav(wav: Tensor, device: torch.device) -> Tensor:
    """A recording (T,) or (B, T) as a batch (B, T) in float32 on ``device``."""
    check_wav(wav)
    if not torch.isfinite(wav).all():
        raise ValueError(f"wav of shape {tuple(wav.shape)} holds values that are not finite")
    return (wav[None] if wav.dim() == 1 else wav).to(device, torch.float32)


def wavs_and_mels(wav: Tensor, mel: Tensor | None, convention: MelConvention, device: torch.device):
    """Recordings (T,) or (B, T) as a batch (B, T), and their mels (B, M, F), extracted where none are given."""
    wavs = checked_wav(wav, device)
    mels = convention.extract(wavs) if mel is None else checked_mel(mel, convention.n_mels, device)
    if len(mels) != len(wavs):
        raise ValueError(f"wav holds {len(wavs)} recordings, mel {len(mels)}")
    return wavs, mels


def filled_to_frames(wav: Tensor, mel: Tensor, hop_length: int) -> Tensor:
    """``wav`` (B, T) with the last hop of its ``mel`` (B, M, F) filled by reflection, as the mel sees it."""
    missing = mel.shape[-1] * hop_length - wav.shape[-1]
    if not 0 <= missing <= hop_length:
        raise ValueError(
            f"wav has {wav.shape[-1]} samples, mel has {mel.shape[-1]} frames of {hop_length}: "
            f"{mel.shape[-1] * hop_length}"
        )
    return F.pad(wav, (0, missing), mode="reflect" if missing else "constant")


def without_cast(change: Callable[[Tensor], Tensor], device: torch.device) -> tuple[torch.dtype | None, Callable]:
    """What torch would do to every weight, but the type; and the type that the conditioners shall have, None: the same.

    ``float()`` and a move to a device leave a float32 weight alike; a 16-bit one tells them apart.
    """
    changed, short = (change(torch.empty(0, dtype=dtype, device=device)) for dtype in (torch.float32, torch.float16))
    if changed.is_meta:
        raise ValueError("device meta: it keeps no values to compute with: use cpu")
    if changed.device.type == "mps":
        raise ValueError("device mps: linear prediction needs float64, which Apple's GPU has not: use cpu")
    if changed.dtype == torch.float32:
        return torch.float32 if short.dtype == torch.float32 else None, change
    dtype = changed.dtype if changed.dtype in (torch.float16, torch.bfloat16) else None
    return dtype, lambda weight: weight.to(changed.device)
