"""Convolutions by products or in float64: equal to torch's, and on a GPU none of ours is left to cuDNN in float32."""

import pytest
import torch
from conftest import TINY, tiny
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from melglow_plugin.model import convolution
from melglow_plugin.model.convolution import by_products, rounds_to_tf32
from melglow_plugin.model.kernels.choice import use_fused
from melglow_plugin.model.loss import flow_nll
from melglow_plugin.model.lvcnet_generator import LVCNetGenerator
from melglow_plugin.model.melglow import MelGlow, WaveGlow
from melglow_plugin.model.postfilter import Postfilter


@pytest.mark.parametrize("taps, dilation", [(1, 1), (3, 1), (3, 4), (5, 2)])
def test_products_are_the_convolution(taps, dilation):
    x, weight, bias = (torch.randn(*s, dtype=torch.float64) for s in ((2, 4, 9), (6, 4, taps), (6,)))
    given = [each.requires_grad_() for each in (x, weight, bias)]
    expected = F.conv1d(x, weight, bias, padding=dilation * (taps // 2), dilation=dilation)
    found = by_products(x, weight, bias, dilation)
    torch.testing.assert_close(found, expected)
    dy = torch.randn_like(found)
    torch.testing.assert_close(torch.autograd.grad(found, given, dy), torch.autograd.grad(expected, given, dy))


class NoConvolution(TorchDispatchMode):
    """Refuses what calls cuDNN on a GPU, of any type or of one."""

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_dispatch__(self, operation, types, given=(), named=None):
        if self.dtype is None or (given and getattr(given[0], "dtype", None) == self.dtype):
            assert "conv" not in operation.overloadpacket.__name__, operation
        return operation(*given, **(named or {}))


@pytest.mark.parametrize("kind", [MelGlow, WaveGlow])
def test_no_gradient_passes_a_convolution(kind, monkeypatch):
    flow = tiny(kind, lpc_order=4)
    wav, mel = 0.3 * torch.randn(2, 48, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)

    def gradients() -> list[torch.Tensor]:
        flow.zero_grad()
        (flow_nll(*flow(wav, mel)) + flow.activation_rms(mel).sum()).backward()
        return [parameter.grad for parameter in flow.parameters()]

    expected = gradients()
    with pytest.raises(AssertionError, match="conv"), NoConvolution():
        gradients()
    monkeypatch.setattr(convolution, "rounds_to_tf32", lambda x: True)
    with NoConvolution():
        found = gradients()
    torch.testing.assert_close(found, expected)


SIZES = {name: size for name, size in TINY.items() if name not in ("early_every", "early_size", "n_flows")}
SIZES["lpc_order"] = 4


@pytest.mark.parametrize("kind", [MelGlow, WaveGlow, LVCNetGenerator])
def test_a_gpu_computes_no_convolution_in_float32(kind):
    """Tensors on a GPU that have no values: no machine with one is needed."""
    use_fused(False)
    with FakeTensorMode(), torch.device("cuda"):
        model, wav, mel = kind(**SIZES), torch.randn(2, 48), torch.randn(2, 5, 3)
        with NoConvolution():
            assert model.inverse(wav, mel).is_cuda
            if model.has_likelihood:
                model(wav, mel)
    use_fused(None)


def test_the_postfilter_convolves_in_float64_on_a_gpu(monkeypatch):
    postfilter, given = Postfilter(4), (torch.randn(2, 6, 9), torch.randn(2, 6, 9))
    torch.nn.init.normal_(postfilter.output.weight)
    expected = postfilter(*given)
    with pytest.raises(AssertionError, match="conv"), NoConvolution(torch.float32):
        postfilter(*given)
    monkeypatch.setattr(convolution, "rounds_to_tf32", lambda x: True)
    with NoConvolution(torch.float32):
        found = postfilter(*given)
    torch.testing.assert_close(found, expected)


def test_in_16_bits_and_on_a_cpu_it_is_torchs_own(monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type: autocast)
    autocast = False
    with FakeTensorMode():
        x = torch.randn(1, 2, 3, device="cuda")
        assert rounds_to_tf32(x) and not rounds_to_tf32(x.bfloat16()) and not rounds_to_tf32(x.double())
        assert not rounds_to_tf32(x.cpu())
        autocast = True
        assert not rounds_to_tf32(x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("allowed", [True, False])
def test_float32_is_float32_whatever_cudnn_may_do(allowed):
    layer = convolution.Conv1d(80, 32, 5, padding=2).cuda()
    x = torch.randn(2, 80, 100, device="cuda", requires_grad=True)
    with torch.backends.cudnn.flags(allow_tf32=allowed):
        found = torch.autograd.grad(layer(x).square().sum(), (x, layer.weight))
    exact = torch.autograd.grad(layer.double()(x.double()).square().sum(), (x, layer.weight))
    for a, b in zip(found, exact, strict=True):
        assert (a.double() - b).abs().max() < 1e-5 * b.abs().max()
