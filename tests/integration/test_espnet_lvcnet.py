"""LVCNet in ESPnet2: trained with discriminators from the first step, and as ``--vocoder_file``."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import speech

pytest.importorskip("espnet2")

from espnet_parts import FASTSPEECH2, ROOT, python, write_acoustic

from melglow_plugin import LVCNetGenerator, Vocoder
from melglow_plugin.cli import main as melglow

SIZES = {"n_blocks": 2, "channels": 4, "n_layers": 2, "predictor_channels": 4, "predictor_layers": 1, "lpc_order": 8}


def train(folder: Path, *options: str):
    data = []
    for name in ("train", "valid"):
        scp = folder / "wav.scp"
        data += [f"--{name}_data_path_and_name_and_type", f"{scp},speech,sound", f"--{name}_shape_file", str(scp)]
    return python(
        "-m", "melglow_plugin.espnet.train", "--config", str(folder / "lvcnet.yaml"), *data, "--output_dir",
        str(folder / "exp"), *options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of one epoch with the losses of ``conf/lvcnet.yaml``, and the second one resumed."""
    folder = tmp_path_factory.mktemp("trained")
    lines = []
    for i in range(3):
        path = folder / f"{i}.wav"
        soundfile.write(path, (0.5 + 0.1 * i) * speech(0.4 + 0.05 * i).numpy(), 22_050)
        lines.append(f"clip{i} {path}\n")
    (folder / "wav.scp").write_text("".join(lines))
    tiny = yaml.safe_load((ROOT / "conf" / "melglow_tiny.yaml").read_text())
    ours = yaml.safe_load((ROOT / "conf" / "lvcnet.yaml").read_text())
    tiny |= {"vocoder": ours["vocoder"], "vocoder_conf": ours["vocoder_conf"] | SIZES, "loss_conf": ours["loss_conf"]}
    tiny |= {
        "adversarial_conf": ours["adversarial_conf"] | {"period_channels": 2, "max_channels": 4, "periods": [2, 3]}
    }
    tiny |= {
        "kernel_lr_ratio": 2.0,
        "num_att_plot": 0,
        "use_matplotlib": False,
        "segment_frames": 16,
        "keep_nbest_models": 2,
    }
    (folder / "lvcnet.yaml").write_text(yaml.safe_dump(tiny))
    for epochs in ("1", "2"):
        train(folder, "--max_epoch", epochs, "--resume", "true")
    return folder


@pytest.fixture(scope="module")
def packed(trained) -> Path:
    """``model/`` and ``espnet/`` of what was trained."""
    assert melglow(["convert", str(trained / "exp" / "valid.loss.best.pth"), "-o", str(trained / "model")]) == 0
    assert melglow(["export", str(trained / "model"), "--format", "espnet", "-o", str(trained / "espnet")]) == 0
    return trained


def test_generator_and_discriminators_learn_from_the_first_step(trained):
    stats = torch.load(trained / "exp" / "checkpoint.pth", weights_only=True)["reporter"]["stats"]
    assert {"stft", "mel", "real", "fake", "adversarial", "feature_matching", "loss"} <= set(stats[1]["train"])
    assert "nll" not in stats[1]["train"] and set(stats) == {1, 2} and stats[2]["valid"]["total_count"] > 0
    first, second = (torch.load(trained / "exp" / f"{n}epoch.pth", weights_only=True) for n in (1, 2))
    constants = ("mel_mean", "mel_std", "log_power", "band_autocorrelations")
    still = [name for name in first if torch.equal(first[name], second[name]) and not name.endswith(constants)]
    assert still == [] and any("adversary" in name for name in first)


def test_what_was_trained_is_the_vocoder_file_of_espnets_command(packed, tmp_path):
    write_acoustic(tmp_path, "fastspeech2", FASTSPEECH2)
    (tmp_path / "text").write_text("a HELLO\n")
    python(
        "-m", "melglow_plugin.run", "-m", "espnet2.bin.tts_inference", "--output_dir", str(tmp_path / "wav"),
        "--data_path_and_name_and_type", f"{tmp_path / 'text'},text,text", "--num_workers", "0",
        "--train_config", str(tmp_path / "config.yaml"), "--model_file", str(tmp_path / "model.pth"),
        "--vocoder_file", str(packed / "espnet" / "checkpoint.pkl"),
    )  # fmt: skip
    wav, rate = soundfile.read(tmp_path / "wav" / "wav" / "a.wav", dtype="float32")
    feats = np.load(next((tmp_path / "wav").glob("**/a.npy")))
    vocoder = Vocoder.from_pretrained(packed / "model")
    assert isinstance(vocoder.flow, LVCNetGenerator) and rate == 22_050 and len(wav) == len(feats) * 256
    torch.testing.assert_close(torch.from_numpy(wav), vocoder(torch.from_numpy(feats.T), seed=0), atol=2e-4, rtol=0)


def test_training_starts_from_a_model_folder(packed):
    result = train(packed, "--output_dir", str(packed / "more"), "--pretrained", str(packed / "model"), "--max_epoch",
                   "1")  # fmt: skip
    assert result.returncode == 0 and (packed / "more" / "1epoch.pth").exists()
