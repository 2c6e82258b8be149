"""ESPnet2's own trainer trains the task: statistics, epochs, resume, averaging, two processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import speech
from espnet_parts import ROOT, python

pytest.importorskip("espnet2")
TINY = ROOT / "conf" / "melglow_tiny.yaml"


def train(folder: Path, *options: str, lists: Path | None = None, check: bool = True, start: bool = False):
    """Run the task's command line; the lists of recordings are those of ``folder``. ``start``: a Python of its own."""
    lists = lists or folder
    data = []
    for name, scp in (("train", lists / "train.scp"), ("valid", lists / "valid.scp")):
        data += [f"--{name}_data_path_and_name_and_type", f"{scp},speech,sound", f"--{name}_shape_file", str(scp)]
    command = ["-m", "melglow_plugin.espnet.train", "--config", str(TINY), *data, *options]
    if not start:  # ESPnet's curves take longer than the training
        return python(*command, "--use_matplotlib", "false", check=check)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], env=env, check=True, timeout=600)


@pytest.fixture(scope="module")
def lists(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    for name, count in (("train", 4), ("valid", 2)):
        lines = []
        for i in range(count):
            path = folder / f"{name}{i}.wav"
            soundfile.write(path, speech(0.4 + 0.05 * i).numpy() * (0.5 + 0.1 * i), 22_050)
            lines.append(f"{name}{i} {path}\n")
        (folder / f"{name}.scp").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def trained(lists, tmp_path_factory) -> Path:
    """Statistics, then two epochs in one go."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, "--output_dir", str(folder / "stats"), "--collect_stats", "true", lists=lists)
    stats = str(folder / "stats" / "train" / "feats_stats.npz")
    train(folder, "--output_dir", str(folder / "exp"), "--mel_stats", stats, "--keep_nbest_models", "2", lists=lists,
          start=True)  # fmt: skip
    return folder


def weights(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, weights_only=True)
    return state.get("model", state)


def test_statistics_are_those_of_the_mels(trained, lists):
    from melglow_plugin.espnet.task import read_mel_stats
    from melglow_plugin.mel.convention import MelConvention

    convention = MelConvention.espnet()
    wavs = [soundfile.read(lists / f"train{i}.wav", dtype="float32")[0] for i in range(4)]
    mels = torch.cat([convention.extract(torch.from_numpy(wav)) for wav in wavs], dim=1)
    mean, std = read_mel_stats(trained / "stats" / "train" / "feats_stats.npz")
    torch.testing.assert_close(mean, mels.mean(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(std, mels.std(1, correction=0), atol=1e-3, rtol=1e-3)
    state = weights(trained / "exp" / "checkpoint.pth")
    torch.testing.assert_close(state["flow.mel_mean"], mean)


def test_what_a_run_leaves(trained):
    exp = trained / "exp"
    config = yaml.safe_load((exp / "config.yaml").read_text())
    assert config["vocoder_conf"]["n_mels"] == 80 and config["loss_conf"]["sample_sigma"] == 0.6
    assert (exp / "valid.loss.best.pth").exists() and (exp / "images" / "nll.png").exists()
    samples = list((exp / "att_ws").glob("*/*"))
    assert {p.suffix for p in samples} == {".wav", ".png"}
    stats = torch.load(exp / "checkpoint.pth", weights_only=True)["reporter"]["stats"]
    assert {"nll", "bits", "stft", "mel", "log_det", "grad_norm", "optim0_lr0", "train_time"} <= set(stats[2]["train"])
    assert {"nll", "bits", "stft", "mel", "loss"} <= set(stats[2]["valid"])


def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(trained, lists, tmp_path):
    stats = str(trained / "stats" / "train" / "feats_stats.npz")
    for epochs in ("1", "2"):
        train(tmp_path, "--output_dir", str(tmp_path), "--mel_stats", stats, "--max_epoch", epochs, "--resume", "true",
              lists=lists)  # fmt: skip
    whole = torch.load(trained / "exp" / "checkpoint.pth", weights_only=True)
    resumed = torch.load(tmp_path / "checkpoint.pth", weights_only=True)
    for name, value in whole["model"].items():
        assert torch.equal(value, resumed["model"][name]), name
    for a, b in zip(whole["optimizers"][0]["state"].values(), resumed["optimizers"][0]["state"].values(), strict=True):
        assert torch.equal(a["exp_avg"], b["exp_avg"]) and torch.equal(a["exp_avg_sq"], b["exp_avg_sq"])


def test_an_averaged_model_stays_invertible(trained):
    from melglow_plugin import Vocoder
    from melglow_plugin.checkpoint.espnet import from_espnet_trainer

    path = trained / "exp" / "valid.loss.ave_2best.pth"
    vocoder = Vocoder.from_checkpoint(from_espnet_trainer(path, trained / "exp" / "config.yaml"))
    wav = speech(0.3).float()
    mel = vocoder.convention.extract(wav)
    torch.testing.assert_close(vocoder.decode(vocoder.encode(wav), mel)[: len(wav)], wav, atol=1e-4, rtol=0)


def test_no_inverse_and_no_flag_reaches_a_checkpoint(trained):
    state = weights(trained / "exp" / "checkpoint.pth")
    assert not [name for name in state if "inverse" in name]
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}


def test_averaged_weights_are_the_ones_released(trained):
    from melglow_plugin.checkpoint.espnet import from_espnet_trainer

    state = weights(trained / "exp" / "checkpoint.pth")
    vocoder = from_espnet_trainer(trained / "exp" / "checkpoint.pth")
    name = "convs_1x1.0.weight"
    assert torch.equal(vocoder.flow.state_dict()[name], state[f"ema.module.{name}"])
    assert not torch.equal(state[f"ema.module.{name}"], state[f"flow.{name}"])
    assert vocoder.training["steps"] == 6


def test_two_processes_train_and_agree(lists, trained, tmp_path):
    stats = str(trained / "stats" / "train" / "feats_stats.npz")
    options = ["--mel_stats", stats, "--max_epoch", "1", "--dist_world_size", "2", "--dist_backend", "gloo",
               "--multiprocessing_distributed", "false", "--dist_launcher", "none",
               "--dist_init_method", f"file://{tmp_path / 'rendezvous'}", "--num_att_plot", "0"]  # fmt: skip
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(
                train, tmp_path, "--output_dir", str(tmp_path / "exp"), "--dist_rank", str(rank), *options, lists=lists
            )
            for rank in (0, 1)
        ]
        results = [job.result() for job in jobs]
    assert all(result.returncode == 0 for result in results)
    state = weights(tmp_path / "exp" / "checkpoint.pth")
    assert all(torch.isfinite(value).all() for value in state.values())
    assert int(state["steps"]) == 3


def test_continuing_from_a_released_model(lists, trained, tmp_path):
    from melglow_plugin.checkpoint.espnet import from_espnet_trainer
    from melglow_plugin.checkpoint.folder import save

    vocoder = from_espnet_trainer(trained / "exp" / "checkpoint.pth")
    save(tmp_path / "model", vocoder)
    options = ["--pretrained", str(tmp_path / "model"), "--max_epoch", "1", "--optim_conf", "lr=0.0"]
    train(tmp_path, "--output_dir", str(tmp_path / "exp"), *options, lists=lists)
    state = weights(tmp_path / "exp" / "checkpoint.pth")
    for name, value in vocoder.flow.state_dict().items():
        assert torch.equal(state[f"flow.{name}"], value), name


def test_a_released_model_learns_another_mel(lists, trained, tmp_path):
    from melglow_plugin.checkpoint.espnet import from_espnet_trainer
    from melglow_plugin.checkpoint.folder import save
    from melglow_plugin.espnet.task import read_mel_stats

    vocoder = from_espnet_trainer(trained / "exp" / "checkpoint.pth")
    save(tmp_path / "model", vocoder)
    stats = np.load(trained / "stats" / "train" / "feats_stats.npz")
    np.savez(tmp_path / "stats.npz", **{**stats, "sum": stats["sum"] + stats["count"]})
    options = ["--pretrained", str(tmp_path / "model"), "--max_epoch", "1", "--optim_conf", "lr=0.0",
               "--feats_extract_conf", "fmax=8000"]  # fmt: skip
    options += ["--mel_stats", str(tmp_path / "stats.npz")]
    result = train(tmp_path, "--output_dir", str(tmp_path / "exp"), *options, lists=lists)
    assert "was trained on another mel and is adapted" in result.stderr and "fmax 7600.0 -> 8000.0" in result.stderr
    found = from_espnet_trainer(tmp_path / "exp" / "checkpoint.pth")
    assert found.convention.fmax == 8000
    torch.testing.assert_close(found.flow.mel_mean, read_mel_stats(tmp_path / "stats.npz")[0])
    own = ("mel_mean", "mel_std", "lpc.log_power", "lpc.band_autocorrelations")
    for name, value in vocoder.flow.state_dict().items():
        if name not in own:
            same = torch.equal(found.flow.state_dict()[name], value)
            assert same == (".kernel_predictor.input_conv." not in name), name


def test_what_does_not_fit_the_released_model_is_named(lists, trained, tmp_path):
    from melglow_plugin.checkpoint.espnet import from_espnet_trainer
    from melglow_plugin.checkpoint.folder import save

    save(tmp_path / "model", from_espnet_trainer(trained / "exp" / "checkpoint.pth"))
    result = train(tmp_path, "--output_dir", str(tmp_path / "exp"), "--pretrained", str(tmp_path / "model"),
                   "--vocoder_conf", "channels=6", lists=lists, check=False)  # fmt: skip
    assert result.returncode != 0 and "channels 4 -> 6" in result.stderr


def test_a_corpus_at_another_rate_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(9000), 16_000)
    for name in ("train", "valid"):
        (tmp_path / f"{name}.scp").write_text(f"a {tmp_path / 'a.wav'}\n")
    result = train(tmp_path, "--output_dir", str(tmp_path / "exp"), check=False)
    assert result.returncode != 0
    assert "a has 16000 Hz, feats_extract_conf fs is 22050 Hz" in result.stderr
