import math

import pytest
import torch
from conftest import stir
from torch import nn

from melglow_plugin.model.flow import AffineCoupling, InvertibleConv1x1, squeeze, unsqueeze
from melglow_plugin.model.lvc_net import LVCNet
from melglow_plugin.model.wavenet import WN

STEPS = {
    "conv1x1": lambda: InvertibleConv1x1(4),
    "lvc": lambda: AffineCoupling(LVCNet(2, n_mels=3, channels=4, n_layers=2, predictor_channels=6)),
    "wn": lambda: AffineCoupling(WN(2, n_mels=3, channels=4, n_layers=2)),
}


@pytest.fixture(params=STEPS)
def step(request):
    return stir(STEPS[request.param]()).double()


@pytest.fixture
def x():
    return torch.randn(2, 6, 4, dtype=torch.float64)


@pytest.fixture
def mel():
    return torch.randn(2, 3, 3, dtype=torch.float64)


def log_abs_det(function, value):
    """log abs det of the Jacobian of ``function`` at ``value``, by autograd."""
    jacobian = torch.autograd.functional.jacobian(function, value, vectorize=True)
    return torch.linalg.slogdet(jacobian.reshape(value.numel(), value.numel())).logabsdet


# Invertibility


def test_step_undoes_itself(step, x, mel):
    assert not torch.allclose(step(x, mel)[0], x)
    torch.testing.assert_close(step.inverse(step(x, mel)[0], mel), x, rtol=0, atol=1e-9)
    torch.testing.assert_close(step(step.inverse(x, mel), mel)[0], x, rtol=0, atol=1e-9)


def test_model_undoes_itself(model, wav, mel5):
    assert not torch.allclose(model(wav, mel5)[0], wav)
    torch.testing.assert_close(model.inverse(model(wav, mel5)[0], mel5), wav, rtol=0, atol=1e-9)
    torch.testing.assert_close(model(model.inverse(wav, mel5), mel5)[0], wav, rtol=0, atol=1e-9)


@pytest.fixture
def mel5():
    return torch.randn(2, 5, 3, dtype=torch.float64)


# The log-determinant


def test_log_det_is_the_jacobian(step, x, mel):
    expected = [log_abs_det(lambda v, i=i: step(v[None], mel[i : i + 1])[0], x[i]) for i in range(2)]
    torch.testing.assert_close(step(x, mel)[1], torch.stack(expected), rtol=0, atol=1e-9)


def test_log_det_of_the_model_is_the_jacobian(model, wav, mel5):
    expected = [log_abs_det(lambda v, i=i: model(v[None], mel5[i : i + 1])[0], wav[i]) for i in range(2)]
    assert abs(expected[0] - expected[1]) > 1e-3  # or the examples could be mixed up unseen
    torch.testing.assert_close(model(wav, mel5)[1], torch.stack(expected), rtol=0, atol=1e-9)


def test_log_det_counts_valid_steps_only(step, x, mel):
    mask = torch.ones(2, 6, 1, dtype=torch.float64)
    mask[1, 2:] = 0
    log_det = step(x, mel, mask, step.net.condition(mel, mask[:, ::2].mT) if hasattr(step, "net") else None)[1]
    torch.testing.assert_close(log_det[0], step(x[:1], mel[:1])[1][0], rtol=0, atol=1e-12)
    torch.testing.assert_close(log_det[1], step(x[1:, :2], mel[1:, :, :1])[1][0], rtol=0, atol=1e-12)


# The 1x1 convolution


def test_starts_as_a_rotation_in_row_order():
    weight = InvertibleConv1x1(6).weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(6))
    assert weight.is_contiguous()


def test_the_inverse_follows_a_weight_that_is_changed_without_notice(x):
    conv = InvertibleConv1x1(4).double()
    for change in (lambda w: w, lambda w: w.mul_(2), lambda w: w.copy_(torch.eye(4))):
        change(conv.weight.data)
        with torch.no_grad():
            torch.testing.assert_close(conv.inverse(conv(x)[0]), x, rtol=0, atol=1e-12)
    assert set(conv.state_dict()) == {"weight"}


# The affine coupling


class Constant(nn.Module):
    """A conditioner that says the same everywhere."""

    def __init__(self, log_s, t):
        super().__init__()
        self.log_s, self.t = log_s, t

    def forward(self, x, mel, mask=None, cond=None):
        return torch.full_like(x, self.log_s), torch.full_like(x, self.t)


def test_coupling_with_a_known_conditioner(x):
    bounded = 3 * math.tanh(0.5 / 3)
    z, log_det = AffineCoupling(Constant(0.5, 0.25), max_log_s=3.0)(x)
    torch.testing.assert_close(z[..., :2], x[..., :2], rtol=0, atol=0)
    torch.testing.assert_close(z[..., 2:], x[..., 2:] * math.exp(bounded) + 0.25, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_det, torch.full((2,), 6 * 2 * bounded).double(), rtol=0, atol=1e-6)


def test_small_log_s_passes_the_bound_unchanged(x):
    log_det = AffineCoupling(Constant(0.01, 0.0))(x)[1]
    torch.testing.assert_close(log_det, torch.full((2,), 12 * 0.01).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("log_s", [1e6, -1e6])
def test_log_s_is_bounded(x, log_s):
    coupling = AffineCoupling(Constant(log_s, 0.0), max_log_s=2.0)
    z, log_det = coupling(x)
    torch.testing.assert_close(z[..., 2:], x[..., 2:] * math.exp(math.copysign(2, log_s)), rtol=1e-9, atol=0)
    torch.testing.assert_close(log_det, torch.full((2,), math.copysign(24, log_s)).double(), rtol=1e-9, atol=0)
    torch.testing.assert_close(coupling.inverse(z), x, rtol=0, atol=1e-9)


# Squeeze


def test_squeeze_folds_neighbours_into_channels():
    wav = torch.arange(12.0).view(2, 6)
    assert squeeze(wav, 3).tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    assert unsqueeze(squeeze(wav, 3)).equal(wav)


def test_squeeze_refuses_a_rest():
    with pytest.raises(ValueError, match=r"7 .*\b3\b"):
        squeeze(torch.zeros(1, 7), 3)
