"""LVCNet as a generator of Coqui's own GAN model: ``"generator_model": "lvcnet_generator"``."""

import torch
from torch import Tensor, nn
from trainer.io import load_fsspec

from melglow_plugin.checkpoint.coqui import GENERATOR, model_from
from melglow_plugin.coqui.synthesis import Synthesis
from melglow_plugin.vocoder import Vocoder


class LVCnetGenerator(Synthesis, nn.Module):
    """LVCNetGenerator under the interface that Coqui's ``GAN`` gives its generators.

    Coqui's trainer hands the generator nothing but mels: the first batch of a training that starts from nothing sets
    their mean and standard deviation.

    Args:
        config: of the GAN, a :class:`melglow_plugin.coqui.gan_config.LVCnetConfig`.
    """

    def __init__(self, config) -> None:
        super().__init__()
        config.check_values()  # Coqpit does not, after it has read a file
        self.config = config
        self.vocoder = Vocoder.from_checkpoint(model_from(config.to_dict()))
        self._trained = False  # whether a batch has passed

    def forward(self, mel: Tensor) -> Tensor:
        """A mel (B, M, F) as ``audio`` defines it -> a sample (B, 1, F * hop_length) with a gradient to the weights."""
        mel, model = self.input_convention().convert(mel, self.convention), self.vocoder.flow
        if self.training and not self._trained:
            self._trained = True
            if torch.equal(model.mel_std, torch.ones_like(model.mel_std)):
                model.set_mel_statistics(mel.mean((0, 2)), mel.std((0, 2)))
        noise = self.config.sigma * torch.randn(len(mel), mel.shape[-1] * model.hop_length, device=mel.device)
        return model(mel, noise)[:, None]

    def load_checkpoint(self, config, checkpoint_path: str, *, eval: bool = False, cache: bool = False) -> None:
        """What ``melglow export --format coqui`` wrote; the GAN loads a checkpoint of the trainer itself."""
        state = load_fsspec(checkpoint_path, map_location="cpu", cache=cache)["model"]
        self.load_state_dict({name.removeprefix(GENERATOR): value for name, value in state.items()})
