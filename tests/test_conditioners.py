"""The conditioners of a coupling, LVCNet and WN: what both promise, then each one's own definition."""

import pytest
import torch
from conftest import stir
from torch.nn import functional as F

from melglow_plugin.model import lvc_net
from melglow_plugin.model.lvc import location_variable_conv
from melglow_plugin.model.lvc_net import LVCNet
from melglow_plugin.model.wavenet import WN, _upsample

SIZES = {"n_mels": 5, "channels": 4, "n_layers": 3}


def of(kind):
    """A test of one conditioner alone."""
    return pytest.mark.parametrize("kind", [kind])


@pytest.fixture(params=[LVCNet, WN])
def kind(request):
    return request.param


@pytest.fixture
def net(kind):
    return stir(kind(2, **SIZES)).double()


@pytest.fixture
def x():
    return torch.randn(2, 12, 2, dtype=torch.float64)


@pytest.fixture
def mel():
    return torch.randn(2, 5, 4, dtype=torch.float64)


def test_it_gives_log_s_and_t_for_every_channel(net, x, mel):
    assert [out.shape for out in net(x, mel)] == [x.shape, x.shape]


def test_it_starts_as_the_identity_coupling(kind):
    log_s, t = kind(2, **SIZES)(torch.randn(1, 8, 2), torch.randn(1, 5, 2))
    assert not log_s.any() and not t.any()


def test_every_parameter_gets_a_gradient(net, x, mel):
    sum(out.square().sum() for out in net(x, mel)).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_condition_can_be_used_again(net, x, mel):
    cond = net.condition(mel)
    for _ in range(2):
        torch.testing.assert_close(net(x, None, cond=cond), net(x, mel), rtol=0, atol=0)


def test_padded_steps_change_nothing(net, x, mel):
    mask = (torch.arange(12) < 6).double().view(1, 12, 1).expand(2, -1, -1)
    cond = net.condition(mel, mask[:, ::3].transpose(1, 2))  # one of 3 steps: (B, 1, F)
    for padded, alone in zip(net(x, None, mask, cond), net(x[:, :6], mel[..., :2]), strict=True):
        torch.testing.assert_close(padded[:, :6], alone, rtol=0, atol=1e-12)


def test_an_even_kernel_is_refused(kind):
    with pytest.raises(ValueError, match="kernel_size 4"):
        kind(2, kernel_size=4)


# LVCNet


@of(LVCNet)
def test_lvcnet_is_gated_dilated_and_residual(net, x, mel):
    hidden, gates = net.start(x), []
    for i, (kernel, bias) in enumerate(net.condition(mel)):
        filtered, gate = location_variable_conv(hidden, kernel, bias, 2**i).chunk(2, dim=-1)
        gates.append(torch.tanh(filtered / 2) * torch.sigmoid(gate))
        hidden = hidden + gates[-1]
    expected = net.end(torch.cat(gates, dim=-1))
    torch.testing.assert_close(torch.cat(net(x, mel), dim=-1), expected, rtol=0, atol=1e-9)


@of(LVCNet)
@pytest.mark.parametrize("block", [1, 3, 4, 5, 1000])
@pytest.mark.parametrize("padded", [False, True])
def test_without_gradients_blocks_of_frames_give_the_same(net, x, mel, block, padded, monkeypatch):
    monkeypatch.setattr(lvc_net, "BLOCK_FRAMES", block)
    mask = (torch.arange(12) < torch.tensor([[6], [12]])).double()[..., None] if padded else None
    frame_mask = None if mask is None else mask[:, ::3].transpose(1, 2)
    expected = net(x, None, mask, net.condition(mel, frame_mask))
    with torch.no_grad():
        cond = net.condition(mel, frame_mask)
        found = net(x, None, mask, cond)
    assert isinstance(cond, torch.Tensor)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    # What was prepared without gradients also serves a call with them.
    torch.testing.assert_close(net(x, None, mask, cond), expected, rtol=0, atol=1e-12)


@of(LVCNet)
@pytest.mark.parametrize("frames", [5, 7])
def test_blocks_refuse_steps_that_do_not_fit_the_frames(net, x, frames):
    with torch.no_grad(), pytest.raises(ValueError, match=f"12 steps.*{frames} frames"):
        net(x, torch.randn(2, 5, frames, dtype=torch.float64))


# WN


@of(WN)
def test_wn_is_gated_dilated_and_residual(net, x, mel):
    conditions = _upsample(net.mel_conv(mel), 12).chunk(3, dim=1)
    hidden, skips = net.start(x.mT), 0
    for i, (convolve, mix) in enumerate(zip(net.filters, net.mixers, strict=True)):
        gates = F.conv1d(hidden, convolve.weight, convolve.bias, dilation=2**i, padding=2**i) + conditions[i]
        mixed = mix(torch.tanh(gates[:, :4]) * torch.sigmoid(gates[:, 4:]))
        skips = skips + mixed[:, -4:]
        hidden = hidden + mixed[:, :4]
    expected = net.end(skips).mT
    torch.testing.assert_close(torch.cat(net(x, mel), dim=-1), expected, rtol=0, atol=1e-9)


def test_wns_condition_is_interpolated_from_frame_to_frame_and_held_at_the_end():
    cond = torch.tensor([[[0.0, 4.0, 8.0], [1.0, 1.0, -1.0]]])
    expected = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8], [1, 1, 1, 1, 1, 0.5, 0, -0.5, -1, -1, -1, -1]]
    assert _upsample(cond, 12).tolist() == [expected]


def test_wn_holds_one_frame():
    assert _upsample(torch.tensor([[[3.0]]]), 4).tolist() == [[[3, 3, 3, 3]]]


@of(WN)
def test_wn_refuses_steps_that_do_not_fit_the_frames(net, mel):
    with pytest.raises(ValueError, match=r"13 .* 4"):
        net(torch.zeros(2, 13, 2, dtype=torch.float64), mel)
