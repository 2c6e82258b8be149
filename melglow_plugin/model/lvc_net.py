"""Gated location-variable convolutions: a block of them, and LVCNet, the conditioner of MelGlow's couplings."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melglow_plugin.model.kernel_predictor import KernelPredictor, masked
from melglow_plugin.model.kernels import choice, plain
from melglow_plugin.model.lvc import location_variable_conv
from melglow_plugin.model.modules import MelNet, full_precision

BLOCK_FRAMES = 128  # without gradients so many frames are computed at once: their kernels and signals fit a CPU's cache


class _Block(NamedTuple):
    """Some frames of some examples, and where in the buffers their layers are computed."""

    place: tuple[slice, slice]  # in a signal (B, L, C)
    predictor_hidden: Tensor  # (n, P) of its n frames
    predicted: Tensor  # kernel and bias, (n, K * C * D + D)
    kernel: Tensor  # the same, (n, K * C, D)
    bias: Tensor  # the same, (n, 1, D)
    taps: tuple[Tensor, ...]  # K times (examples, steps, C)
    window: Tensor  # the same, (n, hop, K * C)
    out: Tensor  # (n, hop, D)
    steps: Tensor  # the same, (examples, steps, D)


class LVCBlock(MelNet):
    """Gated location-variable convolutions with residual connections, dilation doubling from layer to layer.

    Zeng et al., "MelGlow", 2020, arXiv:2012.01684, figure 2; "LVCNet", ICASSP 2021, arXiv:2102.10815, figure 2.

    Args:
        n_mels: mel bins.
        channels: hidden channels C; each layer predicts kernels C -> 2C.
        n_layers: layers; layer i has dilation 2**i.
        kernel_size: taps, odd.
        predictor_channels, predictor_layers: width and depth of the kernel predictor.
    """

    def __init__(
        self,
        n_mels: int,
        channels: int,
        n_layers: int,
        kernel_size: int,
        predictor_channels: int,
        predictor_layers: int,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} is even: no tap is the centre")
        self.kernel_predictor = KernelPredictor(
            n_mels, channels, 2 * channels, n_layers, kernel_size, predictor_channels, predictor_layers
        )
        self.keeps_kernels = True  # in training, from condition() on; False: predicted anew in every forward()
        self.reach_steps = (2**n_layers - 1) * (kernel_size - 1) // 2  # of the signal, on either side
        self.reach_frames = 2 + predictor_layers  # of the mel, on either side

    @property
    def mel_conv(self) -> nn.Conv1d:  # type: ignore[override]
        """The layer that takes the normalised mel."""
        return self.kernel_predictor.input_conv

    def condition(self, mel: Tensor, frame_mask: Tensor | None = None) -> list[tuple[Tensor, Tensor]] | Tensor:
        """All that this network needs of the mel; :meth:`residual` takes it as ``cond`` to use it more than once.

        In training the kernels and biases of all layers, for both directions of the flow; without gradients (or where
        ``keeps_kernels`` is False) the predictor's hidden values: one layer's kernels fit a cache.
        """
        hidden = self.kernel_predictor.hidden(mel, frame_mask)
        return self.kernel_predictor.kernels(hidden) if self.keeps_kernels and not _without_gradients() else hidden

    def residual(self, hidden: Tensor, cond, end: nn.Linear, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pass a signal through all layers.

        Args:
            hidden: (B, L, C), 0 in padded steps.
            cond: the result of :meth:`condition`.
            end: the layer that takes what the gates of all layers let through, side by side: n_layers * C inputs.
            mask: (B, L, 1), 0 in padded steps, or None.

        Returns:
            ``hidden`` plus what the gates let through, (B, L, C), and the outputs of ``end``, (B, L, A).
        """
        hidden, without_gradients = full_precision(hidden), _without_gradients()
        fits = choice.fits(hidden.shape[-1], end.out_features)
        if without_gradients and fits and choice.takes_fused(hidden, hidden.dtype):
            done = self._fused(hidden, cond, end, mask)
            if done is not None:
                return done
        in_blocks = without_gradients and hidden.device.type == "cpu" and isinstance(cond, Tensor)
        hidden, minus_gates = (self._in_blocks if in_blocks else self._layer_by_layer)(hidden, cond, mask)
        return hidden, F.linear(minus_gates, -end.weight, end.bias)

    # Three ways

    def _layer_by_layer(self, hidden: Tensor, cond, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """``hidden`` as in :meth:`residual`, and what each layer's gates let through, negated: (B, L, n_layers * C)."""
        minus_gates = []
        for i in range(self.kernel_predictor.n_layers):
            kernel, bias = self._kernel(cond, i)
            minus_gates.append(_minus_gated(location_variable_conv(hidden, kernel, bias, dilation=2**i)))
            hidden = masked(hidden - minus_gates[-1], mask)
        return hidden, torch.cat(minus_gates, dim=-1)

    def _kernel(self, cond, layer: int) -> tuple[Tensor, Tensor]:
        return self.kernel_predictor.kernel(cond, layer) if isinstance(cond, Tensor) else cond[layer]

    def _fused(self, hidden: Tensor, cond, end: nn.Linear, mask: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """:meth:`residual` by two kernels a layer: one predicts, one does the rest. None where they do not run."""
        n_layers = self.kernel_predictor.n_layers
        columns, outputs = end_columns(end, n_layers), hidden.new_empty(*hidden.shape[:2], end.out_features)
        outputs_bias = hidden.new_zeros(end.out_features) if end.bias is None else end.bias.to(hidden.dtype)
        for i in range(n_layers):
            kernel, bias = self._kernel(cond, i)
            plain.check_shapes(hidden, kernel, bias, 2**i)
            first = None if i else outputs_bias
            try:
                from melglow_plugin.model.kernels import layers  # needs Triton

                hidden = layers.layer(hidden, kernel, bias, 2**i, mask, columns[i], outputs, first)
            except Exception as error:
                choice.fall_back(error)
                return None
        return hidden, outputs

    def _in_blocks(self, x: Tensor, predictor_hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """As :meth:`_layer_by_layer`, a block of frames after the other in the same few buffers: on a CPU.

        Args:
            x: (B, L, C).
            predictor_hidden: of the kernel predictor, (B, F, P).
            mask: (B, L, 1) or None.
        """
        precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        taps, channels, _ = self.kernel_predictor.kernel_shape
        batch, length, _ = x.shape
        plain.check_steps(length, predictor_hidden.shape[1])
        layers = self.kernel_predictor.to_kernel
        padding = 2 ** (len(layers) - 1) * (taps - 1) // 2
        padded = x.new_zeros(batch, length + 2 * padding, channels)
        hidden = padded[:, padding : padding + length]
        hidden.copy_(x)
        minus_gates = x.new_empty(batch, length, len(layers), channels)
        # All layers see the blocks in the same places, so each view is made once.
        hop = length // predictor_hidden.shape[1]
        blocks = _blocks(predictor_hidden.to(precision), hop, self.kernel_predictor.kernel_shape)
        for i, layer in enumerate(layers):
            weight, bias = layer.weight.t().to(precision), layer.bias.to(precision)
            shifted = [padded[:, (start := padding + (k - taps // 2) * 2**i) : start + length] for k in range(taps)]
            gates = minus_gates[:, :, i]
            for block in blocks:
                scale = self.kernel_predictor.scale
                torch.addmm(bias, block.predictor_hidden, weight, beta=scale, out=block.predicted)
                for tap, signal in zip(block.taps, shifted, strict=True):
                    tap.copy_(signal[block.place])
                torch.baddbmm(block.bias, block.window, block.kernel, out=block.out)
                _minus_gated(block.steps, out=gates[block.place])
            hidden.sub_(masked(gates, mask))
        return hidden, minus_gates.flatten(2)


class LVCNet(LVCBlock):
    """A coupling's conditioner: an :class:`LVCBlock` between two 1x1 convolutions.

    The skip connections of all layers and the closing 1x1 convolution are one matmul over the gates side by side.
    Its weight starts at zero, so that a fresh coupling is the identity.

    Args:
        io_channels: channels of ``x``, and of each of the two outputs.
        n_mels, channels, n_layers, kernel_size, predictor_channels, predictor_layers: as in :class:`LVCBlock`.
    """

    def __init__(
        self,
        io_channels: int,
        n_mels: int = 80,
        channels: int = 16,
        n_layers: int = 7,
        kernel_size: int = 3,
        predictor_channels: int = 32,
        predictor_layers: int = 2,
    ) -> None:
        super().__init__(n_mels, channels, n_layers, kernel_size, predictor_channels, predictor_layers)
        self.start = nn.Linear(io_channels, channels)
        self.end = nn.Linear(n_layers * channels, 2 * io_channels)
        nn.init.zeros_(self.end.weight)  # couplings start as the identity
        nn.init.zeros_(self.end.bias)

    def forward(self, x: Tensor, mel: Tensor, mask: Tensor | None = None, cond=None) -> tuple[Tensor, Tensor]:
        """Map ``x`` (B, L, io_channels) under ``mel`` (B, M, F) to log_s and t, each (B, L, io_channels).

        ``mask`` (B, L, 1) is 0 in padded steps, ``cond`` the result of :meth:`condition` (then ``mel`` is unused).
        """
        cond = self.condition(mel) if cond is None else cond
        log_s, t = self.residual(masked(self.start(x), mask), cond, self.end, mask)[1].chunk(2, dim=-1)
        return log_s, t


def end_columns(end: nn.Linear, n_layers: int) -> Tensor:
    """What takes each layer's gates, negated, to the outputs of ``end``: (n_layers, C, A)."""
    return (-end.weight.float().t()).unflatten(0, (n_layers, -1)).contiguous()


def _blocks(predictor_hidden: Tensor, hop: int, kernel_shape: tuple[int, int, int]) -> list[_Block]:
    """Blocks of ``predictor_hidden`` (B, F, P), which share their buffers: whole examples, or frames of a long one.

    Args:
        predictor_hidden: in the precision of the products.
        hop: steps of a frame.
        kernel_shape: K, C and D.
    """
    batch, frames, _ = predictor_hidden.shape
    taps, channels, out_channels = kernel_shape
    n_kernel = math.prod(kernel_shape)
    examples, size = max(1, BLOCK_FRAMES // frames), min(frames, BLOCK_FRAMES)
    rows = min(batch, examples) * size
    values, windows, mixed = (
        predictor_hidden.new_empty(rows * n)
        for n in (n_kernel + out_channels, hop * taps * channels, hop * out_channels)
    )
    blocks = []
    for b in range(0, batch, examples):
        for f in range(0, frames, size):
            e, g = min(b + examples, batch), min(f + size, frames)
            n, steps = (e - b) * (g - f), (g - f) * hop
            predicted = values[: n * (n_kernel + out_channels)].view(n, -1)
            window, out = windows[: n * hop * taps * channels], mixed[: n * hop * out_channels]
            block = _Block(
                place=(slice(b, e), slice(f * hop, g * hop)),
                predictor_hidden=predictor_hidden[b:e, f:g].reshape(n, -1),
                predicted=predicted,
                kernel=predicted[:, :n_kernel].view(n, -1, out_channels),
                bias=predicted[:, None, n_kernel:],
                taps=window.view(e - b, steps, taps, channels).unbind(2),
                window=window.view(n, hop, -1),
                out=out.view(n, hop, -1),
                steps=out.view(e - b, steps, -1),
            )
            blocks.append(block)
    return blocks


def _without_gradients() -> bool:
    """Whether each layer's kernels are predicted when they are used: without gradients, outside of a trace."""
    return not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _minus_gated(x: Tensor, out: Tensor | None = None) -> Tensor:
    """(..., 2C) -> (..., C): -tanh(a) * sigmoid(2b), where ``x`` is 2a beside 2b; with ``out``, ``x`` is used up.

    By tanh(a) = 2 sigmoid(2a) - 1: one sigmoid over both halves, which took a sixth of a tanh's time.
    """
    x = full_precision(x)
    filtered, gate = (x.sigmoid() if out is None else x.sigmoid_()).chunk(2, dim=-1)
    return torch.addcmul(gate, filtered, gate, value=-2, out=out)
