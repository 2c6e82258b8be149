"""Terms of the training loss: the exact likelihood, and spectral distances of a sample from the inverse flow."""

import math

import torch
from torch import Tensor, nn

PCM16_BITS = 15  # log2 of the 16-bit steps in one unit of a wav in [-1, 1]


def flow_nll(z: Tensor, log_det: Tensor, sigma: float = 1.0) -> Tensor:
    """Mean negative log-likelihood in nats per sample under N(0, sigma^2), with the constant.

    Prenger et al., "WaveGlow", 2018, arXiv:1811.00002, equation 3 (which leaves the constant out).

    Args:
        z: latent, (B, T).
        log_det: log abs det dz/dwav, (B,) in nats.
        sigma: standard deviation of the prior.

    Returns:
        A scalar, ``-(Normal(0, sigma).log_prob(z).sum(1) + log_det).mean() / T``.
    """
    return nats_per_sample(z, log_det, sigma).mean()


def nats_per_sample(z: Tensor, log_det: Tensor, sigma: float = 1.0) -> Tensor:
    """The negative log-likelihood of each example, (B,) nats per sample; arguments as in :func:`flow_nll`."""
    quadratic = z.square().mean(1) / (2 * sigma**2)
    return quadratic - log_det / z.shape[1] + 0.5 * math.log(2 * math.pi) + math.log(sigma)


def bits_per_sample(nats: Tensor | float) -> Tensor | float:
    """Nats per sample of a wav in [-1, 1] as the bits that coding one 16-bit sample would take."""
    return nats / math.log(2) + PCM16_BITS


class MultiResolutionSTFT(nn.Module):
    """Spectral convergence plus log-magnitude L1, averaged over several windows.

    Yamamoto et al., "Parallel WaveGAN", 2019, arXiv:1910.11480, equations 4 to 6.

    Args:
        windows: window and FFT sizes in samples; the hop is a quarter of each.
    """

    def __init__(self, windows: tuple[int, ...] = (2048, 1024, 512, 256)) -> None:
        super().__init__()
        self.windows = tuple(windows)

    def forward(self, generated: Tensor, reference: Tensor) -> Tensor:
        """Distance of two (B, T) signals, a scalar; T is more than half the longest window."""
        if generated.shape[-1] <= max(self.windows) // 2:
            raise ValueError(f"{generated.shape[-1]} samples are too few for an STFT window of {max(self.windows)}")
        return torch.stack([self._distance(generated, reference, size) for size in self.windows]).mean()

    def _distance(self, generated: Tensor, reference: Tensor, size: int) -> Tensor:
        generated, reference = self._magnitude(generated, size), self._magnitude(reference, size)
        convergence = torch.linalg.vector_norm(reference - generated) / torch.linalg.vector_norm(reference)
        return convergence + (reference.log() - generated.log()).abs().mean()

    def _magnitude(self, wav: Tensor, size: int) -> Tensor:
        window = torch.hann_window(size, device=wav.device).to(wav.dtype)
        spectrum = torch.view_as_real(torch.stft(wav, size, size // 4, window=window, return_complex=True))
        return spectrum.square().sum(-1).clamp(min=1e-7).sqrt()  # the clamp keeps the gradient of sqrt finite
