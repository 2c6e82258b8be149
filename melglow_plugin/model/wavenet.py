"""WaveGlow's conditioner: a non-causal WaveNet (Prenger et al., "WaveGlow", ICASSP 2019, arXiv:1811.00002)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melglow_plugin.model.convolution import Conv1d
from melglow_plugin.model.modules import MelNet


class WN(MelNet):
    """Gated dilated convolutions with fixed kernels; the mel is upsampled and added before every gate.

    The mel is projected at the frame rate and then interpolated linearly to the step rate: the two linear maps
    commute, and this order does the projection once a frame instead of once a step.

    Prenger et al., "WaveGlow", 2018, arXiv:1811.00002, section 2.2.

    Args:
        io_channels: channels of ``x``, and of each of the two outputs.
        n_mels: mel bins.
        channels: hidden channels.
        n_layers: layers; layer i has dilation 2**i.
        kernel_size: taps, odd.
    """

    def __init__(
        self, io_channels: int, n_mels: int = 80, channels: int = 64, n_layers: int = 8, kernel_size: int = 3
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} is even: no tap is the centre")
        self.reach_steps = (2**n_layers - 1) * (kernel_size - 1) // 2  # of x, on either side
        self.reach_frames = 2  # of the mel: one by convolution, one by interpolation
        self.mel_conv = Conv1d(n_mels, 2 * channels * n_layers, 3, padding=1)
        self.start = Conv1d(io_channels, channels, 1)
        self.filters = nn.ModuleList(
            Conv1d(channels, 2 * channels, kernel_size, dilation=2**i, padding=2**i * (kernel_size - 1) // 2)
            for i in range(n_layers)
        )
        # The last layer has no residual path, only a skip.
        self.mixers = nn.ModuleList(
            Conv1d(channels, channels if i == n_layers - 1 else 2 * channels, 1) for i in range(n_layers)
        )
        self.end = Conv1d(channels, 2 * io_channels, 1)
        for parameter in self.end.parameters():
            nn.init.zeros_(parameter)  # couplings start as the identity

    def condition(self, mel: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """All that this network needs of the mel, (B, layers * 2C, F); ``forward`` takes it as ``cond``."""
        if frame_mask is None:
            return self.mel_conv(mel)
        projected = self.mel_conv(mel * frame_mask) * frame_mask
        # Interpolation reads one frame ahead: behind the last frame it must find that frame again, as it does unpadded.
        last = frame_mask.sum(-1).long().clamp(min=1) - 1  # (B, 1)
        edge = projected.gather(-1, last[..., None].expand(-1, projected.shape[1], 1))
        return torch.where(frame_mask.bool(), projected, edge)

    def forward(self, x: Tensor, mel: Tensor, mask: Tensor | None = None, cond=None) -> tuple[Tensor, Tensor]:
        """Map ``x`` (B, L, io_channels) under ``mel`` (B, M, F) to log_s and t, each (B, L, io_channels).

        ``mask`` (B, L, 1) is 0 in padded steps, ``cond`` the result of :meth:`condition` (then ``mel`` is unused).
        """
        cond = self.condition(mel) if cond is None else cond
        mask = None if mask is None else mask.transpose(1, 2)
        conditions = _upsample(cond, x.shape[1]).chunk(len(self.filters), dim=1)
        hidden = self.start(x.transpose(1, 2))
        skips = 0
        for convolve, mix, condition in zip(self.filters, self.mixers, conditions, strict=True):
            hidden = hidden if mask is None else hidden * mask
            filtered, gate = (convolve(hidden) + condition).chunk(2, dim=1)
            mixed = mix(torch.tanh(filtered) * torch.sigmoid(gate))
            skips = skips + mixed[:, -hidden.shape[1] :]
            hidden = hidden + mixed[:, : hidden.shape[1]]
        log_s, t = self.end(skips).transpose(1, 2).chunk(2, dim=-1)
        return log_s, t


def _upsample(cond: Tensor, steps: int) -> Tensor:
    """(B, N, F) -> (B, N, L): frame f is reached at step f * H, its place in a centred mel; the last frame is held."""
    frames = cond.shape[-1]
    if steps % frames:
        raise ValueError(f"{steps} steps are no multiple of the mel's {frames} frames")
    following = F.pad(cond, (0, 1), mode="replicate")[..., 1:]
    ramp = torch.arange(steps // frames, device=cond.device, dtype=cond.dtype) * (frames / steps)
    return (cond[..., None] + (following - cond)[..., None] * ramp).flatten(2)
