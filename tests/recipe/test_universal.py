"""egs/universal/voc1: stage 0 on recordings of made-up speakers, stage 1 of the shared recipe, and their refusals."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from checkout import ROOT, checkout
from conftest import speech

from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.files import read_scp, read_table

pytest.importorskip("espnet2")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    root = checkout(tmp_path_factory.mktemp("checkout"), "egs/ljspeech/voc1", "egs/universal/voc1")
    return root / "egs" / "universal" / "voc1"


def run(recipe: Path, out: Path, *options: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [str(recipe / "run.sh"), "--train_config", "conf/melglow_tiny.yaml", "--pretrained", ""]
    command += ["--data", str(out / "data"), "--expdir", str(out / "exp"), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)


@pytest.fixture(scope="module")
def voices(tmp_path_factory) -> Path:
    """Five speakers at three rates; one has a silent recording and one recording twice."""
    folder = tmp_path_factory.mktemp("voices")
    for number, (name, rate) in enumerate({"a": 48_000, "b": 24_000, "c": 22_050, "d": 22_050, "e": 44_100}.items()):
        (folder / name).mkdir()
        for take in range(2):
            wav = (0.3 + 0.1 * take + 0.05 * number) * speech(1.0 + 0.1 * take, rate).numpy()
            soundfile.write(folder / name / f"{name}{take}.wav", wav, rate)
    soundfile.write(folder / "c" / "silent.wav", np.zeros(30_000), 22_050)
    (folder / "c" / "again.wav").write_bytes((folder / "c" / "c0.wav").read_bytes())
    return folder


def test_speakers_are_held_out_resampled_checked_and_balanced(recipe, voices, tmp_path):
    options = ["--train", f"{voices}/b {voices}/c {voices}/e", "--dev", f"{voices}/d", "--eval", f"{voices}/a"]
    result = run(recipe, tmp_path, *options, "--stop_stage", "1", "--speaker_cap", "0.5")
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    for part in ("tr_no_dev", "dev", "eval1"):
        for path in read_scp(tmp_path / "exp/lists" / part / "wav.scp").values():
            assert soundfile.info(path).samplerate == 22_050
    assert set(read_table(tmp_path / "data/raw/eval1/utt2spk").values()) == {"a"}
    assert "c-c0 the same samples as" in (tmp_path / "data/raw/tr_no_dev/left_out.txt").read_text()
    assert "left out c-silent silence" in result.stdout
    listed = read_table(tmp_path / "exp/lists/tr_no_dev/utt2spk"), read_scp(tmp_path / "exp/lists/tr_no_dev/wav.scp")
    assert set(listed[0]) == set(listed[1]) and set(listed[0].values()) == set("bce")
    balanced = (tmp_path / "exp/lists/tr_no_dev/balanced.scp").read_text().splitlines()
    shares = [sum(line.startswith(f"{name}-") for line in balanced) for name in "bce"]
    assert min(shares) > 0 and len({line.split()[0] for line in balanced}) == len(balanced)


def test_recordings_of_one_voice_are_held_out(recipe, tmp_path):
    """A folder with spaces in its name, and a copy of a recording in it."""
    wavs = tmp_path / "my voices" / "anna" / "wavs"
    wavs.mkdir(parents=True)
    for take in range(4):
        soundfile.write(wavs / f"{take}.wav", (0.3 + 0.1 * take) * speech(1.0).numpy(), 22_050)
        (wavs / f"copy of {take}.wav").write_bytes((wavs / f"{take}.wav").read_bytes())
    options = ["--train", str(wavs.parent), "--same_speakers", "true"]
    result = run(recipe, tmp_path, *options, "--stop_stage", "1")
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    parts = [read_table(tmp_path / "data/raw" / name / "utt2spk") for name in ("tr_no_dev", "dev", "eval1")]
    assert list(map(len, parts)) == [2, 1, 1] and len(set().union(*parts)) == 4
    assert {name for part in parts for name in part.values()} == {"anna"}
    assert len((tmp_path / "data/raw/tr_no_dev/left_out.txt").read_text().splitlines()) == 4


def test_minutes_train_a_pretrained_model_and_resume(recipe, voices, tmp_path):
    flow = MelGlow(n_flows=2, channels=4, n_layers=2, lpc_order=8)
    Vocoder(flow, MelConvention.espnet()).save_pretrained(tmp_path / "start")
    options = ["--train", str(voices), "--pretrained", str(tmp_path / "start"), "--minutes", "0.5"]
    out = tmp_path / "exp" / "melglow_tiny_minutes"
    for _ in range(2):
        result = run(recipe, tmp_path, *options, "--stop_stage", "2")
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    assert {"model", "discriminator.safetensors", "log.json", "state.pt", "train.log"} <= {
        p.name for p in out.iterdir()
    }
    trained = Vocoder.from_pretrained(out / "model")
    steps = trained.training_facts["steps"]
    assert steps > 0 and not torch.equal(trained.flow.couplings[0].net.end.bias, flow.couplings[0].net.end.bias)
    assert f"resumed at step {steps} after" in (out / "train.log").read_text()  # and nothing was left to do


DUMPS = {  # ESPnet's recipes: names of the sets, and whether these share their speakers
    "vctk": ("tr_no_dev dev eval1", True),
    "libritts": ("train-clean-460 dev-clean test-clean", False),
}


@pytest.mark.parametrize("corpus", DUMPS)
def test_the_dump_of_an_espnet_recipe_is_taken_with_its_speakers(recipe, tmp_path, corpus):
    """Recordings of 48, 44.1 and 24 kHz for a model of 24 kHz."""
    sets, shared = DUMPS[corpus]
    names = ("b0 a0", "b1", "a1") if shared else ("b0 b1", "a0", "e0")
    dump = tmp_path / "tts1" / "dump" / "raw"
    for part, keys in zip(sets.split(), names, strict=True):
        (dump / part).mkdir(parents=True)
        keys = keys.split()
        for key in keys:
            rate, level = {"a": 24_000, "b": 48_000, "e": 44_100}[key[0]], 0.4 + 0.2 * int(key[1])
            soundfile.write(tmp_path / f"{key}.wav", level * speech(2.0, rate).numpy(), rate)
        (dump / part / "wav.scp").write_text("".join(f"{k[0]}_{k} {tmp_path / k}.wav\n" for k in keys))
        (dump / part / "utt2spk").write_text("".join(f"{k[0]}_{k} p{k[0]}\n" for k in keys))
    options = ["--dumpdir", str(dump), "--sets", sets, "--train_config", "conf/melglow_24k.yaml", "--stop_stage", "1"]
    apart = run(recipe, tmp_path, *options)
    assert apart.returncode == (2 if shared else 0), apart.stderr[-2000:]
    if shared:
        assert "speaker pb is in tr_no_dev and in dev" in apart.stderr and "--same_speakers true" in apart.stderr
        apart = run(recipe, tmp_path, *options, "--same_speakers", "true")
        assert apart.returncode == 0, apart.stderr[-2000:]
    assert set(read_table(tmp_path / "data/raw/eval1/utt2spk").values()) == {"pa" if shared else "pe"}
    for part in ("tr_no_dev", "dev", "eval1"):
        for path in read_scp(tmp_path / "exp/lists" / part / "wav.scp").values():
            assert soundfile.info(path).samplerate == 24_000


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--train", "{v}/a {v}/b"],
            "2 speakers (a, b): three are needed to hold two out; --same_speakers true holds",
        ),
        (["--train", "{v}/a {v}/b", "--dev", "{v}/c", "--eval", "{v}/b"], "of eval1 is the recording"),
        (["--train", "{v}/nothing"], "nothing is neither a folder nor a list"),
        (["--train", "{v}", "--dev", "{v}/a"], "give --dev and --eval, or neither"),
        (["--train", "{v}", "--train_config", "conf/nothing.yaml"], "train_config conf/nothing.yaml does not exist"),
    ],
)
def test_mistakes_are_one_clear_line(recipe, voices, tmp_path, options, says):
    result = run(recipe, tmp_path, *(option.format(v=voices) for option in options), "--stop_stage", "0")
    assert result.returncode == 2
    assert says in result.stderr and "Traceback" not in result.stderr
