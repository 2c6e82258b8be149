"""The inverse of a MelGlow on a GPU in few kernels: a layer is one, and what all couplings do alike is one for all."""

from typing import TypeGuard

import torch
from torch import Tensor
from torch.nn import functional as F

from melglow_plugin.model.flow import squeeze, unsqueeze
from melglow_plugin.model.kernels import choice, layers, lpc, predictors
from melglow_plugin.model.linear_prediction import LinearPrediction
from melglow_plugin.model.lvc_net import LVCNet, end_columns
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.model.melflow import MelFlow

MOST_NUMBERS = 2**28  # of the kernels of all couplings: more are predicted coupling by coupling


def runs(flow: MelModel) -> TypeGuard[MelFlow]:
    """Whether :class:`FusedInverse` takes ``flow``: a MelGlow in sizes that programs hold."""
    if not isinstance(flow, MelFlow):
        return False
    nets = [step.net for step in flow.couplings]
    return all(isinstance(net, LVCNet) and choice.fits(net.start.out_features, net.end.out_features) for net in nets)


class FusedInverse:
    """``flow.inverse`` without gradients, with the weights of this moment.

    Args:
        flow: a MelGlow of which :func:`runs` is true.
        dtype: of the predicted kernels and the products with them.
    """

    @torch.no_grad()
    def __init__(self, flow: MelFlow, dtype: torch.dtype = torch.float32) -> None:
        nets = [step.net for step in flow.couplings if isinstance(step.net, LVCNet)]  # all of them
        kernel_predictors = [net.kernel_predictor for net in nets]
        self.hop_length, self.squeeze_factor, self.lpc = flow.hop_length, flow.squeeze_factor, flow.lpc
        self.mel_mean, self.mel_std = flow.mel_mean[:, None], flow.mel_std[:, None]
        self.kernel_shape, self.n_layers = kernel_predictors[0].kernel_shape, kernel_predictors[0].n_layers
        # The predictors' convolutions: (N, taps, inputs, P) and (N, P).
        rows = [[p.input_conv, *p.residual_convs] for p in kernel_predictors]
        self.convs = [
            (torch.stack([conv.weight for conv in layer]).permute(0, 3, 2, 1).contiguous().float(),
             torch.stack([conv.bias for conv in layer]).float())
            for layer in zip(*rows, strict=True)
        ]  # fmt: skip
        to_kernel = [
            (torch.cat([layer.weight for layer in p.to_kernel]) * p.scale,
             torch.cat([layer.bias for layer in p.to_kernel]) * p.scale) for p in kernel_predictors
        ]  # fmt: skip
        weights, biases = (torch.stack(part) for part in zip(*to_kernel, strict=True))
        self.to_kernels = weights.mT.contiguous().to(dtype), biases[:, None].to(dtype)  # (N, P, E) and (N, 1, E)
        self.ends = [end_columns(net.end, self.n_layers) for net in nets]
        self.end_biases = [net.end.bias.float() for net in nets]
        starts = [self._start(net, conv) for net, conv in zip(nets, flow.convs_1x1, strict=True)]
        self.first_start = starts[-1]
        nothing = torch.zeros_like(starts[0][0]), torch.zeros_like(starts[0][1])
        self.closings = [
            self._closing(step, conv, start)
            for step, conv, start in zip(flow.couplings, flow.convs_1x1, [nothing, *starts], strict=False)
        ]

    def _start(self, net: LVCNet, conv_1x1) -> tuple[Tensor, Tensor]:
        """The first layer of ``net`` as a matrix over all channels, (S, C), and its bias."""
        first = self.squeeze_factor - conv_1x1.weight.shape[0]  # a coupling's channels are the last ones
        weight = net.start.weight.new_zeros(self.squeeze_factor, net.start.out_features)
        weight[first : first + net.start.in_features] = net.start.weight.t()
        return weight.float(), net.start.bias.float()

    def _closing(self, step, conv_1x1, start: tuple[Tensor, Tensor]) -> layers.Closing:
        channels, everything = conv_1x1.weight.shape[0], self.squeeze_factor
        half = channels // 2
        weight = conv_1x1.weight
        log_s, t = (weight.new_zeros(2 * half, everything, dtype=torch.float32) for _ in range(2))
        eye = torch.eye(half, device=weight.device)
        log_s[:half, everything - half :], t[half:, everything - half :] = eye, eye
        mixing = torch.eye(everything, dtype=torch.float64, device=weight.device)
        mixing[-channels:, -channels:] = torch.linalg.inv(weight.double())
        return layers.Closing(log_s, t, mixing.float(), *start, step.max_log_s)

    @torch.no_grad()
    def __call__(self, z: Tensor, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``z`` (B, T), ``mel`` (B, M, F) as extracted, ``lengths`` (B,) in frames or None -> wav (B, T) in float32."""
        frames, mask = mel.shape[-1], None
        if lengths is not None:
            steps = torch.arange(z.shape[1] // self.squeeze_factor, device=mel.device)
            ends = lengths * (self.hop_length // self.squeeze_factor)
            mask = (steps < ends[:, None]).float()[..., None]
        hidden = (mel - self.mel_mean).div_(self.mel_std).mT[None]  # (1, B, F, M)
        for i, (weight, bias) in enumerate(self.convs):
            hidden = predictors.frame_conv(hidden, lengths, weight, bias, residual=i > 0)
        hidden = hidden.flatten(1, 2).to(self.to_kernels[0].dtype)  # (N, B * F, P)
        x = squeeze(z.float(), self.squeeze_factor).clone()
        first = F.linear(x, self.first_start[0].t(), self.first_start[1])
        first = first if mask is None else first * mask
        total = x.new_empty(x.shape[0] * x.shape[1] * x.shape[2])
        weight, bias = self.to_kernels
        together = hidden.shape[0] * hidden.shape[1] * weight.shape[-1] <= MOST_NUMBERS
        predicted = torch.baddbmm(bias, hidden, weight) if together else None
        for k in reversed(range(len(self.closings))):
            values = torch.addmm(bias[k], hidden[k], weight[k]) if predicted is None else predicted[k]
            first = self._coupling(k, x, first, values.view(len(mel), frames, -1), mask, total)
        wav = unsqueeze(x)
        if not isinstance(self.lpc, LinearPrediction):
            return wav
        return lpc.inverse(self.lpc, wav, lpc.condition(self.lpc, mel))

    def _coupling(
        self, k: int, x: Tensor, hidden: Tensor, values: Tensor, mask: Tensor | None, total: Tensor
    ) -> Tensor:
        """Undo coupling k and the 1x1 convolution before it in ``x`` (B, L, S); the next one's first layer, (B, L, C).

        ``values`` (B, F, E) are the kernels and biases of the coupling's layers.
        """
        taps, channels, outs = self.kernel_shape
        total = total[: x.shape[0] * x.shape[1] * len(self.end_biases[k])].view(*x.shape[:2], -1)
        for i, layer in enumerate(values.chunk(self.n_layers, dim=-1)):
            kernel = layer[..., : taps * channels * outs].unflatten(-1, self.kernel_shape)
            begins, last = i == 0, i == self.n_layers - 1
            hidden = layers.layer(
                hidden, kernel, layer[..., -outs:], 2**i, mask, self.ends[k][i], total,
                self.end_biases[k] if begins else None, *((self.closings[k], x) if last else ()),
            )  # fmt: skip
        return hidden
