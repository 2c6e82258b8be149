"""MelModel: what all vocoders of this package have in common, flows and others."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from melglow_plugin.model.linear_prediction import LinearPrediction, NoPrediction, Prediction
from melglow_plugin.model.lvc_net import LVCBlock
from melglow_plugin.model.modules import MelNet
from melglow_plugin.model.postfilter import Postfilter


class Condition(NamedTuple):
    """What a model computes from a mel once, for use in several calls."""

    lpc: Prediction | None  # the filter of each frame
    nets: list  # what each of the model's nets computed
    convs_1x1: Sequence = ()  # of a flow: inverse and log abs det of each, or None: it computes them itself


class MelModel(nn.Module):
    """A network that makes audio of noise and a mel: ``wav = model.inverse(z, mel)``.

    Its networks read the mel normalised by statistics that are kept with the weights. Linear prediction, where
    ``lpc_order`` is above 0, is its last step towards the audio.

    With ``joint_inverses`` set, :meth:`condition` inverts the matrices of all 1x1 convolutions of a flow at once: on a
    GPU that takes fewer launches, no wait for the device, and can be captured as a CUDA graph.

    Args:
        n_mels: mel bins.
        hop_length: samples per mel frame, a multiple of ``squeeze_factor``.
        squeeze_factor: samples folded into channels.
        lpc_order: divide the audio by the mel's envelope, by a filter of so many taps
            (:class:`~melglow_plugin.model.linear_prediction.LinearPrediction`); 0: none.
        postfilter_channels: width of the :class:`~melglow_plugin.model.postfilter.Postfilter` of the audio's
            magnitudes, which resynthesis uses; 0: none.
    """

    has_likelihood: ClassVar[bool]  # whether ``z, log_det = model(wav, mel)`` inverts it
    hyperparameters: dict[str, Any]  # the constructor's arguments
    # The mel's statistics belong to the weights: whoever calls the model hands it the mel as extracted.
    mel_mean: Tensor  # (M,)
    mel_std: Tensor  # (M,)

    def __init__(
        self, n_mels: int, hop_length: int, squeeze_factor: int, lpc_order: int, postfilter_channels: int = 0
    ) -> None:
        super().__init__()
        check_positive(hop_length=hop_length, squeeze_factor=squeeze_factor)
        if hop_length % squeeze_factor:
            raise ValueError(f"hop_length {hop_length} is no multiple of squeeze_factor {squeeze_factor}")
        self.joint_inverses = False
        self.n_mels, self.hop_length, self.squeeze_factor = n_mels, hop_length, squeeze_factor
        self.register_buffer("mel_mean", torch.zeros(n_mels))
        self.register_buffer("mel_std", torch.ones(n_mels))
        self.lpc = LinearPrediction(n_mels, hop_length, lpc_order) if lpc_order else NoPrediction()
        self.postfilter = Postfilter(postfilter_channels) if postfilter_channels else None

    @property
    @abstractmethod
    def nets(self) -> list[MelNet]:
        """The networks that read the mel, one after the other: :class:`LVCBlock` or WN."""

    @abstractmethod
    def inverse(self, z: Tensor, mel: Tensor, lengths: Tensor | None = None, cond=None) -> Tensor:
        """Noise ``z`` (B, T) and ``mel`` (B, M, F) -> wav (B, T); ``cond`` of :meth:`condition`."""

    def with_constant_inverses(self) -> "MelModel":
        """A copy, for :meth:`inverse` alone, that inverts no matrix; itself where there is none."""
        return self

    @property
    def context_frames(self) -> int:
        """Mel frames on either side of a frame that can change its samples: the nets' receptive field, rounded up.

        Into the past :attr:`memory_frames` come on top.
        """
        steps = sum(net.reach_steps for net in self.nets)
        return -(-steps * self.squeeze_factor // self.hop_length) + max(net.reach_frames for net in self.nets)

    @property
    def memory_frames(self) -> int:
        """Mel frames whose samples the linear prediction remembers."""
        return self.lpc.reach_frames

    def set_mel_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Keep the training mels' mean and standard deviation per bin, each (M,), with the weights."""
        self.mel_mean.copy_(mean)
        self.mel_std.copy_(std.clamp(min=1e-3))  # normalisation must not amplify a constant bin

    def set_mel_bands(self, log_power: Tensor, spectra: Tensor) -> None:
        """Keep with the weights the power spectrum that each mel bin stands for: ``MelConvention.band_powers()``.

        Linear prediction needs it; a model without linear prediction keeps nothing.
        """
        self.lpc.set_bands(log_power, spectra)

    def normalised(self, mel: Tensor) -> Tensor:
        """``mel`` (B, M, F) as extracted -> as the networks read it."""
        return (mel - self.mel_mean[:, None]) / self.mel_std[:, None]

    def activation_rms(self, mel: Tensor) -> Tensor:
        """Root mean square of the hidden values of each net's kernel predictor, for ``mel`` (B, M, F) as extracted.

        0.3 to 0.4 is usual. From about 1 on, a flow's coupling amplifies small changes of its input by orders of
        magnitude, and its gradients are dominated by noise.

        Returns:
            (nets, B); of no net where nets are not location-variable.
        """
        mel = self.normalised(mel)
        predictors = [net.kernel_predictor for net in self.nets if isinstance(net, LVCBlock)]
        rms = [predictor.hidden(mel).square().mean((1, 2)).sqrt() for predictor in predictors]
        return torch.stack(rms) if rms else mel.new_zeros(0, len(mel))

    def parameter_groups(self, lr: float, kernel_lr_ratio: float = 1.0) -> list[dict]:
        """Groups for an optimizer: the layers that give kernels learn ``kernel_lr_ratio`` times as fast as the rest.

        Their weights stand at unit scale and reach the convolutions divided by the root of the kernels' fan-in
        (:class:`~melglow_plugin.model.kernel_predictor.KernelPredictor`), so one step of Adam moves a kernel little.
        """
        kernels: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:  # the postfilter, which is trained by itself
                continue
            (kernels if ".kernel_predictor.to_kernel." in name else rest).append(parameter)
        groups = [{"params": rest, "lr": lr}, {"params": kernels, "lr": lr * kernel_lr_ratio}]
        return [group for group in groups if group["params"]]

    def condition(self, mel: Tensor, lengths: Tensor | None = None) -> Condition:
        """All that the model needs of ``mel`` (B, M, F), for use in several calls; ``lengths`` (B,) in frames."""
        frame_mask, normalised = self.frame_mask(mel, lengths), self.normalised(mel)
        nets = [net.condition(normalised, frame_mask) for net in self.nets]
        return Condition(self.lpc.condition(mel, frame_mask), nets)

    def frame_mask(self, mel: Tensor, lengths: Tensor | None) -> Tensor | None:
        """(B, 1, F): 1 before each of ``lengths`` (B,), 0 behind it; None where nothing is padding."""
        return None if lengths is None else _before(lengths, mel.shape[-1]).to(mel.dtype)[:, None]

    def step_mask(self, x: Tensor, lengths: Tensor | None) -> Tensor | None:
        """(B, L, 1) for ``x`` (B, L, C), as :meth:`frame_mask`."""
        if lengths is None:
            return None
        return _before(lengths * (self.hop_length // self.squeeze_factor), x.shape[1]).to(x.dtype)[..., None]

    def check_shapes(self, signal: Tensor, mel: Tensor, name: str) -> None:
        """ValueError naming ``signal`` unless it is (B, F * hop_length) for a mel (B, n_mels, F)."""
        if mel.dim() != 3 or mel.shape[1] != self.n_mels:
            raise ValueError(f"mel has shape {tuple(mel.shape)}, the model wants (B, {self.n_mels}, F)")
        expected = (mel.shape[0], mel.shape[2] * self.hop_length)
        if tuple(signal.shape) != expected:
            raise ValueError(
                f"{name} has shape {tuple(signal.shape)}, a mel of {mel.shape[2]} frames with hop_length "
                f"{self.hop_length} asks for {expected}"
            )


def constructor_arguments(local_names: dict[str, Any]) -> dict[str, Any]:
    """A constructor's own arguments, from ``locals()`` at its start: a checkpoint builds the model from them again."""
    return {name: value for name, value in local_names.items() if name not in ("self", "__class__")}


def check_positive(**sizes: int) -> None:
    """ValueError naming the first size that is below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} {value} is below 1")


def _before(lengths: Tensor, size: int) -> Tensor:
    """(B,) -> (B, size): True before each length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]
