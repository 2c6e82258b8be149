"""The fused kernels against the plain operator: on a GPU where there is one, else in Triton's interpreter."""

import sys
import warnings

import pytest
import torch
from conftest import interpreted, stir, tiny

from melglow_plugin.model.kernels import choice
from melglow_plugin.model.kernels.choice import use_fused
from melglow_plugin.model.lvc import location_variable_conv
from melglow_plugin.model.lvc_net import LVCNet
from melglow_plugin.model.lvcnet_generator import LVCNetGenerator

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def kernels():
    with interpreted("model.kernels.triton", "model.kernels.layers") as modules:
        yield modules[0]


@pytest.fixture
def fused(kernels):
    use_fused(True)
    yield kernels
    use_fused(None)


def arguments(batch, frames, hop, taps, channels, out_channels, dtype=torch.float32):
    shapes = (
        (batch, frames * hop, channels),
        (batch, frames, taps, channels, out_channels),
        (batch, frames, out_channels),
    )
    return [torch.randn(shape, device=DEVICE).to(dtype).requires_grad_() for shape in shapes]


def with_gradients(x, kernel, bias, dilation):
    y = location_variable_conv(x, kernel, bias, dilation)
    dy = torch.linspace(-1, 1, y.numel(), device=y.device).to(y.dtype).view_as(y)
    return y, *torch.autograd.grad(y, [t for t in (x, kernel, bias) if t is not None], dy)


def assert_same(tensors, dilation, atol):
    use_fused(False)
    expected = with_gradients(*tensors, dilation)
    use_fused(True)
    found = with_gradients(*tensors, dilation)
    assert [t.dtype for t in found] == [t.dtype for t in expected]
    torch.testing.assert_close(found, expected, atol=atol, rtol=atol)


@pytest.mark.parametrize(
    "batch, frames, hop, taps, channels, out_channels, dilation",
    [
        (2, 3, 8, 3, 4, 8, 1),
        (2, 3, 8, 3, 4, 8, 8),  # a tap that stands in the neighbour alone
        (1, 5, 3, 3, 4, 8, 7),  # across several hops
        (1, 6, 2, 5, 3, 5, 5),  # two outer taps, several hops each
        (1, 3, 1, 3, 1, 2, 2),  # a hop of one step
        (1, 2, 3, 3, 2, 2, 50),  # beyond the utterance
        (1, 2, 75, 1, 5, 7, 1),  # more steps than a block
        (1, 2, 30, 3, 16, 32, 64),
        (1, 2, 5, 3, 33, 35, 4),  # more channels than a block
    ],
)
def test_values_and_gradients_are_the_plain_operators(
    fused, batch, frames, hop, taps, channels, out_channels, dilation
):
    assert_same(arguments(batch, frames, hop, taps, channels, out_channels), dilation, 1e-4)


