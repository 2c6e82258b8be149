"""The command that trains for some minutes, on a CPU: resumed it equals an uninterrupted run, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from conftest import speech, stir
from safetensors.torch import load_file

pytest.importorskip("espnet2")

from melglow_plugin.checkpoint import folder
from melglow_plugin.checkpoint.checkpoint import Checkpoint
from melglow_plugin.espnet import minutes
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.lvcnet_generator import LVCNetGenerator
from melglow_plugin.model.melglow import MelGlow
from melglow_plugin.training.minutes import Clock, Means, MinutesConfig

CONVENTION = MelConvention.espnet(fs=16_000, n_fft=256, hop_length=64, n_mels=20)
SIZES = {"n_mels": 20, "hop_length": 64, "n_flows": 4, "early_every": 4, "channels": 4, "n_layers": 2, "lpc_order": 8}
SETTINGS = {
    "loss_conf": {"windows": [256, 128], "refine": 1, "mel_smoothing_prob": 0.25, "activation_penalty": 1.0},
    "adversarial_conf": {
        "periods": [2, 3], "period_channels": 2, "max_channels": 4, "stft_filters": 1, "start": 2, "lr_ratio": 1.5,
    },
    "model_conf": {"ema_decay": 0.9},
    "optim_conf": {"lr": 1e-3, "betas": [0.8, 0.99]},
    "variation_conf": {"level": 6.0, "pitch": 0.05},
    "segment_frames": 48,
    "batch_size": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A model, two speakers and a configuration: the command's options."""
    root = tmp_path_factory.mktemp("minutes")
    torch.manual_seed(0)
    flow = stir(MelGlow(**SIZES))
    flow.set_mel_bands(*CONVENTION.band_powers())
    folder.save(root / "start", Checkpoint(flow, CONVENTION, {}, 1))
    for speaker in ("a", "b"):
        (root / "corpus" / speaker).mkdir(parents=True)
        soundfile.write(root / "corpus" / speaker / "1.flac", speech(1.0, 16_000).numpy(), 16_000)
    (root / "conf.yaml").write_text(yaml.safe_dump(SETTINGS))
    return ["--corpus", str(root / "corpus"), "--config", str(root / "conf.yaml"), "--pretrained", str(root / "start"),
            "--device", "cpu", "--log-interval", "2"]  # fmt: skip


def same_state(a, b) -> None:
    """Bit for bit, but for the clock."""
    a, b = (torch.load(out / minutes.STATE, weights_only=True) for out in (a, b))
    for state in (a, b):
        state["place"].pop("seconds")
        for entry in state["log"]:
            entry.pop("seconds")
    assert flat(a) == flat(b)


def flat(value):
    if isinstance(value, torch.Tensor):
        return value.flatten().tolist()
    if isinstance(value, dict):
        return {name: flat(each) for name, each in value.items()}
    return [flat(each) for each in value] if isinstance(value, list | tuple) else value


