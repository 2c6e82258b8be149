"""An experiment: MelGlow as the vocoder inside ESPnet2's ``joint_text2wav``, trained together with the acoustic model.

``tts_conf: {vocoder_type: melglow_generator, vocoder_params: {...}}``; docs/espnet.md has the command.
"""

import functools

import torch
from torch import Tensor, nn

from melglow_plugin.model.loss import flow_nll
from melglow_plugin.model.melglow import MelGlow
from melglow_plugin.training.crops import dequantised

NAME = "melglow_generator"  # vocoder_type


class MelGlowGenerator(nn.Module):
    """MelGlow as ESPnet's GAN recipes call a generator; its mels are normalised ones.

    Args:
        sigma: std of z when sampling.
        lambda_nll: weight of the exact likelihood of the recording's segment, given the acoustic model's mel.
        vocoder_params: of :class:`melglow_plugin.MelGlow`; ``n_mels`` and ``hop_length`` are those of the mel.
    """

    def __init__(self, sigma: float = 0.6, lambda_nll: float = 1.0, **vocoder_params) -> None:
        super().__init__()
        self.flow = MelGlow(**vocoder_params)
        self.sigma, self.lambda_nll = sigma, lambda_nll
        self.last_mel: Tensor | None = None  # the last mel, whose recording ESPnet cuts out later

    @property
    def upsample_factor(self) -> int:
        return self.flow.hop_length

    def forward(self, mel: Tensor) -> Tensor:
        """(B, M, F) -> a sample (B, 1, F * hop_length), with a gradient to mel and weights."""
        self.last_mel = mel
        z = self.sigma * torch.randn(len(mel), mel.shape[-1] * self.upsample_factor, device=mel.device)
        return self.flow.inverse(z, mel)[:, None]

    def inference(self, mel: Tensor) -> Tensor:
        """(F, M) -> (F * hop_length, 1)."""
        return self(mel.T[None])[0].T

    def nll(self, wav: Tensor) -> Tensor:
        """Nats per sample of the recording (B, 1, F * hop_length) that belongs to the last mel."""
        mel, self.last_mel = self.last_mel, None
        return flow_nll(*self.flow(dequantised(wav[:, 0]), mel))


def patch(module) -> None:
    """Put the generator into ``espnet2.gan_tts.joint.joint_text2wav``; doing it again changes nothing."""
    module.AVAILABLE_VOCODER[NAME] = MelGlowGenerator
    original = module.JointText2Wav._forward_generator
    if hasattr(original, "_before_melglow"):
        return

    @functools.wraps(original)
    def _forward_generator(self, *args, **kwargs):
        vocoder = self.generator["vocoder"]
        if not isinstance(vocoder, MelGlowGenerator):
            return original(self, *args, **kwargs)
        shown = []  # inputs of ESPnet's discriminator: first the sample, then the recording
        handle = self.discriminator.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
        try:
            output = original(self, *args, **kwargs)
        finally:
            handle.remove()
        nll = vocoder.nll(shown[1])
        output["loss"] = output["loss"] + vocoder.lambda_nll * nll
        output["stats"] |= {"nll": nll.detach()[None], "loss": output["loss"].detach()}
        return output

    _forward_generator._before_melglow = original
    module.JointText2Wav._forward_generator = _forward_generator
