"""MelGlow or LVCNet as the vocoder inside ESPnet2's ``joint_text2wav``, trained together with the acoustic model.

``tts_conf: {vocoder_type: lvcnet_generator, vocoder_params: {...}}``; docs/espnet.md has the command. MelGlow, under
``melglow_generator``, is an experiment: its likelihood joins the losses of ESPnet's GAN trainer.
"""

import torch
from torch import Tensor, nn

from melglow_plugin.inference.engine import Engine
from melglow_plugin.model.loss import flow_nll
from melglow_plugin.model.lvcnet_generator import LVCNetGenerator
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.model.melglow import MelGlow
from melglow_plugin.training.crops import dequantised
from melglow_plugin.watch import wrapping


class JointGenerator(nn.Module):
    """A model of ours as ESPnet's GAN recipes call a generator; its mels are normalised ones.

    Args:
        model: whose ``n_mels`` and ``hop_length`` are those of the mel.
        sigma: std of the noise.
    """

    def __init__(self, model: MelModel, sigma: float) -> None:
        super().__init__()
        self.flow, self.sigma = model, sigma
        self._engine = Engine(model, None, None)

    @property
    def upsample_factor(self) -> int:
        return self.flow.hop_length

    def forward(self, mel: Tensor) -> Tensor:
        """(B, M, F) -> a sample (B, 1, F * hop_length), with a gradient to mel and weights."""
        z = self.sigma * torch.randn(len(mel), mel.shape[-1] * self.upsample_factor, device=mel.device)
        return self.flow.inverse(z, mel)[:, None]

    @torch.no_grad()
    def inference(self, mel: Tensor) -> Tensor:
        """(F, M) -> (F * hop_length, 1): in float32, and on a GPU by a CUDA graph."""
        mel = mel.float().T[None]
        z = self.sigma * torch.randn(1, mel.shape[-1] * self.upsample_factor, device=mel.device)
        return self._engine.inverse(z, mel).T

    def _apply(self, change, recurse=True):
        self._engine.forget_graphs()  # they hold the weights where they were
        return super()._apply(change, recurse)


class LVCNetJointGenerator(JointGenerator):
    """LVCNet, which needs nothing but ESPnet's losses.

    A normalised mel does not tell levels, so by default there is no linear prediction.

    Args:
        sigma: std of the noise.
        vocoder_params: of :class:`melglow_plugin.LVCNetGenerator`.
    """

    def __init__(self, sigma: float = 0.6, **vocoder_params) -> None:
        super().__init__(LVCNetGenerator(**{"lpc_order": 0, **vocoder_params}), sigma)


class MelGlowGenerator(JointGenerator):
    """MelGlow, with its likelihood.

    Args:
        sigma: std of z when sampling.
        lambda_nll: weight of the exact likelihood of the recording's segment, given the acoustic model's mel.
        vocoder_params: of :class:`melglow_plugin.MelGlow`.
    """

    def __init__(self, sigma: float = 0.6, lambda_nll: float = 1.0, **vocoder_params) -> None:
        super().__init__(MelGlow(**vocoder_params), sigma)
        self.lambda_nll = lambda_nll
        self.last_mel: Tensor | None = None  # the last mel, whose recording ESPnet cuts out later

    def forward(self, mel: Tensor) -> Tensor:
        """As of :class:`JointGenerator`, and the mel is remembered."""
        self.last_mel = mel
        return super().forward(mel)

    def nll(self, wav: Tensor) -> Tensor:
        """Nats per sample of the recording (B, 1, F * hop_length) that belongs to the last mel."""
        mel, self.last_mel = self.last_mel, None
        return flow_nll(*self.flow(dequantised(wav[:, 0]), mel))


GENERATORS = {"melglow_generator": MelGlowGenerator, "lvcnet_generator": LVCNetJointGenerator}  # by vocoder_type


def patch(module) -> None:
    """Put the generators into ``espnet2.gan_tts.joint.joint_text2wav``; doing it again changes nothing."""
    module.AVAILABLE_VOCODER |= GENERATORS

    @wrapping(module.JointText2Wav, "_forward_generator")
    def forward_generator(original, self, *args, **kwargs):
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
