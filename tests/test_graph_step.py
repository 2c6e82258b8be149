"""The step that a GPU captures, run on a CPU: equal to an ordinary loop, and without anything that a graph forbids."""

import copy

import pytest
import torch
from conftest import speech, stir
from torch.utils._python_dispatch import TorchDispatchMode

from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.lvcnet_generator import LVCNetGenerator
from melglow_plugin.model.melglow import MelGlow
from melglow_plugin.training.crops import cut, wav_and_mel
from melglow_plugin.training.graph_step import GraphStep, Update, set_capturable
from melglow_plugin.training.objective import FlowObjective, LossConfig

CONVENTION = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)
SIZES = {"n_mels": 20, "hop_length": 64, "n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 2, "lpc_order": 8}
LOSS = LossConfig(windows=(256, 128), refine=1, mel_smoothing_prob=0.5, activation_penalty=1.0)
CLIP = 0.5  # of the gradients' norm, which is above it


@pytest.fixture
def flow() -> MelGlow:
    torch.manual_seed(0)
    flow = stir(MelGlow(**SIZES)).train()
    flow.set_mel_bands(*CONVENTION.band_powers())
    return flow


@pytest.fixture
def batches() -> list[torch.Tensor]:
    wav = speech(0.5).float()
    return [torch.stack([cut(wav, CONVENTION, 16, start + k) for start in (3, 60)]) for k in range(4)]


class Recorder:
    """In the place of ``Capture``: as a graph, a replay reads and writes the same tensors every time."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.told = fails, []

    def run_aside(self, run):
        self.told.append("aside")
        return run()

    def record(self, run):
        self.told.append("record")
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        results = {}

        def replay():
            self.told.append("replay")
            results.update(run())
            return results

        return replay


def step_of(flow, optimizer, objective, capture=None) -> GraphStep:
    def loss(kind, speech):
        return objective(flow, *wav_and_mel(speech, CONVENTION, 16))

    set_capturable(optimizer)
    flow.joint_inverses = True
    return GraphStep(loss, [Update(optimizer, CLIP)], capture)


def ordinary_step(flow, optimizer, objective, speech) -> tuple[float, float]:
    """As trainers write it."""
    loss, _ = objective(flow, *wav_and_mel(speech, CONVENTION, 16))
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
    if torch.isfinite(norm):
        optimizer.step()
    return float(loss.detach()), float(norm)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_it_equals_an_ordinary_loop(flow, batches, optimizer):
    other, objective = copy.deepcopy(flow), FlowObjective(CONVENTION, LOSS)
    ordinary = optimizer(other.parameter_groups(1e-3, 2.0), betas=(0.8, 0.99))
    ours = optimizer(flow.parameter_groups(1e-3, 2.0), betas=(0.8, 0.99))
    step, start = step_of(flow, ours, objective), copy.deepcopy(flow.state_dict())
    batches[2][0, 500] = torch.nan  # a step that both must leave out
    for count, batch in enumerate(batches):
        torch.manual_seed(count)
        loss, norm = ordinary_step(other, ordinary, objective, batch)
        torch.manual_seed(count)
        results = step(speech=batch)
        assert results["skipped"] == (count == 2)
        torch.testing.assert_close(float(results["loss"]), loss, rtol=1e-5, atol=0, equal_nan=True)
        torch.testing.assert_close(float(results["grad_norm"]), norm, rtol=1e-4, atol=0, equal_nan=True)
    for (name, a), b in zip(flow.state_dict().items(), other.state_dict().values(), strict=True):
        moved = (b - start[name]).abs().max()
        # Where a gradient is nearly 0, Adam's first steps take its sign, which is rounding.
        assert (a - b).abs().mean() <= 2e-3 * moved, name
    assert int(ours.state[next(flow.parameters())]["step"]) == len(batches) - 1


class NoGraph(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU, or copies to it, or calls a library that cannot be captured."""

    FORBIDDEN = (
        "local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique", "lift_fresh",
        "linalg_inv", "linalg_lu", "linalg_qr", "linalg_slogdet", "linalg_solve",
    )  # fmt: skip

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").lstrip("_").partition(".")[0]
        scalar = name == "lift_fresh" and args[0].dim() == 0  # which a kernel takes as an argument
        assert scalar or not name.startswith(self.FORBIDDEN), name
        return func(*args, **(kwargs or {}))


def test_nothing_in_it_is_forbidden_in_a_graph(flow, batches):
    step = step_of(flow, torch.optim.AdamW(flow.parameter_groups(1e-3)), FlowObjective(CONVENTION, LOSS))
    step(speech=batches[0])  # constants and states are made once
    before = flow.couplings[0].net.end.weight.clone()
    with NoGraph():  # fails at the first operation that a graph forbids
        step(speech=batches[1])
    assert not torch.equal(flow.couplings[0].net.end.weight, before)


def test_lvcnet_is_captured_with_the_same_operations(batches):
    sizes = {name: size for name, size in SIZES.items() if name not in ("n_flows", "early_every")}
    torch.manual_seed(0)
    flow = stir(LVCNetGenerator(**sizes, n_blocks=2)).train()
    flow.set_mel_bands(*CONVENTION.band_powers())
    step = step_of(flow, torch.optim.AdamW(flow.parameter_groups(1e-3)), FlowObjective(CONVENTION, LOSS))
    step(speech=batches[0])
    before = flow.end.weight.clone()
    with NoGraph():
        results = step(speech=batches[1])
    assert not results["skipped"] and not torch.equal(flow.end.weight, before)


def test_the_guard_notices(flow, batches):
    step = step_of(flow, torch.optim.AdamW(flow.parameter_groups(1e-3)), FlowObjective(CONVENTION, LOSS))
    flow.joint_inverses = False
    with pytest.raises(AssertionError, match="linalg_slogdet"), NoGraph():
        step(speech=batches[0])
    with pytest.raises(AssertionError, match="local_scalar_dense"), NoGraph():
        float(torch.ones(()))


def test_schedulers_and_states_go_there_and_back(flow, batches):
    optimizer = torch.optim.Adam(flow.parameter_groups(1e-3, 2.0))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    step = step_of(flow, optimizer, FlowObjective(CONVENTION, LOSS))
    step(speech=batches[0])
    scheduler.step()
    assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([5e-4, 1e-3])
    set_capturable(optimizer, False)
    again = torch.optim.Adam(flow.parameter_groups(1.0))
    again.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in again.param_groups] == pytest.approx([5e-4, 1e-3])
    ordinary_step(flow, again, FlowObjective(CONVENTION, LOSS), batches[1])
    assert int(again.state[next(flow.parameters())]["step"]) == 2


