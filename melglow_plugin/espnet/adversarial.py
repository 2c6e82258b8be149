"""A later stage of training: ESPnet's discriminators, on the samples of which the spectral losses are computed.

Of ESPnet this file imports the discriminators alone, which need torch and numpy, and with ``stft_filters`` torchaudio
and einops, too: a bare GPU machine takes ESPnet's wheel without its dependencies.
"""

import contextlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from melglow_plugin.processor import warn_if_emulated


@dataclass(frozen=True)
class AdversarialConfig:
    """Weights, and sizes of the discriminators. The flow stays what it is: invertible, with an exact likelihood."""

    weight: float = 1.0  # of the flow's adversarial loss
    feature_matching: float = 2.0  # weight of the distance of the discriminators' hidden layers
    start: int = 0  # first step in which the flow is trained with them; they are trained from step 0 on
    lr_ratio: float = 1.0  # learning rate of the discriminators, to optim_conf lr
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)  # samples; a discriminator each
    period_channels: int = 32  # of their first layer, four times as many in each of the next
    max_channels: int = 1024  # of their widest layers
    stft_filters: int = 0  # channels of three discriminators of the spectrum, of 512, 1024 and 2048 samples; 0: none
    window: int = 0  # samples of each crop that these compare, at a random place; 0: the whole crop
    dtype: str = ""  # of their arithmetic: bfloat16 or float32; empty: that of the step
    RENAMED: ClassVar[dict[str, str]] = {"feature": "feature_matching"}


class Adversary(nn.Module):
    """Discriminators and one loss whose gradient trains both them and, through the sample, the flow.

    HiFi-GAN's multi-period discriminator: Kong et al., "HiFi-GAN", 2020, arXiv:2010.05646, equations 1, 2 and 4.
    Of the complex spectrum: Defossez et al., "High Fidelity Neural Audio Compression", 2022, arXiv:2210.13438, 3.4.
    """

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__()
        if not config.periods and not config.stft_filters:
            raise ValueError("adversarial_conf: periods is empty and stft_filters 0, there is no discriminator")
        if config.dtype not in ("", "float32", "bfloat16"):
            raise ValueError(f"adversarial_conf: dtype {config.dtype!r} is none of float32, bfloat16")
        from espnet2.gan_tts.hifigan.hifigan import HiFiGANMultiPeriodDiscriminator

        self.config, self.stft_discriminator = config, None
        sizes = {"channels": config.period_channels, "max_downsample_channels": config.max_channels}
        self.discriminator = HiFiGANMultiPeriodDiscriminator(list(config.periods), sizes)
        if config.stft_filters:
            from espnet2.gan_codec.shared.discriminator.msstft_discriminator import MultiScaleSTFTDiscriminator

            self.stft_discriminator = MultiScaleSTFTDiscriminator(config.stft_filters)

    def forward(
        self, sample: Tensor, wav: Tensor, train_generator: bool | Tensor = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare ``sample`` with the recording, both (B, T).

        Args:
            sample: of the flow.
            wav: the recording.
            train_generator: False trains the discriminators alone; a scalar tensor weighs the flow's part.

        Returns:
            The loss, and its parts: ``real`` and ``fake`` of the discriminators, ``adversarial`` and
            ``feature_matching`` of the flow.
        """
        # At unit level: at the level of speech, the discriminators learned nothing for 500 steps.
        scale = 1 / wav.square().mean(1, keepdim=True).sqrt().clamp(min=1e-3)
        places = _window(wav, self.config.window)
        wav, sample = (wav * scale)[:, None, places], (sample * scale)[:, None, places]
        with _precision(wav.device.type, self.config.dtype):
            return self._compare(sample, wav, train_generator)

    def _compare(self, sample: Tensor, wav: Tensor, train_generator: bool | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """:meth:`forward` for signals (B, 1, T) at unit level."""
        real, fake = self.discriminate(wav), self.discriminate(sample.detach())
        terms = {"real": distance_to(1, real), "fake": distance_to(0, fake)}
        loss = terms["real"] + terms["fake"]
        if train_generator is not False:
            with _frozen(self):  # here only the flow learns
                compared = self.discriminate(sample)
            adversarial, matching = distance_to(1, compared), feature_distance(compared, real)
            terms |= {"adversarial": adversarial, "feature_matching": matching}
            flow_loss = self.config.weight * adversarial + self.config.feature_matching * matching
            loss = loss + train_generator * flow_loss
        return loss, terms

    def discriminate(self, wav: Tensor) -> list[list[Tensor]]:
        """For ``wav`` (B, 1, T) the outputs of each discriminator's layers; the last is its decision."""
        return self.discriminator(wav) + ([] if self.stft_discriminator is None else self.stft_discriminator(wav))


def distance_to(target: float, outputs: list[list[Tensor]]) -> Tensor:
    """Mean square of the decisions' distance to ``target``, averaged over discriminators."""
    return sum(_mean((layers[-1] - target).square()) for layers in outputs) / len(outputs)


def feature_distance(outputs: list[list[Tensor]], reference: list[list[Tensor]]) -> Tensor:
    """L1 of the layers before the decision, averaged over layers and discriminators; ``reference`` is constant."""
    distances = [
        sum(_mean((a - b.detach()).abs()) for a, b in zip(ours[:-1], theirs[:-1], strict=True)) / (len(ours) - 1)
        for ours, theirs in zip(outputs, reference, strict=True)
    ]
    return sum(distances) / len(distances)


def _mean(values: Tensor) -> Tensor:
    return values.mean(dtype=torch.promote_types(values.dtype, torch.float32))


def _window(wav: Tensor, size: int) -> slice | Tensor:
    """Places of ``size`` neighbouring samples of ``wav`` (B, T), from a random one on; 0, or no fewer than T: all."""
    if not 0 < size < wav.shape[1]:
        return slice(None)
    # A tensor: a CUDA graph draws it anew.
    first = torch.randint(wav.shape[1] - size + 1, (1,), device=wav.device)
    return first + torch.arange(size, device=wav.device)


def _precision(device: str, dtype: str) -> contextlib.AbstractContextManager:
    if not dtype:
        return contextlib.nullcontext()
    if device == "cpu":
        warn_if_emulated(getattr(torch, dtype))
    return torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")


@contextlib.contextmanager
def _frozen(module: nn.Module):
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
