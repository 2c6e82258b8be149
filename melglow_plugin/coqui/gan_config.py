"""The configuration of LVCNet in Coqui TTS: ``"model": "lvcnet"`` or ``"generator_model": "lvcnet_generator"``."""

# As in config.py, nothing optional is imported here.
from dataclasses import dataclass, field
from typing import Any

from TTS.vocoder.configs.shared_configs import BaseGANVocoderConfig

from melglow_plugin.coqui.config import CommonConfig, LVCnetArgs


@dataclass
class LVCnetConfig(CommonConfig, BaseGANVocoderConfig):
    """LVCNet in Coqui's own GAN model. What is not explained here is Coqui's.

    Losses and discriminator are those of the paper, Parallel WaveGAN's; any other of Coqui's may be set. Unknown keys
    and values of a wrong type are refused. Coqui makes the class's name of ``lvcnet_config``.
    """

    model: str = "lvcnet"
    generator_model: str = "lvcnet_generator"
    generator_model_params: LVCnetArgs = field(default_factory=LVCnetArgs)
    discriminator_model: str = "parallel_wavegan_discriminator"
    discriminator_model_params: dict[str, Any] = field(default_factory=lambda: {"num_layers": 10})
    eval_batch_size: int = 1  # Coqui's GAN evaluates whole recordings

    # losses
    use_stft_loss: bool = True
    use_subband_stft_loss: bool = False
    use_mse_gan_loss: bool = True
    use_hinge_gan_loss: bool = False
    use_feat_match_loss: bool = False  # true: with HiFi-GAN's, MelGAN's or UnivNet's discriminators
    use_l1_spec_loss: bool = False
    stft_loss_weight: float = 1.0
    mse_G_loss_weight: float = 1.0
    feat_match_loss_weight: float = 2.0
    steps_to_start_discriminator: int = 2000  # spectral terms alone before
    target_loss: str = "loss_1"  # the generator's

    # optimizers, of generator and discriminator
    grad_clip: list[float] = field(default_factory=lambda: [20.0, 20.0])  # norms
    lr_gen: float = 4e-4
    lr_disc: float = 4e-4
    lr_scheduler_gen_params: dict[str, Any] = field(default_factory=lambda: {"gamma": 0.9999, "last_epoch": -1})
    lr_scheduler_disc_params: dict[str, Any] = field(default_factory=lambda: {"gamma": 0.9999, "last_epoch": -1})
