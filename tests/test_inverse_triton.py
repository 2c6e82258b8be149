"""The fused inverse of a MelGlow against the flow's own in float64: on a GPU where there is one, else interpreted."""

import copy

import pytest
import torch
from conftest import interpreted, tiny
from torch.utils._python_dispatch import TorchDispatchMode

from melglow_plugin import MelConvention
from melglow_plugin.inference.cuda_graphs import GraphedSynthesis
from melglow_plugin.model.kernels import choice
from melglow_plugin.model.melglow import MelGlow, WaveGlow

pytest.importorskip("triton")

KERNELS = [f"model.kernels.{name}" for name in ("triton", "layers", "lpc", "predictors")]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def module():
    with interpreted(*KERNELS, "inference.fused_inverse") as modules:
        yield modules[-1]


def example(flow, lengths=None, frames=5):
    batch = 1 if lengths is None else len(lengths)
    z, mel = torch.randn(batch, frames * flow.hop_length), torch.randn(batch, flow.n_mels, frames)
    return [None if given is None else given.to(DEVICE) for given in (z, mel, lengths)]


SIZES = {
    "early outputs": {},
    "one flow": {"n_flows": 1},
    "no early output": {"early_every": 9},
    "linear prediction": {"lpc_order": 4, "n_flows": 2},
    "more channels than outputs": {"channels": 16, "n_layers": 2, "n_flows": 2},
    "no predictor layers": {"predictor_layers": 0, "n_flows": 2},
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 3])], ids=["whole", "padded"])
def test_it_gives_the_flows_audio(module, sizes, lengths):
    flow = tiny(MelGlow, **sizes).to(DEVICE)
    z, mel, lengths = example(flow, lengths)
    expected = flow.inverse(z.double(), mel.double(), lengths)
    found = module.FusedInverse(copy.deepcopy(flow).float())(z, mel, lengths)
    assert found.dtype == torch.float32 and (expected - z).abs().max() > 0.1
    for row, wanted, end in zip(found, expected, [5] if lengths is None else lengths.tolist(), strict=True):
        samples = slice(end * flow.hop_length)
        torch.testing.assert_close(row[samples].double(), wanted[samples], atol=2e-5, rtol=2e-5)


def test_kernels_of_many_frames_are_predicted_coupling_by_coupling(module, monkeypatch):
    flow = tiny(MelGlow, n_flows=2).float().to(DEVICE)
    z, mel, _ = example(flow)
    fused = module.FusedInverse(flow)
    together = fused(z, mel)
    monkeypatch.setattr(module, "MOST_NUMBERS", 0)
    torch.testing.assert_close(fused(z, mel), together, atol=1e-6, rtol=0)


def test_the_latent_is_not_changed(module):
    flow = tiny(MelGlow, n_flows=1).float().to(DEVICE)
    z, mel, _ = example(flow)
    before = z.clone()
    module.FusedInverse(flow)(z, mel)
    assert torch.equal(z, before)


def test_bfloat16_is_as_close_as_the_flow_in_bfloat16(module):
    flow = tiny(MelGlow, n_flows=2).float().to(DEVICE)
    z, mel, _ = example(flow)
    exact = flow.inverse(z, mel)
    with torch.autocast(DEVICE, torch.bfloat16), torch.no_grad():
        plain = flow.inverse(z, mel)
    found = module.FusedInverse(flow, torch.bfloat16)(z, mel)
    assert 0 < (found - exact).abs().max() < 2 * (plain - exact).abs().max()


class Operations(TorchDispatchMode):
    """Counts what launches a kernel on a GPU: operations that are no views and make memory alone."""

    FREE = {"empty", "empty_like", "new_empty", "arange"}

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operation, types, given=(), named=None):
        name = operation.overloadpacket.__name__
        if not operation.is_view and name not in self.FREE:
            self.names.append(name)
        return operation(*given, **(named or {}))


@pytest.mark.skipif(DEVICE == "cuda", reason="counted on a CPU")
@torch.no_grad()
def test_a_call_of_the_released_size_takes_few_launches(module, monkeypatch):
    """Kernels of Triton are counted and not run."""
    from melglow_plugin.inference import noise_triton, refine_triton

    launches = []

    class Counted:
        def __init__(self, kernel):
            self.name = kernel.fn.__name__

        def __getitem__(self, grid):
            return lambda *given, **named: launches.append(self.name)

    kernels = {
        module.layers: ["_layer"], module.lpc: ["_levinson", "_respond", "_synthesize"],
        module.predictors: ["_frame_conv"], noise_triton: ["_noise"], refine_triton: ["_frames", "_audio"],
    }  # fmt: skip
    for holder, names in kernels.items():
        for name in names:
            monkeypatch.setattr(holder, name, Counted(getattr(holder, name)))
    monkeypatch.setattr(choice, "takes_fused", lambda *_: True)
    convention = MelConvention.espnet()
    graphs = GraphedSynthesis(module.FusedInverse(MelGlow(lpc_order=32)), convention, lambda run, *given: run)
    mel = torch.randn(1, 80, 86)
    graphs.synthesize(mel, None, [0], 0.6, 1, 1.0)  # makes the convention's constants
    launches.clear()
    with Operations() as operations:
        graphs.synthesize(mel, None, [0], 0.6, 1, 1.0)
    print(len(launches), "kernels of Triton,", len(operations.names), "operations:", *operations.names)
    assert len(launches) == 12 * 7 + 9 and len(launches) + len(operations.names) <= 170


def test_what_it_takes(module):
    assert module.runs(tiny(MelGlow)) and module.runs(MelGlow(channels=32, n_flows=1))
    assert not module.runs(tiny(WaveGlow)) and not module.runs(MelGlow(channels=33, n_flows=1))
