"""Coqui's vocoders with random weights, to be timed beside ours."""

from collections.abc import Callable

import torch
from torch import Tensor
from TTS.vocoder.models.hifigan_generator import HifiganGenerator

from melglow_plugin.vocoder import Vocoder


def hifigan(vocoder: Vocoder, channels: int) -> Callable[[Tensor], Tensor]:
    """HiFi-GAN for the number of mel bins of ``vocoder``, on its device; 512 channels are V1, 128 are V2."""
    model = HifiganGenerator(
        vocoder.convention.n_mels, 1, "1", [[1, 3, 5]] * 3, [3, 7, 11], [16, 16, 4, 4], channels, [8, 8, 2, 2]
    )
    model.remove_weight_norm()
    return torch.no_grad()(model.to(vocoder.device).eval())
