"""The network that predicts the kernels of location-variable convolutions from the mel."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from melglow_plugin.model.convolution import Conv1d
from melglow_plugin.model.modules import ModulesOf


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
        self.input_conv = Conv1d(n_mels, predictor_channels, 5, padding=2)
        self.residual_convs = ModulesOf[Conv1d](
            Conv1d(predictor_channels, predictor_channels, 3, padding=1) for _ in range(predictor_layers)
        )
        # One matmul a layer: its gradient is then ready where it is needed, not gathered from all layers first.
        self.to_kernel = ModulesOf[nn.Linear](
            nn.Linear(predictor_channels, math.prod(self.kernel_shape) + out_channels) for _ in range(n_layers)
        )
        # Kernels are predicted at unit scale and divided by the root of their fan-in. Predicted at their own scale,
        # one step of Adam (lr 1e-3) would move them by 7 %: measured, training then diverges within 700 steps.
        # The 2 makes them ready for ``minus_gated``.
        self.scale = 2 / math.sqrt(kernel_size * in_channels)
        for layer in self.to_kernel:
            # The bias is an ordinary convolution's first weights; the mel starts by varying them about as much.
            nn.init.normal_(layer.weight, std=1 / math.sqrt(3 * predictor_channels))
            nn.init.uniform_(layer.bias, -1, 1)

    def forward(self, mel: Tensor, mask: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """Predict from ``mel`` (B, M, F); ``mask`` (B, 1, F) is 0 in padded frames.

        Returns:
            Per layer, kernel (B, F, K, C, D) and bias (B, F, D), frame-major as the convolution reads them.
        """
        return self.kernels(self.hidden(mel, mask))

    def hidden(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the last layer maps to the kernels of all layers, (B, F, predictor_channels), their scale included."""
        hidden = F.leaky_relu(self.input_conv(masked(mel, mask)), 0.1)
        for conv in self.residual_convs:
            hidden = hidden + F.leaky_relu(conv(masked(hidden, mask)), 0.1)
        return hidden.transpose(1, 2) * self.scale  # scaling the small side is the same and costs nothing

    def kernels(self, hidden: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Kernel (B, F, K, C, D) and bias (B, F, D) of each layer."""
        return [self.kernel(hidden, i) for i in range(self.n_layers)]

    def kernel(self, hidden: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Kernel (B, F, K, C, D) and bias (B, F, D) of one layer."""
        to_kernel, n_kernel = self.to_kernel[layer], math.prod(self.kernel_shape)
        values = F.linear(hidden, to_kernel.weight, to_kernel.bias * self.scale)  # (B, F, K * C * D + D)
        return values[..., :n_kernel].unflatten(-1, self.kernel_shape), values[..., n_kernel:]


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """``x``, and 0 where ``mask`` is 0; None masks nothing."""
    return x if mask is None else x * mask
