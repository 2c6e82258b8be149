"""MelFlow: a stack of flow steps from audio to Gaussian noise, conditioned on a mel."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from melglow_plugin.model.flow import AffineCoupling, InvertibleConv1x1, squeeze, unsqueeze
from melglow_plugin.model.inverse import inverses_and_log_dets
from melglow_plugin.model.lvc_net import LVCNet
from melglow_plugin.model.mel_model import Condition, MelModel, check_positive
from melglow_plugin.model.modules import MelNet, ModulesOf, full_precision

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


class MelFlow(MelModel):
    """A normalizing flow from audio to Gaussian noise, conditioned on a mel.

    ``n_flows`` times an invertible 1x1 convolution and an affine coupling; after every ``early_every`` of them
    ``early_size`` channels leave as part of ``z``. ``z`` sample i stands at the time of wav sample i.

    Prenger et al., "WaveGlow", 2018, arXiv:1811.00002, figure 1.

    Args:
        conditioner: builds a coupling's net for a number of channels.
        n_mels, hop_length, squeeze_factor, lpc_order, postfilter_channels: as in
            :class:`~melglow_plugin.model.mel_model.MelModel`.
        n_flows: 1x1 convolutions and couplings.
        early_every: flows between early outputs; ``n_flows`` or more: there are none.
        early_size: channels of each early output.
        max_log_s: bound of each coupling's abs(log_s).
    """

    has_likelihood = True

    def __init__(
        self,
        conditioner: Callable[[int], MelNet],
        n_mels: int,
        hop_length: int,
        squeeze_factor: int,
        n_flows: int,
        early_every: int,
        early_size: int,
        max_log_s: float,
        lpc_order: int,
        postfilter_channels: int,
    ) -> None:
        super().__init__(n_mels, hop_length, squeeze_factor, lpc_order, postfilter_channels)
        check_positive(n_flows=n_flows, early_every=early_every, early_size=early_size)
        self.early_every, self.early_size = early_every, early_size
        self.convs_1x1 = ModulesOf[InvertibleConv1x1]()
        self.couplings = ModulesOf[AffineCoupling]()
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
    def nets(self) -> list[MelNet]:
        """Each coupling's."""
        return [coupling.net for coupling in self.couplings]

    def recompute(self, on: bool = True) -> None:
        """Train in less memory and more time: the gradients compute the couplings' nets again."""
        for coupling in self.couplings:
            coupling.recompute = on
            if isinstance(coupling.net, LVCNet):
                coupling.net.keeps_kernels = not on

    def with_constant_inverses(self) -> "MelFlow":
        """A copy, for :meth:`inverse` alone, with the inverses of the 1x1 convolutions as constants."""
        other = copy.deepcopy(self)
        for conv in other.convs_1x1:
            conv.constant_inverse = conv.inverted().detach().to(conv.weight.dtype)
        return other

    def condition(self, mel: Tensor, lengths: Tensor | None = None) -> Condition:
        """As of every :class:`MelModel`, and with ``joint_inverses`` the inverses of the 1x1 convolutions."""
        cond = super().condition(mel, lengths)
        if not self.joint_inverses:
            return cond._replace(convs_1x1=[None] * len(self.convs_1x1))
        with torch.autocast(mel.device.type, enabled=False):
            return cond._replace(convs_1x1=inverses_and_log_dets([conv.weight for conv in self.convs_1x1]))

    def forward(
        self, wav: Tensor, mel: Tensor, lengths: Tensor | None = None, cond: Condition | None = None
    ) -> tuple[Tensor, Tensor]:
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
        self.check_shapes(wav, mel, "wav")
        cond = self.condition(mel, lengths) if cond is None else cond
        residual, log_det = self.lpc(full_precision(wav), mel, cond=cond.lpc)
        x = squeeze(residual, self.squeeze_factor)  # (B, T) -> (B, L, S)
        mask, early = self.step_mask(x, lengths), []
        for k, (conv_1x1, coupling) in enumerate(zip(self.convs_1x1, self.couplings, strict=True)):
            if self.leaves_early(k):
                early.append(x[..., : self.early_size])
                x = x[..., self.early_size :]
            for step, known in ((conv_1x1, cond.convs_1x1[k]), (coupling, cond.nets[k])):
                x, step_log_det = step(x, mel, mask, known)
                log_det = log_det + step_log_det
        return unsqueeze(torch.cat([*early, x], dim=-1)), log_det

    def inverse(self, z: Tensor, mel: Tensor, lengths: Tensor | None = None, cond: Condition | None = None) -> Tensor:
        """Latent to audio, the exact inverse of :meth:`forward`; differentiable in ``z``, ``mel`` and the weights.

        Args and errors as in :meth:`forward`, with ``z`` (B, T) for ``wav``.

        Returns:
            wav (B, T).
        """
        self.check_shapes(z, mel, "z")
        cond = self.condition(mel, lengths) if cond is None else cond
        z = squeeze(full_precision(z), self.squeeze_factor)  # (B, T) -> (B, L, S)
        mask = self.step_mask(z, lengths)
        n_early = z.shape[-1] - self.convs_1x1[-1].weight.shape[0]
        early, x = z[..., :n_early].split(self.early_size, dim=-1), z[..., n_early:]
        early = list(early) if n_early else []
        for k in reversed(range(len(self.couplings))):
            for step, known in ((self.couplings[k], cond.nets[k]), (self.convs_1x1[k], cond.convs_1x1[k])):
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
