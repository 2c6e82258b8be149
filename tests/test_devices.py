"""A second GPU, on a machine without any: tensors without values, and a stand-in for the part of torch.cuda in use.

A kernel that is started while another device is current, or that a capture on another device's stream misses, fails.
"""

import contextlib

import pytest
import torch
from conftest import interpreted
from torch._subclasses.fake_tensor import FakeTensorMode

from melglow_plugin import MelConvention
from melglow_plugin.inference.cuda_graphs import GraphedSynthesis
from melglow_plugin.inference.engine import Engine
from melglow_plugin.inference.noise import scaled_noise
from melglow_plugin.inference.refine import refine
from melglow_plugin.model.kernels import choice
from melglow_plugin.model.lvcnet_generator import LVCNetGenerator
from melglow_plugin.model.melglow import MelGlow, WaveGlow
from melglow_plugin.training.graph_step import Capture

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="a stand-in for torch.cuda"),
    pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor"),
]
CONVENTION = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)
SIZES = {"n_mels": 20, "hop_length": 64, "n_flows": 2, "channels": 4, "n_layers": 2, "lpc_order": 8}


class Stream:
    def __init__(self, device):
        self.device = device
        self.wait_stream = self.wait_event = lambda other: None


class Cuda:
    """Two devices as torch.cuda shows them: one is current, each has a current stream, and one stream may capture."""

    def __init__(self):
        self.current, self.capturing, self.default_capture_stream, self.captured = 0, None, None, []
        self.streams = [Stream(torch.device("cuda", index)) for index in (0, 1)]

    @contextlib.contextmanager
    def device(self, wanted):
        before, self.current = self.current, wanted.index
        yield
        self.current = before

    def device_of(self, tensor):
        return self.device(tensor.device)

    def Stream(self, device=None):
        return Stream(torch.device("cuda", self.current) if device is None else device)

    def current_stream(self):
        return self.streams[self.current]

    @contextlib.contextmanager
    def stream(self, stream):
        with self.device(stream.device):  # torch's does this, too
            before, self.streams[self.current] = self.streams[self.current], stream
            yield
            self.streams[self.current] = before

    @contextlib.contextmanager
    def graph(self, graph, pool=None, stream=None, capture_error_mode="global"):
        self.default_capture_stream = self.default_capture_stream or self.Stream()  # torch's is made once
        with self.stream(stream or self.default_capture_stream):
            self.capturing = self.current_stream()
            self.captured.append([])
            yield
            self.capturing = None

    def launch(self, *given):
        """A kernel of these arguments: where it runs, and whether a capture sees it."""
        devices = {each.device for each in given if isinstance(each, torch.Tensor)}
        assert devices == {torch.device("cuda", self.current)}, "a tensor of another device than the current one"
        if self.capturing is not None:
            assert self.current_stream() is self.capturing, "the capture does not see this kernel"
            self.captured[-1].append(self.current)


class Graph:
    def replay(self):
        """Nothing: the tensors have no values."""


