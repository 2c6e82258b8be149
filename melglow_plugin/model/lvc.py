"""Location-variable convolution: one kernel per mel frame (Zeng et al., "MelGlow", SLT 2021, arXiv:2012.01684)."""

import importlib
import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCK_FRAMES = 128  # without gradients so many frames are computed at once: their kernels and signals fit a CPU's cache

_fused_wanted: bool | None = None
_fused_failed = False  # once is enough: it was announced


def use_fused(choice: bool | None) -> None:
    """Choose between the fused Triton kernels (``melglow_plugin.model.kernels.triton``) and the plain operator.

    Args:
        choice: None, as at the start: the fused ones for CUDA tensors of at most 32 bits; where Triton is missing or
            fails, the plain one after one warning. False: the plain one. True: the fused ones also off CUDA, which
            Triton's interpreter can do (TRITON_INTERPRET=1), and whatever goes wrong is raised.
    """
    global _fused_wanted, _fused_failed
    _fused_wanted, _fused_failed = choice, False


def location_variable_conv(x: Tensor, kernel: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """Convolve each hop of ``x`` with the kernel predicted for its mel frame.

    With the same kernel in every frame this equals ``F.conv1d`` with ``padding=dilation*(K-1)//2``.
    Taps reach across hop borders; zeros stand only before and after the utterance.

    Zeng et al., "MelGlow", 2020, arXiv:2012.01684, section 2.2.

    Args:
        x: hidden signal, (B, L, C) with L = F * H steps.
        kernel: one per frame, (B, F, K, C, D), K odd.
        bias: one per frame, (B, F, D).
        dilation: steps between taps.

    Returns:
        (B, L, D).

    On CUDA fused kernels compute it where Triton is there (:func:`use_fused`): their gradients cannot be differentiated
    again.

    Raises:
        ValueError: L is not a multiple of F, K is even, or batch or channels of the arguments disagree.
    """
    _check_shapes(x, kernel, bias, dilation)
    if _takes_fused(x, kernel.dtype):
        try:
            return _fused().location_variable_conv(x, kernel, bias, dilation)
        except Exception as error:
            _fall_back(error)
    return _plain_conv(x, kernel, bias, dilation)


def _plain_conv(x: Tensor, kernel: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    batch, frames, taps, channels, out_channels = kernel.shape
    length = x.shape[1]
    reach = dilation * (taps - 1) // 2
    padded = F.pad(x, (0, 0, reach, reach))
    # Every step beside its neighbours, tap-major like the kernel: (B, L, K * C).
    windows = torch.cat([padded[:, k * dilation : k * dilation + length] for k in range(taps)], dim=-1)
    windows = windows.reshape(batch * frames, length // frames, taps * channels)
    kernel = kernel.reshape(batch * frames, taps * channels, out_channels)
    if bias is None:
        out = torch.bmm(windows, kernel)
    else:
        out = torch.baddbmm(bias.reshape(batch * frames, 1, out_channels), windows, kernel)
    return out.view(batch, length, out_channels)


def _takes_fused(x: Tensor, kernel_dtype: torch.dtype) -> bool:
    if torch.compiler.is_compiling() or x.dtype.itemsize > 4 or kernel_dtype.itemsize > 4 or _fused_failed:
        return False
    agree = x.dtype == kernel_dtype or torch.is_autocast_enabled(x.device.type)  # else the plain one says what is wrong
    return agree and (x.device.type == "cuda" if _fused_wanted is None else _fused_wanted)


def _fused():
    return importlib.import_module("melglow_plugin.model.kernels.triton")  # by name: whoever has no GPU needs no Triton


def _fall_back(error: Exception) -> None:
    """Say once that the plain operator takes over; what was asked for by name, and lack of memory, is raised."""
    global _fused_failed
    if _fused_wanted or isinstance(error, torch.cuda.OutOfMemoryError):
        raise error
    if not _fused_failed:
        _fused_failed = True
        warnings.warn(
            f"the fused LVC kernels do not run here, the plain operator does instead, slower: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            stacklevel=3,
        )


def _check_steps(length: int, frames: int) -> None:
    if frames == 0 or length % frames:
        raise ValueError(f"x has {length} steps, no multiple of the kernel's {frames} frames")


def _check_shapes(x: Tensor, kernel: Tensor, bias: Tensor | None, dilation: int) -> None:
    if x.dim() != 3 or kernel.dim() != 5:
        raise ValueError(f"x has {x.dim()} dimensions and kernel {kernel.dim()}, wanted 3 and 5")
    batch, frames, taps, channels, out_channels = kernel.shape
    _check_steps(x.shape[1], frames)
    if taps % 2 == 0:
        raise ValueError(
            f"kernel has an even number of taps, {taps}: no tap is the centre (use {taps - 1} or {taps + 1})"
        )
    if not isinstance(dilation, int) or dilation < 1:
        raise ValueError(f"dilation {dilation} is below 1")
    if (x.shape[0], x.shape[2]) != (batch, channels):
        raise ValueError(f"x has (batch, channels) {(x.shape[0], x.shape[2])}, the kernel {(batch, channels)}")
    if bias is not None and bias.shape != (batch, frames, out_channels):
        raise ValueError(f"bias has shape {tuple(bias.shape)}, the kernel asks for {(batch, frames, out_channels)}")


class KernelPredictor(nn.Module):
    """Predict the kernels and biases of all layers of one LVC network from the mel.

    The last layer holds nearly all the parameters: ``predictor_channels * n_layers * (K*C + 1) * D``.

    Args:
        n_mels: mel bins.
        in_channels, out_channels: C and D of each predicted kernel.
        n_layers: how many kernels a frame gets.
        kernel_size: taps K.
        predictor_channels: width.
        predictor_layers: residual convolutions over frames, after the one that reads the mel.
    """

    def __init__(
        self,
        n_mels: int,
        in_channels: int,
        out_channels: int,
        n_layers: int,
        kernel_size: int = 3,
        predictor_channels: int = 32,
        predictor_layers: int = 2,
    ) -> None:
        super().__init__()
        self.kernel_shape = (kernel_size, in_channels, out_channels)
        self.n_layers = n_layers
        self.read = nn.Conv1d(n_mels, predictor_channels, 5, padding=2)
        self.body = nn.ModuleList(
            nn.Conv1d(predictor_channels, predictor_channels, 3, padding=1) for _ in range(predictor_layers)
        )
        # One matmul a layer: its gradient is then ready where it is needed, not gathered from all layers first.
        self.emit = nn.ModuleList(
            nn.Linear(predictor_channels, math.prod(self.kernel_shape) + out_channels) for _ in range(n_layers)
        )
        # Kernels are emitted at unit scale and divided by the root of their fan-in. Emitted at their own small scale,
        # one step of Adam (lr 1e-3) would move them by 7 %: measured, training then diverges within 700 steps.
        # The 2 makes them ready for ``_minus_gated``.
        self.scale = 2 / math.sqrt(kernel_size * in_channels)
        for emit in self.emit:
            # The bias is an ordinary convolution's first weights; the mel starts by varying them about as much.
            nn.init.normal_(emit.weight, std=1 / math.sqrt(3 * predictor_channels))
            nn.init.uniform_(emit.bias, -1, 1)

    def forward(self, mel: Tensor, mask: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """Predict from ``mel`` (B, M, F); ``mask`` (B, 1, F) is 0 in padded frames.

        Returns:
            Per layer, kernel (B, F, K, C, D) and bias (B, F, D), frame-major as the convolution reads them.
        """
        return self.kernels(self.features(mel, mask))

    def features(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the kernels of all layers are emitted from, (B, F, predictor_channels), their scale included."""
        hidden = F.leaky_relu(self.read(_masked(mel, mask)), 0.1)
        for conv in self.body:
            hidden = hidden + F.leaky_relu(conv(_masked(hidden, mask)), 0.1)
        return hidden.transpose(1, 2) * self.scale  # scaling the small side is the same and costs nothing

    def kernels(self, features: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Kernel (B, F, K, C, D) and bias (B, F, D) of each layer."""
        return [self.kernel(features, i) for i in range(self.n_layers)]

    def kernel(self, features: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Kernel (B, F, K, C, D) and bias (B, F, D) of one layer."""
        emit, n_kernel = self.emit[layer], math.prod(self.kernel_shape)
        values = F.linear(features, emit.weight, emit.bias * self.scale)  # (B, F, K * C * D + D)
        return values[..., :n_kernel].unflatten(-1, self.kernel_shape), values[..., n_kernel:]


class _Block(NamedTuple):
    """Some frames of some examples, and where in the buffers their layers are computed."""

    place: tuple[slice, slice]  # in a signal (B, L, C)
    features: Tensor  # (n, P) of its n frames
    emitted: Tensor  # (n, K * C * D + D)
    kernel: Tensor  # the same, (n, K * C, D)
    bias: Tensor  # the same, (n, 1, D)
    taps: tuple[Tensor, ...]  # K times (examples, steps, C)
    window: Tensor  # the same, (n, hop, K * C)
    out: Tensor  # (n, hop, D)
    steps: Tensor  # the same, (examples, steps, D)


class LVCNet(nn.Module):
    """A coupling's conditioner: gated location-variable convolutions, dilation doubling from layer to layer.

    The skip connections of all layers and the closing 1x1 convolution are one matmul over the gates side by side.
    Its weight starts at zero, so that a fresh coupling is the identity.

    Zeng et al., "MelGlow", 2020, arXiv:2012.01684, figure 2.

    Args:
        io_channels: channels of ``x``, and of each of the two outputs.
        n_mels: mel bins.
        channels: hidden channels C; each layer predicts kernels C -> 2C.
        n_layers: layers; layer i has dilation 2**i.
        kernel_size: taps, odd.
        predictor_channels, predictor_layers: width and depth of the kernel predictor.
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
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} is even: no tap is the centre")
        self.predictor = KernelPredictor(
            n_mels, channels, 2 * channels, n_layers, kernel_size, predictor_channels, predictor_layers
        )
        self.keeps_kernels = True  # in training, from condition() on; False: emitted anew in every forward()
        self.reach_steps = (2**n_layers - 1) * (kernel_size - 1) // 2  # of x, on either side
        self.reach_frames = 2 + predictor_layers  # of the mel, on either side
        self.start = nn.Linear(io_channels, channels)
        self.end = nn.Linear(n_layers * channels, 2 * io_channels)
        nn.init.zeros_(self.end.weight)  # couplings start as the identity
        nn.init.zeros_(self.end.bias)

    def condition(self, mel: Tensor, frame_mask: Tensor | None = None) -> list[tuple[Tensor, Tensor]] | Tensor:
        """All that this network needs of the mel; ``forward`` takes it as ``cond`` to use it more than once.

        In training the kernels and biases of all layers, for both directions of the flow; without gradients (or where
        ``keeps_kernels`` is False) the features that they are emitted from: one layer's kernels fit a cache.
        """
        features = self.predictor.features(mel, frame_mask)
        return self.predictor.kernels(features) if self.keeps_kernels and not _without_gradients() else features

    def forward(self, x: Tensor, mel: Tensor | None, mask: Tensor | None = None, cond=None) -> tuple[Tensor, Tensor]:
        """Map ``x`` (B, L, io_channels) under ``mel`` (B, M, F) to log_s and t, each (B, L, io_channels).

        ``mask`` (B, L, 1) is 0 in padded steps, ``cond`` the result of :meth:`condition` (then ``mel`` is unused).
        """
        cond = self.condition(mel) if cond is None else cond
        minus_gates = None
        if _without_gradients() and _takes_fused(x, x.dtype):
            minus_gates = self._fused_gates(x, cond, mask)
        if minus_gates is None and _without_gradients() and x.device.type == "cpu" and isinstance(cond, Tensor):
            minus_gates = self._gates_in_blocks(x, cond, mask)
        if minus_gates is None:
            minus_gates = self._gates(x, cond, mask)
        log_s, t = F.linear(minus_gates, -self.end.weight, self.end.bias).chunk(2, dim=-1)
        return log_s, t

    # What all layers' gates let through, negated, side by side: (B, L, n_layers * channels), in three ways.

    def _gates(self, x: Tensor, cond, mask: Tensor | None) -> Tensor:
        hidden = _masked(self.start(x), mask)
        minus_gates = []
        for i in range(self.predictor.n_layers):
            kernel, bias = self._kernel(cond, i)
            minus_gates.append(_minus_gated(location_variable_conv(hidden, kernel, bias, dilation=2**i)))
            hidden = _masked(hidden - minus_gates[-1], mask)
        return torch.cat(minus_gates, dim=-1)

    def _kernel(self, cond, layer: int) -> tuple[Tensor, Tensor]:
        return self.predictor.kernel(cond, layer) if isinstance(cond, Tensor) else cond[layer]

    def _fused_gates(self, x: Tensor, cond, mask: Tensor | None) -> Tensor | None:
        """Two kernels a layer on a GPU: one emits, one does the rest. None where they do not run."""
        hidden = _masked(self.start(x), mask).float()
        minus_gates = hidden.new_empty(*hidden.shape[:2], self.predictor.n_layers, hidden.shape[2])
        for i in range(self.predictor.n_layers):
            kernel, bias = self._kernel(cond, i)
            _check_shapes(hidden, kernel, bias, 2**i)
            try:
                hidden = _fused().gated_layer(hidden, kernel, bias, 2**i, mask, minus_gates[:, :, i])
            except Exception as error:
                return _fall_back(error)
        return minus_gates.flatten(2)

    def _gates_in_blocks(self, x: Tensor, features: Tensor, mask: Tensor | None) -> Tensor:
        """A block of frames after the other in the same few buffers: on a CPU, without gradients.

        Args:
            x: (B, L, io_channels).
            features: of the predictor, (B, F, P).
            mask: (B, L, 1) or None.
        """
        precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        taps, channels, out_channels = self.predictor.kernel_shape
        n_kernel = taps * channels * out_channels
        batch, length, _ = x.shape
        frames = features.shape[1]
        _check_steps(length, frames)
        hop = length // frames
        features = features.to(precision)
        # Whole examples while they are short, else frames of one.
        examples = max(1, BLOCK_FRAMES // frames)
        block = min(frames, BLOCK_FRAMES)
        rows = min(batch, examples) * block
        padding = 2 ** (len(self.predictor.emit) - 1) * (taps - 1) // 2
        padded = x.new_zeros(batch, length + 2 * padding, channels)
        hidden = padded[:, padding : padding + length]
        hidden.copy_(_masked(self.start(x), mask))
        minus_gates = x.new_empty(batch, length, len(self.predictor.emit), channels)
        values, windows, mixed = (
            x.new_empty(rows * n, dtype=precision)
            for n in (n_kernel + out_channels, hop * taps * channels, hop * out_channels)
        )
        # All layers see the blocks in the same places, so each view is made once.
        blocks = []
        for b in range(0, batch, examples):
            for f in range(0, frames, block):
                e, g = min(b + examples, batch), min(f + block, frames)
                n, steps = (e - b) * (g - f), (g - f) * hop
                emitted = values[: n * (n_kernel + out_channels)].view(n, -1)
                window = windows[: n * hop * taps * channels]
                out = mixed[: n * hop * out_channels]
                blocks.append(
                    _Block(
                        place=(slice(b, e), slice(f * hop, g * hop)),
                        features=features[b:e, f:g].reshape(n, -1),
                        emitted=emitted,
                        kernel=emitted[:, :n_kernel].view(n, -1, out_channels),
                        bias=emitted[:, None, n_kernel:],
                        taps=window.view(e - b, steps, taps, channels).unbind(2),
                        window=window.view(n, hop, -1),
                        out=out.view(n, hop, -1),
                        steps=out.view(e - b, steps, -1),
                    )
                )
        for i, emit in enumerate(self.predictor.emit):
            weight, bias = emit.weight.t().to(precision), emit.bias.to(precision)
            shifted = [padded[:, (start := padding + (k - taps // 2) * 2**i) : start + length] for k in range(taps)]
            gates = minus_gates[:, :, i]
            for block in blocks:
                torch.addmm(bias, block.features, weight, beta=self.predictor.scale, out=block.emitted)
                for tap, signal in zip(block.taps, shifted, strict=True):
                    tap.copy_(signal[block.place])
                torch.baddbmm(block.bias, block.window, block.kernel, out=block.out)
                _minus_gated(block.steps, out=gates[block.place])
            hidden.sub_(_masked(gates, mask))
        return minus_gates.flatten(2)


def _without_gradients() -> bool:
    """Whether kernels are emitted where they are used: without gradients, outside of a trace."""
    return not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _minus_gated(x: Tensor, out: Tensor | None = None) -> Tensor:
    """(..., 2C) -> (..., C): -tanh(a) * sigmoid(2b), where ``x`` is 2a beside 2b; with ``out``, ``x`` is used up.

    By tanh(a) = 2 sigmoid(2a) - 1: one sigmoid over both halves, which took a sixth of a tanh's time.
    """
    x = x.float() if x.dtype.itemsize < 4 else x
    filtered, gate = (x.sigmoid() if out is None else x.sigmoid_()).chunk(2, dim=-1)
    return torch.addcmul(gate, filtered, gate, value=-2, out=out)


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
