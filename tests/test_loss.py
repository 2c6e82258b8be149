import math

import pytest
import torch
from torch.distributions import Normal, Uniform

from melglow_plugin.model.loss import MultiResolutionSTFT, bits_per_sample, flow_nll, nats_per_sample


@pytest.mark.parametrize("sigma", [0.5, 0.7, 1.0, 2.0])
def test_nll_is_that_of_the_normal_distribution(sigma):
    z, log_det = torch.randn(3, 40, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    prior = Normal(0, torch.tensor(sigma, dtype=torch.float64))
    expected = -(prior.log_prob(z).sum(1) + log_det) / 40
    torch.testing.assert_close(nats_per_sample(z, log_det, sigma), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(flow_nll(z, log_det, sigma), expected.mean(), rtol=0, atol=1e-12)


def test_nll_of_a_known_flow_is_that_of_the_transformed_distribution():
    # wav ~ N(0, 0.1^2) through z = 10 wav
    wav = 0.1 * torch.randn(2, 30, dtype=torch.float64)
    log_det = torch.full((2,), 30 * math.log(10), dtype=torch.float64)
    expected = -Normal(0, torch.tensor(0.1, dtype=torch.float64)).log_prob(wav).mean()
    torch.testing.assert_close(flow_nll(10 * wav, log_det), expected, rtol=0, atol=1e-12)


def test_noise_over_all_16_bit_values_takes_16_bits():
    uniform = Uniform(torch.tensor(-1.0), torch.tensor(1.0))
    assert bits_per_sample(uniform.entropy().item()) == pytest.approx(16, abs=1e-6)


def test_noise_over_eight_steps_takes_three_bits():
    uniform = Uniform(torch.tensor(0.0), torch.tensor(8 / 2**15))
    assert bits_per_sample(uniform.entropy()).item() == pytest.approx(3, abs=1e-5)


# Multi-resolution STFT distance


def test_stft_of_equal_signals_is_zero():
    wav = torch.randn(2, 4096)
    assert MultiResolutionSTFT()(wav, wav) == 0


def test_stft_is_spectral_convergence_plus_log_magnitude():
    generated, reference = torch.randn(2, 2, 300, dtype=torch.float64)

    def magnitude(wav, size):
        window = torch.hann_window(size).double()
        padded = torch.cat([wav[:, 1 : size // 2 + 1].flip(1), wav, wav[:, -size // 2 - 1 : -1].flip(1)], dim=1)
        return torch.fft.rfft(padded.unfold(1, size, size // 4) * window).abs().clamp(min=1e-7**0.5)

    expected = 0
    for size in (64, 32):
        a, b = magnitude(generated, size), magnitude(reference, size)
        expected += ((b - a).square().sum().sqrt() / b.square().sum().sqrt() + (a.log() - b.log()).abs().mean()) / 2
    torch.testing.assert_close(MultiResolutionSTFT((64, 32))(generated, reference), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("generated_level, reference_level", [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)])
def test_stft_of_silence_has_a_finite_gradient(generated_level, reference_level):
    generated = (generated_level * torch.randn(2, 400)).requires_grad_()
    distance = MultiResolutionSTFT((64, 32))(generated, reference_level * torch.randn(2, 400))
    distance.backward()
    assert distance.isfinite() and generated.grad.isfinite().all()


def test_stft_says_how_short_is_too_short():
    stft = MultiResolutionSTFT((64, 32))
    with pytest.raises(ValueError, match=r"32 .*\b64\b"):
        stft(torch.zeros(1, 32), torch.zeros(1, 32))
    assert stft(torch.randn(1, 33), torch.randn(1, 33)).isfinite()


def test_stft_leaves_no_windows_in_a_checkpoint():
    assert not MultiResolutionSTFT().state_dict()
