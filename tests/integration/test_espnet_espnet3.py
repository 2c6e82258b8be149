"""ESPnet3's stages train and decode the task that ESPnet2 trains: Lightning, and a Dask cluster of two workers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import speech
from espnet_parts import ROOT

for package in ("espnet2", "lightning", "distributed"):
    pytest.importorskip(package)
RECIPE = ROOT / "egs" / "ljspeech" / "voc1_espnet3"
NAMES = [f"LJ001-000{i}" for i in range(7)]
SPLITS = {"train": NAMES[:4], "dev": NAMES[4:6], "eval": NAMES[6:]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The recipe after all its stages, on made-up recordings."""
    root = tmp_path_factory.mktemp("espnet3")
    (root / "corpus" / "wavs").mkdir(parents=True)
    (root / "corpus" / "splits").mkdir()
    for i, name in enumerate(NAMES):
        path = root / "corpus" / "wavs" / f"{name}.wav"
        soundfile.write(path, (0.5 + 0.05 * i) * speech(0.5 + 0.05 * i).numpy(), 22_050)
    (root / "corpus" / "metadata.csv").write_text("".join(f"{name}|Text|text\n" for name in NAMES))
    for name, keys in SPLITS.items():
        (root / "corpus" / "splits" / f"{name}.txt").write_text("\n".join(keys) + "\n")
    recipe = root / "voc1_espnet3"
    shutil.copytree(RECIPE, recipe, ignore=shutil.ignore_patterns("exp", "data"))
    tiny = yaml.safe_load((recipe / "conf" / "tiny.yaml").read_text())
    (recipe / "conf" / "tiny.yaml").write_text(yaml.safe_dump(tiny | {"corpus": str(root / "corpus")}))
    data = {"data_src": "melglow_plugin.espnet.espnet3.data",
            "data_src_args": {"split": "eval1", "data_dir": "data", "sample_rate": 22_050}}  # fmt: skip
    inference = {"dataset": {"test": [{"name": "eval1", **data}]}}
    (recipe / "conf" / "inference.yaml").write_text(yaml.safe_dump(inference))
    command = [sys.executable, "run.py", "--stages", "create_dataset", "collect_stats", "train", "infer", "measure"]
    for role, name in (("training", "tiny"), ("inference", "inference"), ("metrics", "metrics")):
        command += [f"--{role}_config", f"conf/{name}.yaml"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=recipe, env=env, capture_output=True, text=True, timeout=1500)
    assert result.returncode == 0, result.stderr[-3000:]
    return recipe


def test_two_workers_collect_the_statistics_that_espnet2_collects(finished):
    from melglow_plugin.espnet.task import read_mel_stats
    from melglow_plugin.mel.convention import MelConvention

    split = finished / "exp" / "stats_tiny" / "train"
    assert len(list(split.glob("split.*/feats_stats.npz"))) == 2
    wavs = [soundfile.read(finished.parent / "corpus" / "wavs" / f"{name}.wav", dtype="float32")[0] for name in NAMES]
    mels = torch.cat([MelConvention.espnet().extract(torch.from_numpy(wav)) for wav in wavs[:4]], dim=1)
    mean, std = read_mel_stats(split / "feats_stats.npz")
    torch.testing.assert_close(mean, mels.mean(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(std, mels.std(1, correction=0), atol=1e-3, rtol=1e-3)


def test_what_lightning_trained_is_a_model_of_the_same_task(finished):
    from melglow_plugin import Vocoder

    exp = finished / "exp" / "tiny"
    state = torch.load(exp / "valid.loss.ave_1best.pth", weights_only=True)
    vocoder = Vocoder.from_pretrained(exp / "valid.loss.ave_1best.pth")
    assert int(state["steps"]) == vocoder.training_facts["steps"] in (3, 6)
    mean = np.load(finished / "exp" / "stats_tiny" / "train" / "feats_stats.npz")
    torch.testing.assert_close(vocoder.flow.mel_mean, torch.from_numpy(mean["sum"] / mean["count"]).float())
    wav = speech(0.3).float()
    mel = vocoder.convention.extract(wav)
    torch.testing.assert_close(vocoder.decode(vocoder.encode(wav), mel)[: len(wav)], wav, atol=1e-4, rtol=0)


def test_copies_are_those_of_the_vocoder_and_have_scores(finished):
    from melglow_plugin import Vocoder

    vocoder = Vocoder.from_pretrained(finished / "exp" / "tiny" / "valid.loss.ave_1best.pth")
    folder = finished / "exp" / "tiny" / "inference"
    key, path = (folder / "eval1" / "wav.scp").read_text().split()
    recording, _ = soundfile.read(finished.parent / "corpus" / "wavs" / f"{key}.wav", dtype="float32")
    copy, rate = soundfile.read(finished / path, dtype="float32")
    assert (rate, len(copy)) == (22_050, len(recording))
    expected = vocoder(vocoder.convention.extract(torch.from_numpy(recording)), seed=0)[: len(recording)]
    torch.testing.assert_close(torch.from_numpy(copy), expected, atol=1e-3, rtol=0)
    [scores] = json.loads((folder / "metrics.json").read_text()).values()
    assert set(scores["eval1"]) == {"mel_l1", "mr_stft"}
    assert all(np.isfinite(value) and value > 0 for value in scores["eval1"].values())


def test_the_defaults_are_those_of_the_shared_configuration():
    shared = yaml.safe_load((ROOT / "conf" / "melglow.yaml").read_text())
    ours = yaml.safe_load((ROOT / "melglow_plugin/espnet/espnet3/conf/training.yaml").read_text())
    for name in ("vocoder", "feats_extract", "feats_extract_conf", "loss_conf", "model_conf"):
        assert ours["model"][name] == shared[name], name
    assert ours["model"]["vocoder_conf"].items() >= shared["vocoder_conf"].items()
    for loader, part in (("train", ""), ("valid", "valid_")):
        factory = ours["dataloader"][loader]["iter_factory"]
        assert factory["batches"]["batch_size"] == shared[f"{part}batch_size"]
        assert ours["dataset"]["preprocessor"][loader]["frames"] == shared[f"{part}segment_frames"]
    assert ours["dataloader"]["train"]["iter_factory"]["num_iters_per_epoch"] == shared["num_iters_per_epoch"]
    assert float(ours["optimizer"]["lr"]) == float(shared["optim_conf"]["lr"])
    assert ours["scheduler"]["gamma"] == shared["scheduler_conf"]["gamma"]
    assert ours["trainer"]["gradient_clip_val"] == shared["grad_clip"]
    assert ours["trainer"]["max_epochs"] == shared["max_epoch"]


def test_a_recording_at_another_rate_and_a_missing_corpus_are_refused(tmp_path):
    from melglow_plugin.espnet.espnet3.data import Dataset, DatasetBuilder

    (tmp_path / "dev").mkdir()
    soundfile.write(tmp_path / "a.wav", np.zeros(900), 16_000)
    (tmp_path / "dev" / "wav.scp").write_text(f"a {tmp_path / 'a.wav'}\n")
    with pytest.raises(ValueError, match="has 16000 Hz, the model 22050 Hz"):
        Dataset("dev", str(tmp_path), 22_050)[0]
    builder = DatasetBuilder()
    assert not builder.is_source_prepared(corpus=str(tmp_path))
    with pytest.raises(ValueError, match=r"has no metadata\.csv"):
        builder.prepare_source(corpus=str(tmp_path))
