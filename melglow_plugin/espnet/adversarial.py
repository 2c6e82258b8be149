"""A later stage of training: ESPnet's own discriminators judge the samples that the spectral terms are computed on."""

import contextlib
from dataclasses import dataclass

from espnet2.gan_svs.visinger2.visinger2_vocoder import MultiFrequencyDiscriminator
from espnet2.gan_tts.hifigan.hifigan import HiFiGANMultiPeriodDiscriminator
from espnet2.gan_tts.hifigan.loss import (
    DiscriminatorAdversarialLoss,
    FeatureMatchLoss,
    GeneratorAdversarialLoss,
)
from torch import Tensor, nn


@dataclass(frozen=True)
class AdversarialConfig:
    """Weights, and sizes of the discriminators. The flow stays what it is: invertible, with an exact likelihood."""

    weight: float = 1.0  # of the flow's adversarial loss
    feature: float = 2.0  # weight of the distance of the discriminators' features
    start: int = 0  # first step in which the flow hears of them; they learn from step 0 on
    lr_ratio: float = 1.0  # learning rate of the discriminators, to optim_conf lr
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)  # of HiFi-GAN's multi-period discriminator; empty: none
    period_channels: int = 32  # of its first layer, four times as many in each of the next
    max_channels: int = 1024  # of its widest layers
    hop_lengths: tuple[int, ...] = (128, 256, 512)  # of UnivNet's spectrogram discriminator; empty: none
    frequency_channels: int = 256  # of its widest layers


class Adversary(nn.Module):
    """Discriminators and their losses: one sum whose gradient teaches them, and the flow through the sample.

    Kong et al., "HiFi-GAN", 2020, arXiv:2010.05646, equations 1, 2 and 4; Jang et al., "UnivNet", 2021,
    arXiv:2106.07889, section 2.3.
    """

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__()
        if not config.periods and not config.hop_lengths:
            raise ValueError("adversarial_conf: periods and hop_lengths are both empty, there is no discriminator")
        self.config = config
        self.discriminators = nn.ModuleList()
        if config.periods:
            self.discriminators.append(
                HiFiGANMultiPeriodDiscriminator(
                    list(config.periods),
                    {"channels": config.period_channels, "max_downsample_channels": config.max_channels},
                )
            )
        if config.hop_lengths:
            self.discriminators.append(
                MultiFrequencyDiscriminator(
                    hop_lengths=list(config.hop_lengths),
                    hidden_channels=[config.frequency_channels] * len(config.hop_lengths),
                    mel_scale=False,  # it would have as many bins as the spectrum, the lowest of them empty
                )
            )
        self.generator_loss = GeneratorAdversarialLoss()
        self.discriminator_loss = DiscriminatorAdversarialLoss()
        self.feature_loss = FeatureMatchLoss()

    def forward(self, sample: Tensor, wav: Tensor, heard: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
        """Judge ``sample`` against the recording, both (B, T).

        ``heard`` False teaches the discriminators alone. Returns the loss, and its parts: ``real`` and ``fake`` of the
        discriminators, ``adversarial`` and ``feature`` of the flow.
        """
        real, fake = self._judge(wav), self._judge(sample.detach())
        terms = dict(zip(("real", "fake"), self.discriminator_loss(fake, real), strict=True))
        loss = terms["real"] + terms["fake"]
        if heard:
            with _frozen(self.discriminators):  # here only the flow learns
                judged = self._judge(sample)
            terms["adversarial"] = self.generator_loss(judged)
            terms["feature"] = self.feature_loss(judged, [[f.detach() for f in features] for features in real])
            loss = loss + self.config.weight * terms["adversarial"] + self.config.feature * terms["feature"]
        return loss, terms

    def _judge(self, wav: Tensor) -> list[list[Tensor]]:
        """Features of all layers of all discriminators; the last of each is its verdict."""
        return [features for each in self.discriminators for features in each(wav[:, None])]


@contextlib.contextmanager
def _frozen(module: nn.Module):
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
