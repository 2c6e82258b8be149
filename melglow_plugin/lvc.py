"""Location-variable convolution: one kernel per mel frame (Zeng et al., "MelGlow", SLT 2021, arXiv:2012.01684)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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

    Raises:
        ValueError: L is not a multiple of F, K is even, or batch or channels of the arguments disagree.
    """
    batch, frames, taps, channels, out_channels = kernel.shape
    length = x.shape[1]
    _check_shapes(x, kernel, bias, dilation)
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


def _check_shapes(x: Tensor, kernel: Tensor, bias: Tensor | None, dilation: int) -> None:
    batch, frames, taps, channels, out_channels = kernel.shape
    if frames == 0 or x.shape[1] % frames:
        raise ValueError(f"x has {x.shape[1]} steps, no multiple of the kernel's {frames} frames")
    if taps % 2 == 0:
        raise ValueError(
            f"kernel has an even number of taps, {taps}: no tap is the centre (use {taps - 1} or {taps + 1})"
        )
    if dilation < 1:
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
        self.scale = 1 / math.sqrt(kernel_size * in_channels)
        for emit in self.emit:
            # The bias is an ordinary convolution's first weights; the mel starts by varying them about as much.
            nn.init.normal_(emit.weight, std=1 / math.sqrt(3 * predictor_channels))
            nn.init.uniform_(emit.bias, -1, 1)

    def forward(self, mel: Tensor, mask: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """Predict from ``mel`` (B, M, F); ``mask`` (B, 1, F) is 0 in padded frames.

        Returns:
            Per layer, kernel (B, F, K, C, D) and bias (B, F, D), frame-major as the convolution reads them.
        """
        hidden = F.leaky_relu(self.read(_masked(mel, mask)), 0.1)
        for conv in self.body:
            hidden = hidden + F.leaky_relu(conv(_masked(hidden, mask)), 0.1)
        hidden = hidden.transpose(1, 2) * self.scale  # scaling the small side is the same and costs nothing
        values = [F.linear(hidden, e.weight, e.bias * self.scale) for e in self.emit]  # each (B, F, K * C * D + D)
        n_kernel = math.prod(self.kernel_shape)
        return [(v[..., :n_kernel].unflatten(-1, self.kernel_shape), v[..., n_kernel:]) for v in values]


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
        self.reach_steps = (2**n_layers - 1) * (kernel_size - 1) // 2  # of x, on either side
        self.reach_frames = 2 + predictor_layers  # of the mel, on either side
        self.start = nn.Linear(io_channels, channels)
        self.end = nn.Linear(n_layers * channels, 2 * io_channels)
        nn.init.zeros_(self.end.weight)  # couplings start as the identity
        nn.init.zeros_(self.end.bias)

    def condition(self, mel: Tensor, frame_mask: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """All that this network needs of the mel; ``forward`` takes it as ``cond`` to use it more than once."""
        return self.predictor(mel, frame_mask)

    def forward(self, x: Tensor, mel: Tensor | None, mask: Tensor | None = None, cond=None) -> tuple[Tensor, Tensor]:
        """Map ``x`` (B, L, io_channels) under ``mel`` (B, M, F) to log_s and t, each (B, L, io_channels).

        ``mask`` (B, L, 1) is 0 in padded steps, ``cond`` the result of :meth:`condition` (then ``mel`` is unused).
        """
        cond = self.condition(mel) if cond is None else cond
        hidden = _masked(self.start(x), mask)
        gates = []
        for i, (kernel, bias) in enumerate(cond):
            filtered, gate = location_variable_conv(hidden, kernel, bias, dilation=2**i).tanh().chunk(2, dim=-1)
            # sigmoid(2g) = (1 + tanh(g)) / 2: one tanh over both halves, and the predicted kernel absorbs the 2.
            gates.append(torch.addcmul(filtered, filtered, gate) * 0.5)
            hidden = _masked(hidden + gates[-1], mask)
        log_s, t = self.end(torch.cat(gates, dim=-1)).chunk(2, dim=-1)
        return log_s, t


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
