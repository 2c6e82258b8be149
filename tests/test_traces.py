"""What training, saving and exporting leave behind in torch and in the hosts: nothing."""

import subprocess
import sys

import pytest

SNAPSHOT = """
import contextlib, logging, sys, tempfile, types
from pathlib import Path
from types import SimpleNamespace
import torch

torch.optim.Adam([torch.zeros(1)])  # at its first use, torch itself wraps the class's step

def snapshot():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] not in ("torch", "trainer", "espnet2", "TTS") or not isinstance(module, types.ModuleType):
            continue
        for key, value in list(vars(module).items()):
            if isinstance(value, types.FunctionType):
                found[name, key] = id(value)
            elif key.startswith("_global") and isinstance(value, dict):  # torch's hooks of all modules
                found[name, key] = len(value)
            elif isinstance(value, type) and value.__module__ == name:
                found |= {(name, key, k): id(v) for k, v in vars(value).items() if isinstance(v, types.FunctionType)}
    loggers = [logging.getLogger(name) for name in ("torch.onnx._internal.exporter._registration", "")]
    return found, [(logger.level, list(logger.filters)) for logger in loggers]

def compare(before, after):
    changed = {key for key, value in before[0].items() if after[0].get(key) != value}
    assert changed == set(), changed
    assert before[1] == after[1], (before[1], after[1])
    print("as before")
"""
ESPNET = """
import espnet2.tasks.abs_task, espnet2.train.trainer
before = snapshot()
from melglow_plugin.espnet import saving, task
folder = Path(tempfile.mkdtemp())
with contextlib.suppress(RuntimeError), saving.whole_checkpoints():
    torch.save({"a": torch.ones(2)}, folder / "a.pth")
    assert torch.save is not before  # inside, it is another
    raise RuntimeError("an epoch fails")
assert torch.equal(torch.load(folder / "a.pth")["a"], torch.ones(2))

from melglow_plugin import MelConvention, MelGlow
from melglow_plugin.espnet.model import ESPnetVocoderModel
from melglow_plugin.training.objective import LossConfig
flow = MelGlow(n_flows=2, early_every=2, channels=4, n_layers=1)
learning = ESPnetVocoderModel(flow, MelConvention.espnet(), LossConfig(), ema_decay=0.9)
optimizer = torch.optim.Adam(flow.parameters())
learning(0.1 * torch.randn(2, 9 * 256 + 1024))[0].backward()
optimizer.step()
compare(before, snapshot())
"""
COQUI = """
import trainer.io, trainer.trainer, TTS.vocoder.models, TTS.utils.synthesizer
before = snapshot()
from melglow_plugin.coqui import model, saving
folder = Path(tempfile.mkdtemp())

class Trainer:
    output_path = folder
    def save_checkpoint(self):
        trainer.io.save_fsspec({"a": torch.ones(2)}, folder / "a.pth")
    def save_best_model(self):
        raise RuntimeError("the disk is full")

this = Trainer()
saving.protect(this, lambda state: {**state, "b": 1})
this.save_checkpoint()
assert torch.load(folder / "a.pth")["b"] == 1
with contextlib.suppress(RuntimeError):
    this.save_best_model()

from melglow_plugin.coqui.config import MelglowConfig
from melglow_plugin.coqui.model import Melglow
config = MelglowConfig()
config.from_dict({"model_params": {"n_flows": 2, "channels": 4, "n_layers": 1}, "loss_params": {"spectral_start": 0}})
learning = Melglow(config)
optimizer = learning.get_optimizer()
segments = 0.1 * torch.randn(2, 9 * 256 + 1024)
batch = learning.format_batch_on_device({"segments": segments})
learning.train_step(batch, learning.get_criterion())[1]["loss"].backward()
learning.before_gradient_clipping()
optimizer.step()
compare(before, snapshot())
"""
EXPORT = """
import torch.onnx._internal.exporter._registration
from melglow_plugin import MelConvention, MelGlow
from melglow_plugin.checkpoint import Checkpoint
from melglow_plugin.checkpoint.onnx import to_onnx
before = snapshot()
convention = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)
flow = MelGlow(n_mels=20, hop_length=64, n_flows=2, channels=4, n_layers=1)
to_onnx(Checkpoint(flow, convention), tempfile.mkdtemp())
compare((before[0], before[1]), (before[0], snapshot()[1]))  # of torch.export's own doings nothing is said
"""


@pytest.mark.parametrize("host, code", [("espnet2", ESPNET), ("TTS", COQUI), ("onnxscript", EXPORT)])
def test_nothing_stays_patched(host, code):
    pytest.importorskip(host)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SNAPSHOT + code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("as before"), done.stderr[-2000:]
