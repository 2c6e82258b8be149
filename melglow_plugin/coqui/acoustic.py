"""What an acoustic model of Coqui hands to its vocoder."""

from torch import Tensor, nn
from TTS.config.shared_configs import BaseAudioConfig

from melglow_plugin.checkpoint.coqui import NORMALISATION
from melglow_plugin.checkpoint.pretrained import check_fits
from melglow_plugin.mel.convention import MelConvention

WAVLM = 1024  # numbers of a frame of WavLM's features, which kNN-VC hands to its vocoder, frame by frame


def check_input(x: Tensor, convention: MelConvention) -> None:
    """ValueError unless ``x`` is a mel (B, M, F); the message says what arrived instead."""
    wanted = f"melglow wants a mel (B, {convention.n_mels}, F)"
    shape = tuple(x.shape)
    if x.dim() != 3 or 1 in shape[1:2] or (x.shape[1] != convention.n_mels and x.shape[2] == 1):
        raise ValueError(f"a waveform arrived, of shape {shape}: {wanted}. Models like VITS need no vocoder")
    if x.shape[2] == WAVLM and x.shape[1] != convention.n_mels:
        raise ValueError(f"features of WavLM arrived, of shape {shape}, as kNN-VC gives them: {wanted}")
    if x.shape[1] == convention.n_fft // 2 + 1:
        raise ValueError(f"a linear spectrogram arrived, of shape {shape}, as Tacotron 1 gives it: {wanted}")
    if x.shape[1] != convention.n_mels:
        raise ValueError(f"{x.shape[1]} bins arrived, shape {shape}: {wanted}")


def acoustic_convention(acoustic: nn.Module, audio: BaseAudioConfig, convention: MelConvention) -> MelConvention:
    """What Coqui's Synthesizer makes of an acoustic model's mel on its way to a vocoder configured with ``audio``.

    It undoes the acoustic model's normalisation and applies the vocoder's; log base and gain stay the acoustic model's.

    Raises:
        ValueError: the acoustic model gives no mel, or one that differs from ``convention`` in its structure.
    """
    name, config = type(acoustic).__name__, acoustic.config
    if hasattr(acoustic, "waveform_decoder") or not isinstance(config.audio, BaseAudioConfig):
        raise ValueError(f"{name} makes its wav itself and needs no vocoder")
    if config.model.lower() == "tacotron":
        raise ValueError(f"{name} gives linear spectrograms, melglow wants mels: Tacotron 2 gives them")
    ours = {field: audio[field] for field in NORMALISATION}
    given = MelConvention.coqui({**config.audio.to_dict(), **ours})
    check_fits(given, convention, name)
    return given
