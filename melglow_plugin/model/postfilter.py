"""Postfilter: what the spectrum of a model's sample has by chance is replaced by what is likely."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melglow_plugin.model.convolution import Conv2d

KERNEL, DILATIONS = 3, (1, 2)  # in frames and in bins of the STFT
LARGEST_CHANGE = 3.0  # nats
SLOPE = 0.1  # of the activation, below 0


class Postfilter(nn.Module):
    """Log magnitudes of a sample's STFT -> what to add to them, by convolutions over frames and bins.

    A sample of a model has chance in its spectrum, between harmonics and from frame to frame: the mean of the log
    magnitudes of several samples scores better than one of them. This network is trained to give the recording's log
    magnitudes, and of what is chance in those it can give but the mean (:mod:`melglow_plugin.training.postfilter`).

    Untrained it changes nothing. Its parameters need no gradients: the trainer of a model leaves them as they are.

    Args:
        channels: hidden.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        sizes = [2] + [channels] * len(DILATIONS)
        self.convs = nn.ModuleList(
            Conv2d(given, channels, KERNEL, dilation=dilation, padding=dilation * (KERNEL // 2))
            for given, dilation in zip(sizes[:-1], DILATIONS, strict=True)
        )
        self.output = Conv2d(channels, 1, (1, KERNEL), padding=(0, KERNEL // 2))
        for parameter in self.output.parameters():
            nn.init.zeros_(parameter)
        self.to(memory_format=torch.channels_last)  # on CPUs a third of the time
        self.requires_grad_(False)

    @property
    def reach(self) -> int:
        """Frames of the STFT on either side of one that can change it."""
        return sum(DILATIONS) * (KERNEL // 2)

    def forward(self, log_magnitude: Tensor, envelope: Tensor) -> Tensor:
        """(B, N, K) of ``log_magnitude`` (B, N, K) and the mel's own log spectrum ``envelope`` (B, N, K), in nats."""
        hidden = torch.stack([log_magnitude - envelope, envelope / 4 + 0.75], 1)
        for conv in self.convs:
            hidden = F.leaky_relu(conv(hidden), SLOPE, inplace=True)
        return self.output(hidden)[:, 0].clamp(-LARGEST_CHANGE, LARGEST_CHANGE)
