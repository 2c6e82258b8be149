"""The parts of a WaveGlow-like normalizing flow: squeeze, invertible 1x1 convolution, affine coupling.

Every step has two methods: ``z, log_det = step(x, mel)`` and back ``x = step.inverse(z, mel)``.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from melglow_plugin.model.modules import MelNet


def squeeze(wav: Tensor, factor: int) -> Tensor:
    """Fold samples into channels, (B, T) -> (B, L, S); ValueError where T is no multiple of ``factor``."""
    if wav.shape[-1] % factor:
        raise ValueError(f"wav has {wav.shape[-1]} samples, no multiple of squeeze_factor {factor}")
    return wav.reshape(wav.shape[0], -1, factor)


def unsqueeze(x: Tensor) -> Tensor:
    """Unfold channels into samples, (B, L, S) -> (B, T)."""
    return x.reshape(x.shape[0], -1)


class InvertibleConv1x1(nn.Module):
    """Mix the channels of each step by one square matrix.

    Kingma and Dhariwal, "Glow", 2018, arXiv:1807.03039, section 3.2. ``slogdet`` takes either sign of the determinant.
    ``cond``, where given, is the matrix's inverse and log abs det (:mod:`melglow_plugin.model.inverse`).
    """

    constant_inverse: Tensor | None  # of a matrix that does not learn any more, for graphs of operations

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Of 16 bits, which torch's default dtype may have, there is no QR. It returns column-major, which DDP buckets
        # reject.
        rotation = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float32)).Q
        self.weight = nn.Parameter(rotation.to(torch.get_default_dtype()).contiguous())
        self.register_buffer("constant_inverse", None)

    def forward(
        self, x: Tensor, mel: Tensor | None = None, mask: Tensor | None = None, cond=None
    ) -> tuple[Tensor, Tensor]:
        """``x`` (B, L, S) -> ``z`` (B, L, S) and log_det (B,) in nats; ``mel`` is not used."""
        with torch.autocast(x.device.type, enabled=False):
            weight = self._float_weight(x)
            log_det = torch.linalg.slogdet(weight).logabsdet if cond is None else cond[1]
            steps = x.shape[1] if mask is None else mask.sum((1, 2))  # that are no padding: L, or (B,)
            return x @ weight, (log_det * steps).expand(x.shape[0])

    def inverse(self, z: Tensor, mel: Tensor | None = None, mask: Tensor | None = None, cond=None) -> Tensor:
        """``z`` (B, L, S) -> ``x`` (B, L, S)."""
        with torch.autocast(z.device.type, enabled=False):
            inverse = self.constant_inverse if cond is None else cond[0]
            return z @ (self.inverted() if inverse is None else inverse).to(self._float_weight(z).dtype)

    def inverted(self) -> Tensor:
        """The inverse matrix, (S, S).

        In float64, so that the round trip has the error of its two products alone. Of 8 x 8 numbers it takes
        microseconds: a cache would save nothing and could be stale.
        """
        return torch.linalg.inv(self.weight.double())

    def _float_weight(self, like: Tensor) -> Tensor:
        return self.weight.to(torch.promote_types(self.weight.dtype, like.dtype))


class AffineCoupling(nn.Module):
    """Scale and shift the second half of the channels by what ``net`` reads from the first half and the mel.

    Dinh et al., "Density estimation using Real NVP", 2016, arXiv:1605.08803, section 3.2.

    Args:
        net: LVCNet, WN, or another network of these two outputs.
        max_log_s: bound of abs(log_s), approached softly: without it, a half-trained model gives values of 1e17.

    With ``recompute`` set, training keeps the net's inputs alone and runs it again for the gradients: less memory, more
    time.
    """

    def __init__(self, net: MelNet, max_log_s: float = 3.0) -> None:
        super().__init__()
        self.net = net
        self.max_log_s = max_log_s
        self.recompute = False

    def forward(
        self, x: Tensor, mel: Tensor | None = None, mask: Tensor | None = None, cond=None
    ) -> tuple[Tensor, Tensor]:
        """``x`` (B, L, C) under ``mel`` (B, M, F) -> ``z`` (B, L, C) and log_det (B,) in nats."""
        kept, moved = x.chunk(2, dim=-1)
        log_s, t = self._scale_and_shift(kept, mel, mask, cond)
        z = torch.cat([kept, moved * log_s.exp() + t], dim=-1)
        return z, (log_s if mask is None else log_s * mask).sum((1, 2))

    def inverse(self, z: Tensor, mel: Tensor | None = None, mask: Tensor | None = None, cond=None) -> Tensor:
        """``z`` (B, L, C) under ``mel`` (B, M, F) -> ``x`` (B, L, C)."""
        kept, moved = z.chunk(2, dim=-1)
        log_s, t = self._scale_and_shift(kept, mel, mask, cond)
        return torch.cat([kept, (moved - t) * (-log_s).exp()], dim=-1)

    def _scale_and_shift(self, kept: Tensor, mel: Tensor | None, mask: Tensor | None, cond) -> tuple[Tensor, Tensor]:
        if self.recompute and torch.is_grad_enabled():
            log_s, t = checkpoint(self.net, kept, mel, mask, cond, use_reentrant=False)
        else:
            log_s, t = self.net(kept, mel, mask, cond)
        # The net may run in bf16; the flow's own arithmetic never does.
        log_s, t = log_s.to(kept.dtype), t.to(kept.dtype)
        return self.max_log_s * torch.tanh(log_s / self.max_log_s), t
