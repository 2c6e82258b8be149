import pytest
import torch
from conftest import stir
from torch.nn import functional as F

from melglow_plugin.model.kernel_predictor import KernelPredictor
from melglow_plugin.model.lvc import location_variable_conv


def naive_conv(x, kernel, bias, dilation):
    """Frame by frame, step by step, tap by tap, as the definition reads."""
    frames, taps = kernel.shape[1:3]
    hop = x.shape[1] // frames
    out = bias.repeat_interleave(hop, dim=1).clone()
    for step in range(x.shape[1]):
        for k in range(taps):
            source = step + (k - taps // 2) * dilation
            if 0 <= source < x.shape[1]:
                out[:, step] += (x[:, source, None] @ kernel[:, step // hop, k])[:, 0]
    return out


def arguments(frames=4, hop=2, taps=3, channels=2, out_channels=3, batch=2):
    make = lambda *shape: torch.randn(*shape, dtype=torch.float64)  # noqa: E731
    kernel = make(batch, frames, taps, channels, out_channels)
    return make(batch, frames * hop, channels), kernel, make(batch, frames, out_channels)


@pytest.mark.parametrize("hop", [1, 2, 5])
@pytest.mark.parametrize("taps, dilation", [(1, 1), (1, 3), (3, 1), (3, 2), (3, 7), (5, 1), (5, 4), (5, 40)])
def test_equals_the_naive_loop(hop, taps, dilation):
    x, kernel, bias = arguments(hop=hop, taps=taps)
    expected = naive_conv(x, kernel, bias, dilation)
    torch.testing.assert_close(location_variable_conv(x, kernel, bias, dilation), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("channels, out_channels", [(1, 4), (4, 1), (3, 3)])
def test_equals_the_naive_loop_for_any_channels(channels, out_channels):
    x, kernel, bias = arguments(channels=channels, out_channels=out_channels)
    expected = naive_conv(x, kernel, bias, 3)
    torch.testing.assert_close(location_variable_conv(x, kernel, bias, 3), expected, rtol=0, atol=1e-9)


def test_no_bias_is_a_bias_of_zero():
    x, kernel, bias = arguments()
    expected = location_variable_conv(x, kernel, torch.zeros_like(bias), 2)
    torch.testing.assert_close(location_variable_conv(x, kernel, dilation=2), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("taps, dilation", [(1, 1), (3, 1), (3, 4), (5, 3)])
def test_equal_kernels_are_an_ordinary_convolution(taps, dilation):
    x, kernel, bias = arguments(frames=5, hop=3, taps=taps)
    kernel, bias = kernel[:1, :1].expand(2, 5, -1, -1, -1), bias[:1, :1].expand(2, 5, -1)
    padding = dilation * (taps - 1) // 2
    weight = kernel[0, 0].permute(2, 1, 0)  # (K, C, D) -> (D, C, K)
    expected = F.conv1d(x.transpose(1, 2), weight, bias[0, 0], padding=padding, dilation=dilation).transpose(1, 2)
    torch.testing.assert_close(location_variable_conv(x, kernel, bias, dilation), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("frame", [0, 2, 3])
def test_a_frame_moves_only_its_hop(frame):
    x, kernel, bias = arguments(frames=4, hop=3)
    before = location_variable_conv(x, kernel, bias, 4)
    kernel[:, frame] += 1
    bias[:, frame] += 1
    moved = (location_variable_conv(x, kernel, bias, 4) != before).any(-1)
    assert moved.tolist() == [[step // 3 == frame for step in range(12)]] * 2


def test_zeros_stand_only_at_the_ends_of_the_utterance():
    x, kernel = torch.ones(1, 8, 1), torch.ones(1, 4, 3, 1, 1)
    assert location_variable_conv(x, kernel).flatten().tolist() == [2, 3, 3, 3, 3, 3, 3, 2]


@pytest.mark.parametrize(
    "x, kernel, bias, dilation, numbers",
    [
        ((2, 7, 2), (2, 3, 3, 2, 4), None, 1, "7.*3"),
        ((2, 7, 2), (2, 0, 3, 2, 4), None, 1, "7.*0"),
        ((2, 6, 2), (2, 3, 4, 2, 4), None, 1, "4.*3 or 5"),
        ((2, 6, 5), (2, 3, 3, 2, 4), None, 1, "2, 5.*2, 2"),
        ((1, 6, 2), (2, 3, 3, 2, 4), None, 1, "1, 2.*2, 2"),
        ((2, 6, 2), (2, 3, 3, 2, 4), (2, 3, 5), 1, "2, 3, 5.*2, 3, 4"),
        ((2, 6, 2), (2, 3, 3, 2, 4), None, 0, "0 is below 1"),
    ],
)
def test_wrong_shapes_are_refused_with_both_numbers(x, kernel, bias, dilation, numbers):
    bias = bias if bias is None else torch.zeros(bias)
    with pytest.raises(ValueError, match=numbers):
        location_variable_conv(torch.zeros(x), torch.zeros(kernel), bias, dilation)


def test_gradients_match_finite_differences():
    tensors = [t.requires_grad_() for t in arguments(frames=2, hop=2, channels=2, out_channels=2)]
    assert torch.autograd.gradcheck(lambda *a: location_variable_conv(*a, dilation=2), tensors)


def test_predictor_gives_every_layer_a_kernel_and_a_bias_per_frame():
    predicted = KernelPredictor(5, 3, 7, n_layers=4, kernel_size=5)(torch.randn(2, 5, 6))
    assert len(predicted) == 4
    assert {(kernel.shape, bias.shape) for kernel, bias in predicted} == {((2, 6, 5, 3, 7), (2, 6, 7))}


def test_predictor_does_not_see_padding():
    predictor = stir(KernelPredictor(5, 2, 4, n_layers=2)).double()
    mel = torch.randn(1, 5, 7, dtype=torch.float64)
    mask = (torch.arange(7) < 4).double().view(1, 1, 7)
    for padded, alone in zip(predictor(mel, mask), predictor(mel[..., :4]), strict=True):
        for a, b in zip(padded, alone, strict=True):
            torch.testing.assert_close(a[:, :4], b, rtol=0, atol=1e-12)
