"""Linear prediction from the mel: the spectral envelope leaves the audio before the couplings and comes back."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Prediction(NamedTuple):
    """The filter of each frame, computed from its mel, in float64."""

    coefficients: Tensor  # of the samples before, nearest first: (B, F, order)
    log_gain: Tensor  # of the residual, (B, F) in nats
    start: Tensor  # the first ``order`` residuals are this lower triangle times their samples, (B, order, order)
    log_det: Tensor  # (B,) in nats


class NoPrediction(nn.Module):
    """The step of order 0: the audio stays as it is."""

    reach_frames = 0

    def set_bands(self, log_power: Tensor, spectra: Tensor) -> None:
        """There is nothing to keep."""

    def condition(self, mel: Tensor, frame_mask: Tensor | None = None) -> None:
        """Nothing of the mel is needed."""

    def forward(
        self, x: Tensor, mel: Tensor | None = None, mask: Tensor | None = None, cond=None
    ) -> tuple[Tensor, float]:
        """``x`` (B, T) and a log_det of 0."""
        return x, 0.0

    def inverse(self, z: Tensor, mel: Tensor | None = None, mask: Tensor | None = None, cond=None) -> Tensor:
        """``z`` (B, T)."""
        return z


class LinearPrediction(nn.Module):
    """Divide the audio by the envelope that the mel describes, a filter for each frame; log_det is its gain alone.

    ``e[t] = gain * (x[t] - sum_k a[k] * x[t - k])``, with a and gain of the frame t // hop_length. The mel's bands give
    the autocorrelation, the Levinson-Durbin recursion the filter and its prediction error. The inverse is the
    all-pole filter of speech coding, computed a block of samples at a time. Nothing of it is learned.

    The first samples have fewer predecessors, so they use the filters of lower orders from the recursion: a crop may
    begin within a vowel.

    Valin and Skoglund, "LPCNet", ICASSP 2019, arXiv:1810.11846, predict so from cepstra; Koizumi et al.,
    "SpecGrad", Interspeech 2022, arXiv:2203.16749, shape a prior by the mel's envelope.

    Args:
        n_mels: mel bins.
        hop_length: samples per mel frame.
        order: samples that a sample is predicted from.

    Until :meth:`set_bands` it predicts nothing.
    """

    log_power: Tensor  # (M,) nats of a band's power for one unit of the mel
    band_autocorrelations: Tensor  # (order + 1, M) of each band's unit power

    # Other values of these constants would invalidate every trained model.
    WIDENING = 0.985  # factor of every pole: of a sample, 4e-14 is left after MEMORY
    MEMORY = 2048  # samples
    LAG_WINDOW = 0.006  # rad per sample, 20 Hz at 22,050: harmonics are no envelope
    WHITE_NOISE = 1e-4  # of the power, so that no band is taken for empty
    QUANTISATION = 2.0**-30 / 12  # power of the rounding to 16 bits, below which there is no speech
    MAX_NATS = 200.0  # bound of abs(log power), beyond any real mel, so that every result is finite
    MAX_BLOCK = 32  # samples

    def __init__(self, n_mels: int, hop_length: int, order: int) -> None:
        super().__init__()
        divisors = [n for n in range(order, hop_length + 1) if hop_length % n == 0]
        if not divisors:
            raise ValueError(f"lpc_order {order} is above hop_length {hop_length}")
        self.order, self.hop_length = order, hop_length
        self.block = max([n for n in divisors if n <= self.MAX_BLOCK], default=divisors[0])
        self.reach_frames = math.ceil(self.MEMORY / hop_length)  # into the past
        # Like the mel's statistics, these belong to the weights.
        self.register_buffer("log_power", torch.zeros(n_mels))
        self.register_buffer("band_autocorrelations", torch.zeros(order + 1, n_mels))

    def set_bands(self, log_power: Tensor, spectra: Tensor) -> None:
        """Set the power spectrum that each mel bin stands for.

        Args:
            log_power: (M,) nats of power for one unit of a bin.
            spectra: (M, n_fft / 2 + 1) power spectrum, mean square per sample, that a bin of value 0 stands for; the
                sum over all bins is the audio's spectrum.
        """
        lags = torch.arange(self.order + 1, dtype=torch.float64)
        window = (-0.5 * (self.LAG_WINDOW * lags).square()).exp()
        window[0] += self.WHITE_NOISE
        self.band_autocorrelations.copy_(torch.fft.irfft(spectra.double())[:, : self.order + 1].mT * window[:, None])
        self.log_power.copy_(log_power)

    def condition(self, mel: Tensor, frame_mask: Tensor | None = None) -> Prediction:
        """Each frame's filter for ``mel`` (B, M, F) as extracted; ``frame_mask`` (B, 1, F) is 0 in padded frames."""
        with torch.autocast(mel.device.type, enabled=False):
            nats = (mel.double() * self.log_power.double()[:, None]).clamp(-self.MAX_NATS, self.MAX_NATS)
            return self._levinson(
                torch.einsum("km,bmf->kbf", self.band_autocorrelations.double(), nats.exp()), frame_mask
            )

    def _levinson(self, r: Tensor, frame_mask: Tensor | None) -> Prediction:
        """Filters of autocorrelations (order + 1, B, F)."""
        error = r[0] + self.QUANTISATION
        a, firsts, errors = r[:0], [], []
        backwards = r.flip(0)
        for i in range(1, self.order + 1):
            firsts.append(a[:, :, 0])
            errors.append(error[:, 0])
            unexplained = r[i] - (a * backwards[-i:-1]).sum(0)
            reflection = unexplained / error
            a = torch.cat([torch.addcmul(a, a.flip(0), reflection, value=-1), reflection[None]])
            error = torch.addcmul(error, unexplained, reflection, value=-1)
        widening = self.WIDENING ** torch.arange(self.order + 1, dtype=a.dtype, device=a.device)
        row, column = torch.tril_indices(self.order, self.order, -1, device=a.device)
        lower = -torch.cat(firsts) * widening[column + 1, None]  # row by row, the nearest sample first
        rows = torch.eye(self.order, dtype=a.dtype, device=a.device).repeat(a.shape[1], 1, 1)
        rows[:, row, row - 1 - column] = lower.mT
        start = rows / torch.stack(errors, 1)[..., None].sqrt()
        coefficients, log_gain = (a * widening[1:, None, None]).movedim(0, -1), -0.5 * error.log()
        at_start = start.diagonal(dim1=1, dim2=2).log() - log_gain[:, :1]
        within = log_gain if frame_mask is None else log_gain * frame_mask[:, 0]
        return Prediction(coefficients, log_gain, start, self.hop_length * within.sum(1) + at_start.sum(1))

    def forward(
        self, x: Tensor, mel: Tensor, mask: Tensor | None = None, cond: Prediction | None = None
    ) -> tuple[Tensor, Tensor]:
        """``x`` (B, T) -> residual (B, T), of its dtype, and log_det (B,) in nats; ``cond`` of :meth:`condition`."""
        a, log_gain, start, log_det = self.condition(mel) if cond is None else cond
        wav, x = x, x.double()  # the residual is a small difference of large samples
        past = F.pad(x, (self.order, 0)).unfold(1, self.order + 1, 1).unflatten(1, (-1, self.hop_length))
        taps = torch.cat([-a.flip(-1), torch.ones_like(a[..., :1])], dim=-1) * log_gain.exp()[..., None]
        residual = (past @ taps[..., None]).flatten(1)
        first = (start @ x[:, : self.order, None])[..., 0]
        residual = torch.cat([first, residual[:, self.order :]], dim=1)
        return residual.to(wav.dtype), log_det.to(wav.dtype)

    def inverse(self, z: Tensor, mel: Tensor, mask: Tensor | None = None, cond: Prediction | None = None) -> Tensor:
        """Residual ``z`` (B, T) -> wav (B, T), of its dtype: the exact inverse of :meth:`forward`.

        A block is its zero-state response plus the contribution of the ``order`` samples before it. A first pass
        computes all frames from a state of zeros, then the state at the end of each frame is propagated, then a second
        pass starts each frame from its state.
        """
        a, log_gain, start, _ = self.condition(mel) if cond is None else cond
        # Coefficients of the ``order`` samples before a block, and of the samples within it, for each sample of the
        # block; all frames of all examples in one row.
        padded = F.pad(a.flatten(0, 1), (self.block, self.block - 1))
        before, within = _toeplitz(padded, self.block).split([self.order, self.block], -1)
        own = self._own(within)
        # Samples are rows, multiplied from the left: on a CPU that takes a third of the time.
        carry = before.mT @ own.mT  # (B * F, order, block)
        e = z.double()
        drive = (e.unflatten(1, (-1, self.hop_length)) * (-log_gain).exp()[..., None]).flatten(1)
        # The excitation that gives the first samples of ``start`` when it passes the first frame's filter.
        first = _triangle_inverse(start) @ e[:, : self.order, None]
        first = first - within.unflatten(0, a.shape[:2])[:, 0, : self.order, : self.order] @ first
        drive = torch.cat([first[..., 0], drive[:, self.order :]], dim=1)
        blocks = drive.view(-1, self.hop_length // self.block, self.block) @ own.mT  # each from a state of zeros
        left = self._pass(blocks, carry, torch.zeros_like(carry[:, None, :, 0]))[-1][..., -self.order :]
        handed_on = torch.linalg.matrix_power(carry[..., -self.order :], blocks.shape[1])
        has_past = torch.ones_like(log_gain)
        has_past[:, 0] = 0
        has_past = has_past.view(-1, 1, 1)
        handed_on, before = handed_on * has_past, left
        for _ in range(1, self.reach_frames):
            before = torch.baddbmm(left, before.roll(1, 0), handed_on)
        passed = self._pass(blocks, carry, before.roll(1, 0) * has_past)
        return torch.cat(passed, dim=1).view(z.shape).to(z.dtype)

    def _own(self, within: Tensor) -> Tensor:
        """The zero-state response of a block, (1 - within)^-1: its columns are the impulse response, each one later.

        Each turn doubles the length: the second half is the response to the first. A sum of powers of ``within`` would
        be the same in exact arithmetic, and loses all digits in float64.
        """
        response = torch.ones_like(within[..., 0, :1])
        while (n := response.shape[-1]) < self.block:
            left = within[..., n : 2 * n, :n] @ response[..., None]
            more = _triangle(response)[..., : left.shape[-2], : left.shape[-2]] @ left
            response = torch.cat([response, more[..., 0]], dim=-1)
        return _triangle(response)

    def _pass(self, blocks: Tensor, carry: Tensor, before: Tensor) -> list[Tensor]:
        """Filter each frame's ``blocks`` (B * F, n, block), one by one, from the state ``before`` (B * F, 1, order)."""
        passed = []
        for block in blocks.split(1, dim=1):
            passed.append(torch.baddbmm(block, before, carry))
            before = passed[-1][..., -self.order :]
        return passed


def _toeplitz(x: Tensor, rows: int) -> Tensor:
    """(..., rows + columns - 1) -> (..., rows, columns): each row of x's windows backwards, one later than the last."""
    return x.unfold(-1, x.shape[-1] - rows + 1, 1).flip(-1)


def _triangle(response: Tensor) -> Tensor:
    """The lower triangle (..., n, n) of convolution with ``response`` (..., n)."""
    n = response.shape[-1]
    return _toeplitz(F.pad(response, (n - 1, 0)), n)


def _triangle_inverse(x: Tensor) -> Tensor:
    """The inverse of a lower triangle (..., n, n): Newton's iteration, with twice as many diagonals in each turn."""
    n = x.shape[-1]
    eye = torch.eye(n, dtype=x.dtype, device=x.device)
    inverse, diagonals = eye / x.diagonal(dim1=-2, dim2=-1)[..., None], 1
    while diagonals < n:
        diagonals *= 2
        # Beyond its diagonals an estimate holds large wrong values, which would lose all digits.
        inverse = (inverse @ (2 * eye - x @ inverse)).triu(1 - diagonals)
    return inverse
