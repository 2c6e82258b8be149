"""Fine-tuning on the mels of ESPnet's acoustic model: its teacher-forced decoding, then the recipe."""

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
import zygote
from conftest import speech
from espnet_parts import ROOT, TACOTRON2, python, write_acoustic

from melglow_plugin import MelConvention

pytest.importorskip("espnet2")
VOC1 = ROOT / "egs" / "ljspeech" / "voc1"
SETS = {"tr_no_dev": 3, "dev": 2, "eval1": 1}
DECODED = Path("exp/tts/decode_use_teacher_forcingtrue")


@pytest.fixture(scope="module")
def tts1(tmp_path_factory) -> Path:
    """An ESPnet recipe after decoding with teacher forcing: its lists hold paths that start from its folder."""
    from espnet2.bin.tts_inference import main as decode

    folder = tmp_path_factory.mktemp("tts1")
    convention, mels = MelConvention.espnet(), []
    with contextlib.chdir(folder):
        for name, count in SETS.items():
            data = Path("dump/raw") / name
            data.mkdir(parents=True)
            for i in range(count):
                wav = (0.5 + 0.1 * i) * speech(0.4 + 0.05 * i).float()
                mels.append(convention.extract(wav))
                soundfile.write(data / f"{name}{i}.wav", wav.numpy(), 22_050)
            (data / "wav.scp").write_text("".join(f"{name}{i} {data / f'{name}{i}.wav'}\n" for i in range(count)))
            (data / "text").write_text("".join(f"{name}{i} HELLO\n" for i in range(count)))
        frames = torch.cat(mels, dim=1).double().numpy()
        Path("exp/tts").mkdir(parents=True)
        np.savez("exp/tts/feats_stats.npz", count=frames.shape[1], sum=frames.sum(1), sum_square=(frames**2).sum(1))
        stats = f"stats_file={folder / 'exp/tts/feats_stats.npz'}"
        write_acoustic(Path("exp/tts"), "tacotron2", TACOTRON2, normalize="global_mvn", normalize_conf=stats)
        for name in ("tr_no_dev", "dev"):
            data = Path("dump/raw") / name
            decode(["--output_dir", str(DECODED / name), "--use_teacher_forcing", "true", "--num_workers", "0",
                    "--train_config", "exp/tts/config.yaml", "--model_file", "exp/tts/model.pth",
                    "--data_path_and_name_and_type", f"{data}/text,text,text",
                    "--data_path_and_name_and_type", f"{data}/wav.scp,speech,sound"])  # fmt: skip
    return folder


def check_corpus(tts1: Path, out: Path, check: bool = True) -> subprocess.CompletedProcess:
    return python(str(VOC1 / "local" / "check_corpus.py"), str(tts1 / "dump" / "raw"), str(out), "--config",
                  str(ROOT / "conf" / "melglow_tiny.yaml"), "--gta", str(tts1 / DECODED), check=check)  # fmt: skip


def test_the_recipe_trains_on_teacher_forced_features(tts1, tmp_path):
    command = [str(VOC1 / "run.sh"), "--train_config", "conf/melglow_tiny.yaml", "--stage", "1", "--stop_stage", "2",
               "--dumpdir", str(tts1 / "dump"), "--gta", str(tts1 / DECODED), "--expdir", str(tmp_path / "exp"),
               "--max_epoch", "1", "--train_args", "--use_matplotlib false",
               "--python", str(zygote.shared().python(tmp_path))]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    exp = tmp_path / "exp" / "melglow_tiny_gta"
    paths = yaml.safe_load((exp / "config.yaml").read_text())["train_data_path_and_name_and_type"]
    assert [entry[1:] for entry in paths] == [["speech", "sound"], ["feats", "npy"]]
    line = Path(paths[1][0]).read_text().splitlines()[0].split()
    made = np.load(tts1 / DECODED / "tr_no_dev" / "denorm" / "tr_no_dev0.npy")
    assert line[0] == "tr_no_dev0" and np.array_equal(np.load(line[1]), made)
    assert (exp / "valid.loss.best.pth").exists()
    assert "tr_no_dev: feats lie " in result.stdout and "dev: 2 recordings, 0 left out" in result.stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda feats: np.concatenate([feats, feats[-1:]]),
            r"feats of shape \(36, 80\), frames and bins .* \(35, 80\)",
        ),
        (lambda feats: feats + 2.4, r"feats lie \d+\.\d dB from the recording's mel, at most 20"),
        (lambda feats: feats * np.log(10), r"feats lie \d+\.\d dB from the recording's mel, at most 20"),
        (lambda feats: feats * np.nan, "feats lie nan dB"),
    ],
    ids=["one frame too many", "normalised", "natural logarithm", "not finite"],
)
def test_features_that_are_not_the_recordings_are_left_out_by_name(tts1, tmp_path, change, says):
    copy = tmp_path / "tts1"
    shutil.copytree(tts1, copy)
    path = copy / DECODED / "tr_no_dev" / "denorm" / "tr_no_dev0.npy"
    np.save(path, change(np.load(path)))
    result = check_corpus(copy, tmp_path / "lists")
    assert re.search(f"tr_no_dev: left out tr_no_dev0 {says}", result.stdout)
    assert "tr_no_dev: 2 recordings, 1 left out" in result.stdout
    for scp in ("wav.scp", "feats.scp"):
        keys = [line.split()[0] for line in (tmp_path / "lists" / "tr_no_dev" / scp).read_text().splitlines()]
        assert keys == ["tr_no_dev1", "tr_no_dev2"]


def test_a_set_without_features_is_refused(tts1, tmp_path):
    copy = tmp_path / "tts1"
    shutil.copytree(tts1, copy)
    (copy / DECODED / "dev" / "denorm" / "feats.scp").unlink()
    result = check_corpus(copy, tmp_path / "lists", check=False)
    assert result.returncode != 0 and "dev/denorm/feats.scp is missing" in result.stderr
    assert "Traceback" not in result.stderr