@pytest.mark.parametrize("dtype, atol", [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_reduced_precision(fused, dtype, atol):
    assert_same(arguments(2, 3, 4, 3, 5, 6, dtype), 3, atol)


def test_without_bias(fused):
    x, kernel, _ = arguments(2, 3, 4, 3, 5, 6)
    assert_same((x, kernel, None), 2, 1e-4)


def test_any_strides(fused):
    x, kernel, bias = arguments(2, 3, 4, 3, 5, 6)
    turned = x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    emitted = torch.cat([kernel.detach().flatten(2), bias.detach()], -1)  # as a predictor hands them over
    apart = kernel.detach().transpose(3, 4).contiguous().transpose(3, 4).requires_grad_()
    assert_same((turned, apart, bias), 2, 1e-4)
    slices = emitted[..., :-6].unflatten(-1, (3, 5, 6)).requires_grad_(), emitted[..., -6:].requires_grad_()
    assert_same((turned, *slices), 2, 1e-4)


def test_only_the_gradients_that_are_asked_for(fused):
    x, kernel, bias = arguments(1, 2, 4, 3, 5, 6)
    location_variable_conv(x.detach(), kernel, bias, 1).sum().backward()
    assert x.grad is None and kernel.grad is not None
    location_variable_conv(x, kernel.detach(), bias.detach(), 1).sum().backward()
    assert x.grad is not None


def test_gradients_of_gradients_are_refused(fused):
    x, kernel, bias = arguments(1, 2, 4, 3, 5, 6)
    (gradient,) = torch.autograd.grad(location_variable_conv(x, kernel, bias).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_products_are_exact_unless_tf32_was_allowed(kernels, monkeypatch):
    assert kernels.precision() == "ieee"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    assert kernels.precision() == "tf32"
    torch.set_float32_matmul_precision(before)
    assert kernels.precision() == "ieee"


@pytest.mark.parametrize("padded", [False, True])
def test_a_net_is_the_same(fused, padded):
    net = stir(LVCNet(2, n_mels=5, channels=4, n_layers=2, predictor_channels=6)).to(DEVICE)
    x, mel = torch.randn(2, 12, 2, device=DEVICE), torch.randn(2, 5, 4, device=DEVICE)
    lengths = torch.tensor([[6], [12]], device=DEVICE)
    mask = (torch.arange(12, device=DEVICE) < lengths).float()[..., None] if padded else None
    use_fused(False)
    expected = net(x, mel, mask)
    use_fused(True)
    torch.testing.assert_close(net(x, mel, mask), expected, atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(net(x, mel, mask), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(net(x, None, mask, net.kernel_predictor(mel)), expected, atol=1e-5, rtol=0)
        with pytest.raises(ValueError, match="12 steps.*5 frames"):
            net(x, torch.randn(2, 5, 5, device=DEVICE))


@pytest.mark.parametrize("gradients", [False, True])
def test_autocast_is_as_close_as_the_plain_operators(fused, gradients):
    net = stir(LVCNet(2, n_mels=5, channels=4, n_layers=2, predictor_channels=6)).to(DEVICE)
    x, mel = torch.randn(1, 12, 2, device=DEVICE), torch.randn(1, 5, 4, device=DEVICE)
    exact = net(x, mel)
    with torch.autocast(DEVICE, torch.bfloat16), torch.set_grad_enabled(gradients):
        found = net(x, mel)
        use_fused(False)
        plain = net(x, mel)
    for a, b, c in zip(found, plain, exact, strict=True):
        assert (a - c).abs().max() < 2 * (b - c).abs().max()


def test_a_flow_gives_the_same_audio(fused, wav, mel):
    flow = tiny(n_flows=2, early_every=1, n_layers=2).float().to(DEVICE)
    wav, mel = wav.float().to(DEVICE), mel.float().to(DEVICE)
    with torch.no_grad():
        z, log_det = flow(wav, mel)
        back = flow.inverse(z, mel)
        use_fused(False)
        torch.testing.assert_close((z, log_det), flow(wav, mel), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(back, wav, atol=1e-4, rtol=0)


def test_a_generator_gives_the_same_audio(fused, mel):
    sizes = {"n_mels": 5, "hop_length": 16, "n_blocks": 2, "channels": 4, "n_layers": 2, "lpc_order": 4}
    model, mel = stir(LVCNetGenerator(**sizes)).to(DEVICE), mel.float().to(DEVICE)
    noise, lengths = torch.randn(2, 48, device=DEVICE), torch.tensor([3, 2], device=DEVICE)
    with torch.no_grad():
        found = model(mel, noise, lengths)
        use_fused(False)
        torch.testing.assert_close(found, model(mel, noise, lengths), atol=1e-5, rtol=1e-5)


@pytest.fixture
def as_on_cuda(kernels, monkeypatch):
    """The choice that is made for a CUDA tensor by itself."""
    monkeypatch.setattr(choice, "takes_fused", lambda x, dtype: not choice._fused_failed)
    use_fused(None)
    yield
    use_fused(None)


def let_fail(monkeypatch, error):
    """Calls of the fused kernels raise ``error``."""

    def fails(*_):
        raise error

    for name in ("triton.location_variable_conv", "layers.layer"):
        monkeypatch.setattr(f"melglow_plugin.model.kernels.{name}", fails)


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'triton'"), RuntimeError("ptxas failed")])
def test_what_does_not_run_is_announced_once_and_replaced(as_on_cuda, monkeypatch, recwarn, error):
    let_fail(monkeypatch, error)
    net = stir(LVCNet(2, n_mels=5, channels=4, n_layers=2)).to(DEVICE)
    x, mel = torch.randn(1, 8, 2, device=DEVICE), torch.randn(1, 5, 2, device=DEVICE)
    with torch.no_grad():
        found = net(x, mel)
    torch.testing.assert_close(found, net(x, mel), atol=1e-6, rtol=0)
    (warning,) = [str(w.message) for w in recwarn if "LVC" in str(w.message)]
    assert str(error) in warning and "plain" in warning


def test_a_backward_kernel_that_fails_is_replaced(as_on_cuda, kernels, monkeypatch):
    def fails(*_):
        raise RuntimeError("out of resource")

    tensors = arguments(1, 3, 4, 3, 5, 6)
    expected = with_gradients(*tensors, 2)
    monkeypatch.setattr(kernels, "_gradient_of_x", fails)
    with pytest.warns(UserWarning, match="out of resource"):
        found = with_gradients(*tensors, 2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("wanted, error", [(True, RuntimeError), (None, torch.cuda.OutOfMemoryError)])
def test_what_was_asked_for_and_lack_of_memory_are_not_replaced(as_on_cuda, monkeypatch, wanted, error):
    use_fused(wanted)
    let_fail(monkeypatch, error("no"))
    with pytest.raises(error), torch.no_grad():
        location_variable_conv(*arguments(1, 2, 4, 3, 5, 6))


def test_doubles_and_traces_take_the_plain_operator(fused):
    x = torch.zeros(1, device=DEVICE)
    assert choice.takes_fused(x, x.dtype)
    assert not choice.takes_fused(x.double(), torch.float64) and not choice.takes_fused(x, torch.bfloat16)
    use_fused(None)
    assert choice.takes_fused(x, x.dtype) == (DEVICE == "cuda")


def test_a_cpu_needs_no_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "melglow_plugin.model.kernels.triton", raising=False)
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients), warnings.catch_warnings(action="error"):
            wav = tiny().float().inverse(torch.zeros(1, 16), torch.zeros(1, 5, 1))
        assert wav.isfinite().all()
