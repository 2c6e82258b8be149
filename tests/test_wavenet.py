import pytest
import torch
from conftest import stir
from torch.nn import functional as F

from melglow_plugin.model.wavenet import WN, _upsample


@pytest.fixture
def net():
    return stir(WN(2, n_mels=5, channels=4, n_layers=3)).double()


@pytest.fixture
def x():
    return torch.randn(2, 12, 2, dtype=torch.float64)


@pytest.fixture
def mel():
    return torch.randn(2, 5, 4, dtype=torch.float64)


def test_gives_log_s_and_t_for_every_channel(net, x, mel):
    assert [out.shape for out in net(x, mel)] == [x.shape, x.shape]


def test_is_gated_dilated_and_residual(net, x, mel):
    conditions = _upsample(net.mel_conv(mel), 12).chunk(3, dim=1)
    hidden, skips = net.start(x.mT), 0
    for i, (convolve, mix) in enumerate(zip(net.filters, net.mixers, strict=True)):
        gates = F.conv1d(hidden, convolve.weight, convolve.bias, dilation=2**i, padding=2**i) + conditions[i]
        mixed = mix(torch.tanh(gates[:, :4]) * torch.sigmoid(gates[:, 4:]))
        skips = skips + mixed[:, -4:]
        hidden = hidden + mixed[:, :4]
    expected = net.end(skips).mT
    torch.testing.assert_close(torch.cat(net(x, mel), dim=-1), expected, rtol=0, atol=1e-9)


def test_condition_is_interpolated_from_frame_to_frame_and_held_at_the_end():
    cond = torch.tensor([[[0.0, 4.0, 8.0], [1.0, 1.0, -1.0]]])
    expected = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8], [1, 1, 1, 1, 1, 0.5, 0, -0.5, -1, -1, -1, -1]]
    assert _upsample(cond, 12).tolist() == [expected]


def test_one_frame_is_held():
    assert _upsample(torch.tensor([[[3.0]]]), 4).tolist() == [[[3, 3, 3, 3]]]


def test_steps_that_do_not_fit_the_frames_are_refused(net, mel):
    with pytest.raises(ValueError, match=r"13 .* 4"):
        net(torch.zeros(2, 13, 2, dtype=torch.float64), mel)


def test_padded_steps_change_nothing(net, x, mel):
    mask = (torch.arange(12) < 6).double().view(1, 12, 1).expand(2, -1, -1)
    cond = net.condition(mel, mask[:, ::3].transpose(1, 2))  # one of 3 steps: (B, 1, F)
    for padded, alone in zip(net(x, None, mask, cond), net(x[:, :6], mel[..., :2]), strict=True):
        torch.testing.assert_close(padded[:, :6], alone, rtol=0, atol=1e-12)


def test_a_condition_can_be_used_again(net, x, mel):
    torch.testing.assert_close(net(x, None, cond=net.condition(mel)), net(x, mel), rtol=0, atol=0)


def test_starts_as_the_identity_coupling():
    log_s, t = WN(2, n_mels=5)(torch.randn(1, 8, 2), torch.randn(1, 5, 2))
    assert not log_s.any() and not t.any()


def test_every_parameter_gets_a_gradient(net, x, mel):
    sum(out.square().sum() for out in net(x, mel)).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel_size 4"):
        WN(2, kernel_size=4)
