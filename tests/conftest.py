"""What the tests share: stirred tiny models, a sound like speech, repeatable randomness."""

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

# Many tests start Python: where the environment forbids its cache of bytecode, each would compile torch again.
os.environ["PYTHONDONTWRITEBYTECODE"], sys.dont_write_bytecode = "", False
# Beside another worker, threads would wait for each other's cores: in this process and in those that it starts.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from browser import Browser, chromium
from torch import Tensor, nn

from melglow_plugin import MelConvention, Vocoder
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.model.melflow import MelFlow
from melglow_plugin.model.melglow import MelGlow, WaveGlow

# Three frames of 16 samples are 6 steps of 8 channels; flows see 8, 6 and 4 channels: two early outputs.
TINY = {
    "n_mels": 5, "hop_length": 16, "squeeze_factor": 8, "n_flows": 6, "early_every": 2, "early_size": 2,
    "channels": 4, "n_layers": 3,
}  # fmt: skip


def stir(module: nn.Module, scale: float = 0.1) -> nn.Module:
    """Move every parameter a little, the same way in every run: a fresh flow is the identity and hides wrong signs."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(scale * noise.to(parameter.dtype))
    return module


def tiny(kind: type[MelFlow] = MelGlow, **changes) -> MelFlow:
    """A stirred flow in float64 with statistics that are not the identity; ``changes`` replace values of TINY."""
    predictor = {"predictor_channels": 6} if kind is MelGlow else {}
    return with_statistics(kind, **{**TINY, **predictor, **changes})


def with_statistics(kind: type[MelModel], **sizes) -> MelModel:
    """A stirred model in float64 with statistics and bands of a mel that are not those of a new model."""
    torch.manual_seed(0)
    model = stir(kind(**sizes).double())
    model.set_mel_bands(torch.linspace(1.0, 2.0, model.n_mels), torch.rand(model.n_mels, 33) * 0.01)
    model.set_mel_statistics(torch.linspace(-0.5, 0.5, model.n_mels), torch.linspace(0.5, 2.0, model.n_mels))
    return model


def at_once(function, arguments: list) -> list:
    """The results of ``function`` for each argument, in threads of their own that begin together."""
    together = threading.Barrier(len(arguments))

    def called(argument):
        together.wait()
        return function(argument)

    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(called, arguments))


def vocoder_of(kind: type[MelModel], convention: MelConvention, scale: float = 0.05, **sizes) -> Vocoder:
    """A stirred vocoder in float32 whose linear prediction, if ``sizes`` ask for one, knows the mel."""
    flow = stir(kind(**sizes), scale)
    flow.set_mel_bands(*convention.band_powers())
    return Vocoder(flow, convention)


def speech(seconds: float = 0.5, sample_rate: int = 22_050) -> Tensor:
    """Gliding harmonics under syllable-like loudness, and noise 50 dB below: (T,) in float64."""
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    phase = torch.cumsum(2 * torch.pi * (130 + 40 * torch.sin(8 * time)) / sample_rate, 0)
    voice = sum(torch.sin(k * phase) / k for k in range(1, 25))
    loudness = 0.2 + 0.8 * torch.sin(10 * time).square()
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 0.2 * loudness * voice + 1e-3 * noise


class Recorder:
    """In the place of ``Capture``: a replay reads and writes the same tensors every time, as a graph does."""

    def __init__(self):
        self.captured = []

    def __call__(self, run, *example):
        inputs = [torch.empty_like(tensor) for tensor in example]
        out = [torch.empty_like(result) for result in run(*example)]
        self.captured.append(tuple(inputs[0].shape))

        def replay(*arguments):
            for mine, given in zip(inputs, arguments, strict=True):
                assert mine.dtype == given.dtype
                mine.copy_(given)
            return [mine.copy_(result).clone() for mine, result in zip(out, run(*inputs), strict=True)]

        return replay


@pytest.fixture
def graphs_on_a_cpu(monkeypatch) -> Recorder:
    """Vocoders on a CPU do what they do on a GPU, with a stand-in for the capture."""
    recorder = Recorder()
    monkeypatch.setattr("melglow_plugin.inference.engine.Engine.GRAPH_DEVICE", "cpu")
    monkeypatch.setattr("melglow_plugin.inference.cuda_graphs.Capture", lambda: recorder)
    return recorder


@pytest.fixture
def browser(tmp_path):
    """Headless Chromium; the test is skipped where it is missing."""
    if (path := chromium()) is None:
        pytest.skip("no Chromium on this machine")
    browser = Browser(path, tmp_path / "profile")
    yield browser
    browser.close()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(
    params=[(MelGlow, {}), (MelGlow, {"lpc_order": 4}), (WaveGlow, {"lpc_order": 4})],
    ids=["melglow", "with_prediction", "waveglow"],
)
def model(request) -> MelFlow:
    kind, changes = request.param
    return tiny(kind, **changes)


@pytest.fixture
def mel() -> Tensor:
    return torch.randn(2, TINY["n_mels"], 3, dtype=torch.float64)


@pytest.fixture
def wav() -> Tensor:
    return 0.3 * torch.randn(2, 3 * TINY["hop_length"], dtype=torch.float64)


@contextlib.contextmanager
def interpreted(*names: str):
    """Modules of ``melglow_plugin`` with Triton kernels, made for Triton's interpreter where there is no GPU."""
    modules = [f"melglow_plugin.{name}" for name in names]
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            from triton import language

            patch.setenv("TRITON_INTERPRET", "1")
            # Triton's own functions are made for the interpreter or not while they are imported.
            importlib.reload(language.standard)
            patch.setattr(language, "sum", language.standard.sum)
            _let_the_interpreter_multiply_bfloat16(patch)
        for module in modules:
            sys.modules.pop(module, None)
        made = [importlib.import_module(module) for module in modules]
        yield made[0] if len(made) == 1 else made
    for module in modules:
        sys.modules.pop(module, None)
    if not torch.cuda.is_available():
        importlib.reload(language.standard)


def _let_the_interpreter_multiply_bfloat16(patch) -> None:
    """It keeps bfloat16 as integers, and its dot multiplies those."""
    from triton import language
    from triton.runtime import interpreter

    dot = interpreter.InterpreterBuilder.create_dot

    def dot_of_floats(self, a, b, *rest):
        wide = [self.cast_impl(v, language.float32) if v.dtype.is_bf16() else v for v in (a, b)]
        return dot(self, *wide, *rest)

    patch.setattr(interpreter.InterpreterBuilder, "create_dot", dot_of_floats)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Programs started here are ended by SIGINT, which is ignored in what a shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