@pytest.mark.parametrize("fails", [False, True])
def test_three_steps_a_capture_and_replays_are_the_same_steps(flow, batches, fails, caplog):
    other, capture = copy.deepcopy(flow), Recorder(fails)
    objective = FlowObjective(CONVENTION, LOSS)
    plain = step_of(other, torch.optim.AdamW(other.parameter_groups(1e-3)), objective)
    graphed = step_of(flow, torch.optim.AdamW(flow.parameter_groups(1e-3)), objective, capture)
    for count, batch in enumerate([*batches, *batches]):
        torch.manual_seed(count)
        expected = plain(speech=batch)
        torch.manual_seed(count)
        assert torch.equal(graphed(speech=batch)["loss"], expected["loss"])
    assert capture.told == ["aside"] * 3 + ["record"] + ["replay"] * (0 if fails else 5)
    warnings = [record.getMessage() for record in caplog.records]
    told = "no CUDA graph of the training step, continuing without: operation not permitted when stream is capturing"
    assert warnings == ([told] if fails else [])
    for a, b in zip(flow.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_each_kind_and_shape_has_a_graph_up_to_a_bound():
    seen, capture = [], Recorder()
    weight = torch.nn.Parameter(torch.ones(()))

    def loss(kind, x):
        seen.append((kind, len(x)))
        return (weight * x).sum(), {}

    optimizer = torch.optim.Adam([weight])
    set_capturable(optimizer)
    step = GraphStep(loss, [Update(optimizer, 1.0)], capture)
    inputs = [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1)]
    for kind, size in inputs * 5:
        step(kind, x=torch.ones(size))
    assert seen == inputs * 5
    assert capture.told.count("record") == 4 and capture.told.count("replay") == 8


def test_a_replay_tells_others_that_their_weights_are_old():
    """A graph changes memory alone; the vocoder's graphs, for example, look at the tensors' version."""

    class Silent(Recorder):
        def record(self, run):
            return lambda: {"loss": weight.data.add_(1)}

    weight = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.Adam([weight])
    set_capturable(optimizer)
    step = GraphStep(lambda kind, x: ((weight * x).sum(), {}), [Update(optimizer, 1.0)], Silent())
    for _ in range(5):
        before = weight._version
        step(x=torch.ones(2))
        assert weight._version > before
