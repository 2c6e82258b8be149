"""A later stage of training: ESPnet's own discriminators judge the samples that the spectral terms are computed on."""

import contextlib
from dataclasses import dataclass

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
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)  # samples; a discriminator each
    period_channels: int = 32  # of their first layer, four times as many in each of the next
    max_channels: int = 1024  # of their widest layers


class Adversary(nn.Module):
    """HiFi-GAN's multi-period discriminator: one loss whose gradient teaches it, and the flow through the sample.

    Kong et al., "HiFi-GAN", 2020, arXiv:2010.05646, equations 1, 2 and 4.
    """

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__()
        if not config.periods:
            raise ValueError("adversarial_conf: periods is empty, there is no discriminator")
        self.config = config
        self.discriminator = HiFiGANMultiPeriodDiscriminator(
            list(config.periods), {"channels": config.period_channels, "max_downsample_channels": config.max_channels}
        )
        self.generator_loss = GeneratorAdversarialLoss()
        self.discriminator_loss = DiscriminatorAdversarialLoss()
        self.feature_loss = FeatureMatchLoss()

    def forward(self, sample: Tensor, wav: Tensor, heard: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
        """Judge ``sample`` against the recording, both (B, T).

        ``heard`` False teaches the discriminators alone. Returns the loss, and its parts: ``real`` and ``fake`` of the
        discriminators, ``adversarial`` and ``feature`` of the flow.
        """
        # At unit level: measured at that of speech, the discriminators told nothing apart for 500 steps.
        scale = 1 / wav.square().mean(1, keepdim=True).sqrt().clamp(min=1e-3)
        wav, sample = (wav * scale)[:, None], (sample * scale)[:, None]
        real, fake = self.discriminator(wav), self.discriminator(sample.detach())
        terms = dict(zip(("real", "fake"), self.discriminator_loss(fake, real), strict=True))
        loss = terms["real"] + terms["fake"]
        if heard:
            with _frozen(self.discriminator):  # here only the flow learns
                judged = self.discriminator(sample)
            terms["adversarial"] = self.generator_loss(judged)
            terms["feature"] = self.feature_loss(judged, [[f.detach() for f in features] for features in real])
            loss = loss + self.config.weight * terms["adversarial"] + self.config.feature * terms["feature"]
        return loss, terms


@contextlib.contextmanager
def _frozen(module: nn.Module):
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
