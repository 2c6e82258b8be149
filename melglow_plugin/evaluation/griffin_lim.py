"""Griffin-Lim: the sound of a mel without a model, the row to print beside every vocoder."""

import librosa
import numpy as np
import torch
from torch import Tensor

from melglow_plugin.mel.convention import MelConvention


def griffin_lim(mel: Tensor, convention: MelConvention, iterations: int = 60) -> Tensor:
    """A wav whose mel is near ``mel``; the same on every call.

    Perraudin et al., "A fast Griffin-Lim algorithm", 2013, after librosa's non-negative inverse of the filterbank.

    Args:
        mel: (M, F) in the numbers of ``convention``.

    Returns:
        (F * hop_length,) float32; frame f stands at the samples that the convention pairs it with.

    Raises:
        ValueError: ``mel`` has another shape.
    """
    if mel.dim() != 2 or mel.shape[0] != convention.n_mels or mel.shape[1] < 1:
        raise ValueError(f"mel has shape {tuple(mel.shape)}, this convention wants ({convention.n_mels}, F)")
    linear = convention.to_linear(mel.detach().double().cpu()).numpy()
    magnitude = librosa.feature.inverse.mel_to_stft(
        linear, sr=convention.sample_rate, n_fft=convention.n_fft, power=convention.power, fmin=convention.fmin,
        fmax=convention.fmax, htk=convention.mel_scale == "htk",
        norm=None if convention.mel_norm == "none" else convention.mel_norm,
    )  # fmt: skip
    wav = librosa.griffinlim(
        magnitude, n_iter=iterations, hop_length=convention.hop_length, win_length=convention.win_length,
        n_fft=convention.n_fft, window="boxcar" if convention.window == "none" else convention.window,
        center=convention.center, init=None,
    )  # fmt: skip
    wav = wav if convention.center else wav[convention.pad :]
    samples = mel.shape[1] * convention.hop_length
    wav = librosa.util.fix_length(wav, size=samples)  # a centred last frame has half its samples beyond the end
    wav = librosa.effects.deemphasis(wav, coef=convention.preemphasis) if convention.preemphasis else wav
    return torch.from_numpy(wav.astype(np.float32))