@pytest.fixture
def cuda(monkeypatch):
    cuda = Cuda()
    for name in ("device", "device_of", "Stream", "current_stream", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Event", lambda: type("Event", (), {"record": lambda self: None})())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 0)
    return cuda


@pytest.fixture(scope="module")
def fused():
    pytest.importorskip("triton")
    names = ["model.kernels.triton", "model.kernels.layers", "model.kernels.lpc", "model.kernels.predictors"]
    with interpreted(*names, "inference.noise_triton", "inference.refine_triton", "inference.fused_inverse") as modules:
        yield modules


@pytest.fixture
def launched(cuda, fused, monkeypatch):
    """All kernels of Triton are the stand-in's, and every device has them."""
    import triton

    class Kernel:
        def __getitem__(self, grid):
            return lambda *given, **named: cuda.launch(*given)

    for module in fused:
        for name, value in vars(module).copy().items():
            if isinstance(value, triton.runtime.interpreter.InterpretedFunction):
                monkeypatch.setattr(module, name, Kernel())
    monkeypatch.setattr(choice, "takes_fused", lambda x, dtype: x.device.type == "cuda")
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield cuda
    assert cuda.current == 0


def made(kind, device: str, **changes):
    with torch.device(device):
        return kind(**{**SIZES, **changes})


@pytest.mark.parametrize("rounds", [0, 1])
@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_a_captured_call_stays_on_its_device(launched, fused, device, rounds):
    for where in ("cuda:0", device):  # the first capture of a process is on the first device
        graphs = GraphedSynthesis(fused[-1].FusedInverse(made(MelGlow, where)), CONVENTION)
        mel, lengths = torch.randn(2, 20, 40, device=where), torch.tensor([40, 9], device=where)
        wav, finite = graphs.synthesize(mel, lengths, [1, 2], 0.6, rounds)
        assert wav.device == finite.device == torch.device(where) and wav.shape == (2, 40 * 64)
        assert graphs.inverse(torch.randn(2, 40 * 64, device=where), mel).device == torch.device(where)
    index = torch.device(device).index
    assert [set(each) for each in launched.captured] == [{0}, {0}, {index}, {index}]
    # Layers, predictors, linear prediction, in the whole call noise and refinement.
    assert len(launched.captured[2]) == 2 * 2 + 3 + 3 + 1 + 2 * rounds


def test_each_kernel_finds_its_device_by_itself(launched, fused):
    """Outside of a capture, while another device is current."""
    z, mel = torch.randn(2, 40 * 64, device="cuda:1"), torch.randn(2, 20, 40, device="cuda:1")
    wav = fused[-1].FusedInverse(made(MelGlow, "cuda:1"))(z, mel)
    kernel = torch.randn(1, 4, 3, 4, 8, device="cuda:1")
    with torch.no_grad():
        assert refine(wav, mel, CONVENTION, 1).device == wav.device
    assert scaled_noise(torch.zeros(2, device="cuda:1"), *torch.zeros(2, device="cuda:1"), 64).device == wav.device
    fused[0].location_variable_conv(torch.randn(1, 64, 4, device="cuda:1"), kernel)
    hidden, end = wav[:1, :64].view(1, 16, 4), torch.zeros(4, 2, device="cuda:1")
    fused[1].layer(hidden, kernel, kernel[:, :, 0, 0], 1, None, end, torch.empty_like(hidden[..., :2]), end[0])


@pytest.mark.parametrize("kind, changes", [
    (MelGlow, {}), (WaveGlow, {}), (LVCNetGenerator, {"n_flows": None, "n_blocks": 2}),
], ids=["melglow", "waveglow", "lvcnet"])  # fmt: skip
def test_every_model_is_captured_and_runs_without_graphs_on_a_second_device(launched, monkeypatch, kind, changes):
    sizes = {name: value for name, value in {**SIZES, **changes}.items() if value is not None}
    with torch.device("cuda:1"):
        flow = kind(**sizes)
    mel, lengths = torch.randn(2, 20, 40, device="cuda:1"), torch.tensor([40, 9], device="cuda:1")
    for graphs in (True, False):
        engine = Engine(flow, CONVENTION, None)
        engine.graphs = graphs
        wav, finite = engine.synthesize(mel, lengths, [1, 2], 0.6, 1)
        assert wav.device == torch.device("cuda:1") and (finite is not None) == graphs and engine.graphs == graphs
    assert len(launched.captured) == 1


def test_a_training_step_is_captured_on_a_second_device(launched, fused):
    device = torch.device("cuda:1")
    x, kernel = torch.randn(1, 64, 4, device=device), torch.randn(1, 4, 3, 4, 8, device=device)

    def step() -> dict:
        y = fused[0].location_variable_conv(x, kernel)
        dx, dkernel = fused[0]._gradient_of_x(y, x, kernel, 1), fused[0]._gradient_of_kernel(y, x, kernel, 1)
        return {"dx": dx, "dkernel": dkernel}

    Capture(torch.device("cuda:0"))  # of another run
    capture = Capture(device)
    assert capture.run_aside(step)["dx"].device == device
    capture.record(step)()
    assert launched.captured == [[1, 1, 1]]  # forward, and the gradients of both
