"""MelFlow: a stack of flow steps from audio to Gaussian noise, conditioned on a mel."""

import copy
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from melglow_plugin.model.flow import AffineCoupling, InverseConv1x1, InvertibleConv1x1, squeeze, unsqueeze
from melglow_plugin.model.inverse import inverses_and_log_dets
from melglow_plugin.model.linear_prediction import LinearPrediction, NoPrediction, Prediction
from melglow_plugin.model.lvc_net import LVCNet

# Parts of weight names in files and checkpoints of version 0.1, and what they are now.
RENAMED = {
    "mixes.": "convs_1x1.",
    "prediction.log_power": "lpc.log_power",
    "prediction.bands": "lpc.band_autocorrelations",
    ".predictor.read.": ".kernel_predictor.input_conv.",
    ".predictor.body.": ".kernel_predictor.residual_convs.",
    ".predictor.emit.": ".kernel_predictor.to_kernel.",
    ".net.read.": ".net.mel_conv.",
}


def current_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights`` of a :class:`MelFlow` under the names that they have in this version."""
    current = {}
    for name, value in weights.items():
        for old, new in RENAMED.items():
            name = new + name.removeprefix(old) if name.startswith(old) else name
            name = name.replace(old, new) if old.startswith(".") else name
        current[name] = value
    return current


class Condition(NamedTuple):
    """What a flow reads from a mel."""

    lpc: Prediction | None  # the filter of each frame
    convs_1x1: list  # inverse and log abs det of each 1x1 convolution, or None: it computes them itself
    couplings: list  # what each coupling's net made of it


class MelFlow(nn.Module):
    """A normalizing flow from audio to Gaussian noise, conditioned on a mel.

    With ``joint_inverses`` set, :meth:`condition` inverts the matrices of all 1x1 convolutions at once: on a GPU that
    takes fewer launches, no wait for the device, and can be captured as a CUDA graph.

    ``n_flows`` times an invertible 1x1 convolution and an affine coupling; after every ``early_every`` of them
    ``early_size`` channels leave as part of ``z``. ``z`` sample i stands at the time of wav sample i.

    Prenger et al., "WaveGlow", 2018, arXiv:1811.00002, figure 1.

    Args:
        conditioner: builds a coupling's net for a number of channels.
        n_mels: mel bins.
        hop_length: samples per mel frame, a multiple of ``squeeze_factor``.
        squeeze_factor: samples folded into channels.
        n_flows: 1x1 convolutions and couplings.
        early_every: flows between early outputs; ``n_flows`` or more: there are none.
        early_size: channels of each early output.
        max_log_s: bound of each coupling's abs(log_s).
        lpc_order: divide the audio by the mel's envelope first, by a filter of so many taps
            (:class:`~melglow_plugin.model.linear_prediction.LinearPrediction`); 0: none.
    """

    def __init__(
        self,
        conditioner: Callable[[int], nn.Module],
        n_mels: int,
        hop_length: int,
        squeeze_factor: int,
        n_flows: int,
        early_every: int,
        early_size: int,
        max_log_s: float,
        lpc_order: int,
    ) -> None:
        super().__init__()
        self.joint_inverses = False
        _check_positive(
            hop_length=hop_length,
            squeeze_factor=squeeze_factor,
            n_flows=n_flows,
            early_every=early_every,
            early_size=early_size,
        )
        if hop_length % squeeze_factor:
            raise ValueError(f"hop_length {hop_length} is no multiple of squeeze_factor {squeeze_factor}")
        self.n_mels, self.hop_length, self.squeeze_factor = n_mels, hop_length, squeeze_factor
        self.early_every, self.early_size = early_every, early_size
        # The mel's statistics belong to the weights: whoever calls the model hands it the mel as extracted.
        self.register_buffer("mel_mean", torch.zeros(n_mels))
        self.register_buffer("mel_std", torch.ones(n_mels))
        self.lpc = LinearPrediction(n_mels, hop_length, lpc_order) if lpc_order else NoPrediction()
        self.convs_1x1, self.couplings = nn.ModuleList(), nn.ModuleList()
        for channels in self._channels_per_flow(n_flows):
            self.convs_1x1.append(InvertibleConv1x1(channels))
            self.couplings.append(AffineCoupling(conditioner(channels // 2), max_log_s))

    def _channels_per_flow(self, n_flows: int) -> list[int]:
        channels = [self.squeeze_factor - self.early_size * (k // self.early_every) for k in range(n_flows)]
        if channels[-1] < 2 or channels[-1] % 2 or self.squeeze_factor % 2 or self.early_size % 2:
            raise ValueError(
                f"squeeze_factor {self.squeeze_factor} less {self.early_size} channels after every "
                f"{self.early_every} of {n_flows} flows leaves {channels[-1]}: every flow needs an even number of "
                "channels, two or more"
            )
        return channels

    def leaves_early(self, flow: int) -> bool:
        """Whether ``early_size`` channels leave before the flow of that number, counted from 0."""
        return flow > 0 and flow % self.early_every == 0

    @property
    def context_frames(self) -> int:
        """Mel frames on either side of a frame that can change its samples: the couplings' receptive field, rounded up.

        Into the past :attr:`memory_frames` come on top.
        """
        nets = [coupling.net for coupling in self.couplings]
        steps = sum(net.reach_steps for net in nets)
        return -(-steps * self.squeeze_factor // self.hop_length) + max(net.reach_frames for net in nets)

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

        Linear prediction needs it; a flow without linear prediction keeps nothing.
        """
        self.lpc.set_bands(log_power, spectra)

    def recompute(self, on: bool = True) -> None:
        """Train in less memory and more time: the gradients compute the couplings' nets again."""
        for coupling in self.couplings:
            coupling.recompute = on
            if isinstance(coupling.net, LVCNet):
                coupling.net.keeps_kernels = not on

    def mel_convs(self) -> list[nn.Conv1d]:
        """The layer of each coupling's net that takes the normalised mel."""
        return [coupling.net.mel_conv for coupling in self.couplings]

    def activation_rms(self, mel: Tensor) -> Tensor:
        """Root mean square of each coupling's kernel predictor's hidden values, for ``mel`` (B, M, F) as extracted.

        0.3 to 0.4 is usual. From about 1 on, the coupling amplifies small changes of its input by orders of magnitude,
        and its gradients are dominated by noise.

        Returns:
            (couplings, B); of no coupling where nets are not location-variable.
        """
        mel = (mel - self.mel_mean[:, None]) / self.mel_std[:, None]
        predictors = [coupling.net.kernel_predictor for coupling in self.couplings if isinstance(coupling.net, LVCNet)]
        rms = [predictor.hidden(mel).square().mean((1, 2)).sqrt() for predictor in predictors]
        return torch.stack(rms) if rms else mel.new_zeros(0, len(mel))

    def with_constant_inverses(self) -> "MelFlow":
        """A copy, for :meth:`inverse` alone, with the inverses of the 1x1 convolutions as constants."""
        other = copy.deepcopy(self)
        other.convs_1x1 = nn.ModuleList(InverseConv1x1(conv.weight) for conv in other.convs_1x1)
        return other

    def parameter_groups(self, lr: float, kernel_lr_ratio: float = 1.0) -> list[dict]:
        """Groups for an optimizer: the layers that give kernels learn ``kernel_lr_ratio`` times as fast as the rest.

        Their weights stand at unit scale and reach the couplings divided by the root of the kernels' fan-in
        (:class:`~melglow_plugin.model.kernel_predictor.KernelPredictor`), so one step of Adam moves a kernel little.
        """
        kernels, rest = [], []
        for name, parameter in self.named_parameters():
            (kernels if ".kernel_predictor.to_kernel." in name else rest).append(parameter)
        groups = [{"params": rest, "lr": lr}, {"params": kernels, "lr": lr * kernel_lr_ratio}]
        return [group for group in groups if group["params"]]

    def condition(self, mel: Tensor, lengths: Tensor | None = None) -> "Condition":
        """All that the flow needs of ``mel`` (B, M, F), for use in several calls; ``lengths`` (B,) in frames."""
        frame_mask = None if lengths is None else _mask(lengths, mel.shape[-1]).to(mel.dtype)[:, None]
        lpc = self.lpc.condition(mel, frame_mask)
        mel = (mel - self.mel_mean[:, None]) / self.mel_std[:, None]
        nets = [coupling.condition(mel, frame_mask) for coupling in self.couplings]
        return Condition(lpc, self._condition_1x1(), nets)

    def _condition_1x1(self) -> list:
        if not self.joint_inverses:
            return [None] * len(self.convs_1x1)
        with torch.autocast(self.mel_mean.device.type, enabled=False):
            return inverses_and_log_dets([conv.weight for conv in self.convs_1x1])

    def forward(self, wav: Tensor, mel: Tensor, lengths: Tensor | None = None, cond: Condition | None = None):
        """Audio to latent.

        Args:
            wav: (B, T) in [-1, 1], T = F * hop_length.
            mel: (B, M, F) as extracted; the model normalises it.
            lengths: frames of each example where the batch is padded, (B,).
            cond: the result of :meth:`condition` for this mel; None: computed here.

        Returns:
            z (B, T), and log_det (B,) = log abs det dz/dwav in nats.

        Raises:
            ValueError: T and F disagree, or ``mel`` has another number of bins.
        """
        self._check(wav, mel, "wav")
        cond = self.condition(mel, lengths) if cond is None else cond
        residual, log_det = self.lpc(_full_precision(wav), mel, cond=cond.lpc)
        x = squeeze(residual, self.squeeze_factor)  # (B, T) -> (B, L, S)
        mask, early = self._step_mask(lengths, x), []
        for k, (conv_1x1, coupling) in enumerate(zip(self.convs_1x1, self.couplings, strict=True)):
            if self.leaves_early(k):
                early.append(x[..., : self.early_size])
                x = x[..., self.early_size :]
            for step, known in ((conv_1x1, cond.convs_1x1[k]), (coupling, cond.couplings[k])):
                x, step_log_det = step(x, mel, mask, known)
                log_det = log_det + step_log_det
        return unsqueeze(torch.cat([*early, x], dim=-1)), log_det

    def inverse(self, z: Tensor, mel: Tensor, lengths: Tensor | None = None, cond: Condition | None = None) -> Tensor:
        """Latent to audio, the exact inverse of :meth:`forward`; differentiable in ``z``, ``mel`` and the weights.

        Args and errors as in :meth:`forward`, with ``z`` (B, T) for ``wav``.

        Returns:
            wav (B, T).
        """
        self._check(z, mel, "z")
        cond = self.condition(mel, lengths) if cond is None else cond
        z = squeeze(_full_precision(z), self.squeeze_factor)  # (B, T) -> (B, L, S)
        mask = self._step_mask(lengths, z)
        n_early = z.shape[-1] - self.convs_1x1[-1].weight.shape[0]
        early, x = z[..., :n_early].split(self.early_size, dim=-1), z[..., n_early:]
        early = list(early) if n_early else []
        for k in reversed(range(len(self.couplings))):
            for step, known in ((self.couplings[k], cond.couplings[k]), (self.convs_1x1[k], cond.convs_1x1[k])):
                x = step.inverse(x, mel, mask, known)
            if self.leaves_early(k):
                x = torch.cat([early.pop(), x], dim=-1)
        return self.lpc.inverse(unsqueeze(x), mel, cond=cond.lpc)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """As torch does, also from weights of version 0.1, inside of any other module."""
        own = {name.removeprefix(prefix): name for name in state_dict if name.startswith(prefix)}
        weights = current_names({name: state_dict.pop(full) for name, full in own.items()})
        state_dict.update({prefix + name: value for name, value in weights.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _step_mask(self, lengths: Tensor | None, x: Tensor) -> Tensor | None:
        if lengths is None:
            return None
        return _mask(lengths * (self.hop_length // self.squeeze_factor), x.shape[1]).to(x.dtype)[..., None]

    def _check(self, signal: Tensor, mel: Tensor, name: str) -> None:
        if mel.dim() != 3 or mel.shape[1] != self.n_mels:
            raise ValueError(f"mel has shape {tuple(mel.shape)}, the model wants (B, {self.n_mels}, F)")
        expected = (mel.shape[0], mel.shape[2] * self.hop_length)
        if tuple(signal.shape) != expected:
            raise ValueError(
                f"{name} has shape {tuple(signal.shape)}, a mel of {mel.shape[2]} frames with hop_length "
                f"{self.hop_length} asks for {expected}"
            )


def _check_positive(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} {value} is below 1")


def _mask(lengths: Tensor, size: int) -> Tensor:
    """(B,) -> (B, size): True before each length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _full_precision(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