def test_a_killed_run_goes_on_as_if_nothing_had_been(given, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert minutes.main([*given, "--steps", "6", "-o", str(whole)]) == 0
    command = [sys.executable, "-m", "melglow_plugin.espnet.minutes", *given, "--steps", "6", "--save-seconds", "0"]
    process = subprocess.Popen([*command, "-o", str(killed)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (killed / minutes.STATE).is_file() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # in the midst of it
    assert 1 <= torch.load(killed / minutes.STATE, weights_only=True)["place"]["step"] < 6
    assert minutes.main([*given, "--steps", "6", "-o", str(killed)]) == 0
    same_state(whole, killed)


def test_its_results(given, tmp_path):
    assert minutes.main([*given, "--steps", "4", "-o", str(tmp_path)]) == 0
    model = folder.load(tmp_path / "model")
    assert model.refine == 1 and model.convention == CONVENTION and model.training["steps"] == 4
    start = folder.load(given[5])
    moved = [(a - b).abs().max() for a, b in zip(model.flow.parameters(), start.flow.parameters(), strict=True)]
    assert max(moved) > 1e-6 and (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    log = json.loads((tmp_path / "log.json").read_text())["log"]
    assert [entry["step"] for entry in log] == [2, 4] and all(entry["skipped"] == 0 for entry in log)
    assert {"nll", "stft", "mel", "real", "adversarial", "grad_norm", "critic_grad_norm"} <= set(log[0])
    # A finished run does nothing, and its discriminators serve the next one.
    assert minutes.main([*given, "--steps", "4", "-o", str(tmp_path)]) == 0
    other = [*given, "--steps", "1", "--discriminator", str(tmp_path / minutes.DISCRIMINATOR)]
    assert minutes.main([*other, "-o", str(tmp_path / "other")]) == 0


# A machine that has nothing but this, the standard library, and what torch and soundfile need themselves.
BARE = """
import runpy, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

ALLOWED = {
    "torch", "numpy", "safetensors", "yaml", "soundfile", "tqdm", "espnet", "espnet2", "melglow_plugin",
    "functorch", "torchgen", "triton", "typing_extensions", "sympy", "mpmath", "jinja2", "networkx", "filelock",
    "fsspec", "_soundfile", "_soundfile_data", "cffi", "_cffi_backend", "pycparser", "_yaml", "__main__",
}

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        is_there = top in {*sys.stdlib_module_names, *ALLOWED} or top.startswith("_sysconfigdata")
        return super().find_spec(name, path, target) if is_there else None

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Bare]
sys.argv[0] = "minutes"
runpy.run_module("melglow_plugin.espnet.minutes", run_name="__main__")
"""


@pytest.mark.parametrize("stft_filters, status", [(0, 0), (1, 2)])
def test_a_bare_machine_is_enough(given, tmp_path, stft_filters, status):
    adversarial = {**SETTINGS["adversarial_conf"], "stft_filters": stft_filters}
    (tmp_path / "conf.yaml").write_text(yaml.safe_dump({**SETTINGS, "adversarial_conf": adversarial}))
    options = [*given, "--config", str(tmp_path / "conf.yaml"), "--steps", "1", "-o", str(tmp_path / "out")]
    checkout = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(
        [sys.executable, "-c", BARE, *options], env={**os.environ, **checkout}, capture_output=True, text=True
    )
    assert result.returncode == status, result.stderr
    if status:
        assert result.stderr.splitlines()[-1] == "melglow: No module named 'torchaudio'"
        return
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"model", minutes.DISCRIMINATOR, "log.json", minutes.STATE}  # no curve without matplotlib
    weights = load_file(tmp_path / "out" / "model" / folder.WEIGHTS_FILE)
    learned = dict(folder.load(tmp_path / "out" / "model").flow.named_parameters())
    assert {weights[name].dtype for name in learned} == {torch.float16}


def test_lvcnet_is_trained_and_another_model_than_the_configurations_is_refused(given, tmp_path, capsys):
    (tmp_path / "conf.yaml").write_text(yaml.safe_dump({**SETTINGS, "vocoder": "lvcnet"}))
    options = [*given, "--config", str(tmp_path / "conf.yaml"), "--steps", "2", "-o", str(tmp_path / "out")]
    assert minutes.main(options) == 2
    assert f"vocoder lvcnet in {tmp_path / 'conf.yaml'}, melglow in {given[5]}" in capsys.readouterr().err
    torch.manual_seed(0)
    sizes = {name: size for name, size in SIZES.items() if name not in ("n_flows", "early_every")}
    start = stir(LVCNetGenerator(**sizes, n_blocks=2))
    start.set_mel_bands(*CONVENTION.band_powers())
    folder.save(tmp_path / "start", Checkpoint(start, CONVENTION, {}, 0))
    assert minutes.main([*options, "--pretrained", str(tmp_path / "start")]) == 0
    found = folder.load(tmp_path / "out" / "model").flow
    assert isinstance(found, LVCNetGenerator) and (tmp_path / "out" / "curve.png").is_file()
    entry = json.loads((tmp_path / "out" / "log.json").read_text())["log"][-1]
    assert entry["step"] == 2 and entry["skipped"] == 0 and "nll" not in entry and entry["stft"] > 0


def test_minutes_end_in_time(given, tmp_path, monkeypatch):
    monkeypatch.setattr(minutes, "CLOSING_SECONDS", 1)
    began = time.monotonic()
    assert minutes.main([*given, "--minutes", "0.25", "-o", str(tmp_path)]) == 0
    assert 13 < time.monotonic() - began < 25
    log = json.loads((tmp_path / "log.json").read_text())["log"]
    assert log[-1]["lr"] < log[len(log) // 2]["lr"]


@pytest.mark.parametrize(
    "change, message",
    [
        (["--minutes", "-1"], "--minutes is not above 0"),
        (["--corpus", "nowhere", "--steps", "1"], "nowhere is neither a folder nor a list of recordings"),
        (["--config", "nowhere.yaml", "--steps", "1"], "nowhere.yaml: no such file"),
        (["--pretrained", "nowhere", "--steps", "1"], "nowhere/config.json is missing"),
        (["--minutes", "0.0001"], "--minutes 0.0001: reading the corpus took"),
        (["--speaker-cap", "2", "--steps", "1"], "cap of 2 is no share"),
        (["--device", "cuda:99", "--steps", "1"], "--device cuda:99: "),
        (["--device", "gpu", "--steps", "1"], "--device gpu: "),
    ],
)
def test_bad_input_is_one_line(given, tmp_path, change, message, capsys):
    assert minutes.main([*given, *change, "-o", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_mel_is_the_configurations_unless_kept(given, tmp_path, capsys):
    for fs, out, status in ((16_000, "other", 0), (22_050, "refused", 2)):
        mel = {"fs": fs, "n_fft": 256, "hop_length": 64, "n_mels": 24}
        (tmp_path / "conf.yaml").write_text(yaml.safe_dump({**SETTINGS, "feats_extract_conf": mel}))
        options = [*given, "--config", str(tmp_path / "conf.yaml"), "--steps", "1"]
        assert minutes.main([*options, "-o", str(tmp_path / out)]) == status
    assert folder.load(tmp_path / "other" / "model").convention.n_mels == 24
    assert "sample_rate 16000 -> 22050 (--keep-mel trains it with its own)" in capsys.readouterr().err
    assert minutes.main([*options, "--keep-mel", "-o", str(tmp_path / "kept")]) == 0
    assert folder.load(tmp_path / "kept" / "model").convention == CONVENTION


def test_a_state_of_another_run_is_refused(given, tmp_path, capsys):
    assert minutes.main([*given, "--steps", "1", "-o", str(tmp_path)]) == 0
    assert minutes.main([*given, "--steps", "2", "--speaker-cap", "0.5", "-o", str(tmp_path)]) == 2
    assert "speaker_cap 1.0 there, 0.5 here: give another --out" in capsys.readouterr().err


def test_a_state_of_another_model_or_another_mel_is_refused(given, tmp_path, capsys):
    model = folder.load(given[5])
    stir(model.flow)
    folder.save(tmp_path / "other", model)
    mel = {"fs": 16_000, "n_fft": 256, "hop_length": 64, "n_mels": 20, "fmax": 7_000}
    (tmp_path / "conf.yaml").write_text(yaml.safe_dump({**SETTINGS, "feats_extract_conf": mel}))
    assert minutes.main([*given, "--steps", "1", "-o", str(tmp_path / "out")]) == 0
    for option, path, says in (
        ("--pretrained", "other", "pretrained start (weights "),
        ("--config", "conf.yaml", "mel fmax 7600.0 there, 7000.0 here"),
    ):
        assert minutes.main([*given, option, str(tmp_path / path), "--steps", "2", "-o", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert says in error and error.endswith("give another --out")


def test_rates_rise_and_fall():
    config = MinutesConfig(lr=1e-3, warm_up=10, critic_lr_ratio=2.0, critic_start=20)
    assert config.rates(0, 0.0) == pytest.approx((1e-4, 2e-3 / 50, 0.0))
    assert config.rates(200, 0.5) == pytest.approx((5e-4, 1e-3, 1.0))
    assert config.rates(69, 0.0)[2] == pytest.approx(0.5)
    assert config.rates(900, 1.0) == pytest.approx((0.0, 4e-5, 1.0))


def test_means_leave_out_what_is_not_finite():
    means = Means()
    for value, skipped in ((1.0, 0.0), (3.0, 0.0), (float("nan"), 0.0), (50.0, 1.0)):
        means.add({"nll": torch.tensor(value), "skipped": torch.tensor(skipped)})
    assert means.report() == {"nll": 2.0, "skipped": 2}


def test_a_clock_goes_on_where_the_run_stood(monkeypatch):
    class Stub:
        step, progress, seconds = 32, 0.5, 100.0
        corpus = type("", (), {"device": torch.device("cpu")})

    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(Stub, None, 160.0, began=980.0)  # 100 s before, 20 s to read the corpus: 40 s are left for a half
    now[0] = 1020.0
    clock.look()
    assert Stub.progress == pytest.approx(0.75) and Stub.seconds == pytest.approx(140.0)
