"""Training crops whose mels equal the full recording's, with frame f beside samples [f * hop, (f + 1) * hop)."""

import torch
from torch import Tensor

from melglow_plugin.mel.convention import MelConvention


def segment_samples(convention: MelConvention, frames: int) -> int:
    """Samples that a crop of ``frames`` frames must hold, context included."""
    mel_needs = (frames - 1) * convention.hop_length + convention.n_fft
    wav_needs = convention.context + frames * convention.hop_length
    return max(mel_needs, wav_needs)


def segment_frames(convention: MelConvention, samples: int) -> int:
    """Frames of a crop that holds ``samples`` samples: the inverse of :func:`segment_samples`."""
    return (samples - segment_samples(convention, 1)) // convention.hop_length + 1


def cut(wav: Tensor, convention: MelConvention, frames: int, start: int) -> Tensor:
    """Cut ``frames`` frames from frame ``start`` on, with the context that their mel reads.

    The recording is padded as ``convention.extract`` pads it, so nothing changes at its ends either.

    Args:
        wav: a whole recording, (T,).

    Returns:
        (segment_samples,), for :func:`wav_and_mel`.

    Raises:
        ValueError: the recording has fewer frames, or the convention allows no crop that is exact.
    """
    if convention.preemphasis:
        raise ValueError(f"preemphasis {convention.preemphasis}: a crop's mel would need the sample before the crop")
    available = convention.n_frames(wav.shape[-1])
    if not 0 <= start <= available - frames:
        raise ValueError(f"frames {start} to {start + frames} of a recording that has {available}")
    first, size = start * convention.hop_length, segment_samples(convention, frames)
    segment = convention.padded(wav)[first : first + size]
    if len(segment) < size:
        raise ValueError(
            f"hop_length {convention.hop_length}: the last of {frames} frames reaches {size - len(segment)} samples "
            f"beyond the padding of {convention.context}"
        )
    return segment


def wav_and_mel(segments: Tensor, convention: MelConvention, frames: int) -> tuple[Tensor, Tensor]:
    """Split crops (B, segment_samples) from :func:`cut` into wav (B, frames * hop) and mel (B, M, frames)."""
    first = convention.context
    mel = convention.extract(segments, padded=True)[..., :frames]
    return segments[:, first : first + frames * convention.hop_length], mel


def dequantised(wav: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """``wav`` with uniform noise of half a 16-bit step: a likelihood of silent or constant audio stays finite."""
    noise = torch.rand(wav.shape, dtype=wav.dtype, device=wav.device, generator=generator)
    return wav + (noise - 0.5) / 2**15
