"""ESPnet's epoch with steps that a GPU captures, run on a CPU beside ESPnet's own."""

import argparse
import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from conftest import speech, stir

pytest.importorskip("espnet2")

from espnet2.schedulers.warmup_lr import WarmupLR
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.reporter import Reporter
from espnet2.train.trainer import Trainer

from melglow_plugin.espnet import graph_epoch
from melglow_plugin.espnet.adversarial import AdversarialConfig
from melglow_plugin.espnet.model import ESPnetVocoderModel, LossConfig
from melglow_plugin.espnet.task import VocoderTask
from melglow_plugin.espnet.trainer import VocoderTrainer
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.lvcnet_generator import LVCNetGenerator
from melglow_plugin.model.melglow import MelGlow
from melglow_plugin.training.crops import cut

CONVENTION = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)
SIZES = {"n_mels": 20, "hop_length": 64, "n_flows": 4, "early_every": 4, "channels": 4, "n_layers": 2, "lpc_order": 8}
CRITIC = AdversarialConfig(periods=(2, 3), period_channels=2, max_channels=4, start=2, lr_ratio=2.0)


def options(**changes) -> argparse.Namespace:
    """What ESPnet's trainer reads in an epoch."""
    args = VocoderTask.get_parser().parse_args(["--output_dir", "unused", "--grad_clip", "0.5", "--log_interval", "2"])
    built = VocoderTrainer.build_options(args)
    for name, value in changes.items():
        setattr(built, name, value)
    return built


@pytest.fixture
def model() -> ESPnetVocoderModel:
    return made()


def made(kind: str = "melglow") -> ESPnetVocoderModel:
    """The same one every time."""
    torch.manual_seed(0)
    lvcnet = {name: size for name, size in SIZES.items() if name not in ("n_flows", "early_every")} | {"n_blocks": 2}
    flow = stir(MelGlow(**SIZES) if kind == "melglow" else LVCNetGenerator(**lvcnet))
    flow.set_mel_bands(*CONVENTION.band_powers())
    loss = LossConfig(windows=(256, 128), refine=1, mel_smoothing_prob=0.5)
    # float32: where auto chooses bfloat16, its rounding alone moves the loss by 2e-3
    return ESPnetVocoderModel(flow, CONVENTION, loss, ema_decay=0.9, conditioner_dtype="float32", adversarial=CRITIC)


@pytest.fixture
def batches() -> list:
    wav = speech(0.5).float()
    crops = [torch.stack([cut(wav, CONVENTION, 16, start + k) for start in (3, 60)]) for k in range(5)]
    crops[3][1, 700] = torch.inf  # a step that both leave out
    return [(["a", "b"], {"speech": crop, "speech_lengths": torch.tensor([len(crop[0])] * 2)}) for crop in crops]


def epoch(train, model, batches, **extra) -> tuple[Reporter, torch.optim.Optimizer, bool]:
    args = SimpleNamespace(kernel_lr_ratio=2.0, optim="adam", optim_conf={"lr": 1e-4, "betas": (0.8, 0.99)})
    (optimizer,) = VocoderTask.build_optimizers(args, model)
    scheduler, reporter = WarmupLR(optimizer, warmup_steps=3), Reporter()
    reporter.set_epoch(1)
    torch.manual_seed(5)
    with reporter.observe("train") as sub:
        invalid = train(
            model=model, optimizers=[optimizer], schedulers=[scheduler], iterator=batches, reporter=sub,
            summary_writer=None, options=options(), **extra,
        )  # fmt: skip
    return reporter, optimizer, invalid


@pytest.mark.parametrize("kind", ["melglow", "lvcnet"])
def test_an_epoch_equals_espnets(kind, batches, caplog):
    caplog.set_level(logging.INFO)
    model, other = made(kind), made(kind)
    start = copy.deepcopy(model.state_dict())
    theirs, their_optimizer, _ = epoch(
        Trainer.train_one_epoch, other, batches, scaler=None, distributed_option=DistributedOption()
    )
    ours, optimizer, invalid = epoch(graph_epoch.train_one_epoch, model, batches)
    assert not invalid and "Skipping updating the model" in caplog.text
    names = set(theirs.stats[1]["train"]) - {"forward_time", "backward_time", "optim_step_time"}
    assert names - set(ours.stats[1]["train"]) == set()
    clocks = {"iter_time", "train_time", "time", "total_count", "gpu_max_cached_mem_GB", "gpu_cached_mem_GB"}
    for name in names - clocks:
        # The first step's agree within 2e-6; where a gradient is nearly 0, Adam takes its sign, which is rounding.
        expected = pytest.approx(theirs.stats[1]["train"][name], rel=1e-3, nan_ok=True)
        assert ours.stats[1]["train"][name] == expected, name
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        moved = (b - start[name]).double().abs().max()
        assert (a - b).double().abs().mean() <= 5e-3 * moved, name
    assert int(model.steps) == 5 and model.ema.n_averaged == 5
    rates = [[float(group["lr"]) for group in each.param_groups] for each in (optimizer, their_optimizer)]
    assert rates[0] == pytest.approx(rates[1])
    state = optimizer.state[next(model.flow.parameters())]
    assert state["step"] == their_optimizer.state[next(other.flow.parameters())]["step"] == 4


@pytest.mark.parametrize(
    "change, told",
    [
        ({"accum_grad": 2}, "accum_grad 2"),
        ({"use_amp": True}, "use_amp True"),
        ({"ngpu": 2}, "ngpu 2"),
        ({"grad_noise": True}, "grad_noise True"),
    ],
)
def test_what_forbids_a_graph_is_named(model, change, told):
    optimizers = [torch.optim.Adam(model.parameters())]
    assert graph_epoch.obstacle(options(**{"ngpu": 1, **change}), optimizers, False) == told
    assert graph_epoch.obstacle(options(ngpu=1), optimizers, False) == ""
    assert graph_epoch.obstacle(options(ngpu=1), optimizers, True) == "distributed training"
    assert graph_epoch.obstacle(options(ngpu=1), [torch.optim.SGD(model.parameters())], False) == "optim sgd"


@pytest.mark.parametrize("accum_grad, used", [(1, True), (2, False)])
def test_one_gpu_asks_for_it_and_an_obstacle_is_one_line(model, monkeypatch, caplog, accum_grad, used):
    called = []
    monkeypatch.setattr(graph_epoch, "train_one_epoch", lambda *_, **__: called.append("graph"))
    monkeypatch.setattr(Trainer, "train_one_epoch", lambda **_: called.append("espnet"))
    VocoderTrainer.train_one_epoch(
        model=model, optimizers=[torch.optim.Adam(model.parameters())], scaler=None,
        distributed_option=DistributedOption(), iterator=[], options=options(ngpu=1, accum_grad=accum_grad),
    )  # fmt: skip
    assert called == ["graph" if used else "espnet"]
    assert (
        [r.getMessage().split(",")[0] for r in caplog.records] == [] if used else ["use_graph: not with accum_grad 2"]
    )
