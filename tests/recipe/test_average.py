"""lab/average.py: the middle of two models."""

import subprocess
import sys
from pathlib import Path

import torch
from conftest import stir

from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.checkpoint.adapt import without_early_outputs

SCRIPT = Path(__file__).parents[2] / "egs" / "ljspeech" / "voc1" / "lab" / "average.py"
SIZES = {"n_flows": 3, "channels": 4, "n_layers": 2, "predictor_channels": 6}


def average(*arguments: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=300)


def saved(folder: Path, scale: float, convention: MelConvention, facts: dict | None = None, **sizes) -> Vocoder:
    vocoder = Vocoder(stir(MelGlow(**{**SIZES, **sizes}), scale), convention, facts or {}, refine=2)
    vocoder.save_pretrained(folder)
    return vocoder


def test_the_middle_of_two_models_keeps_the_facts_of_the_last(tmp_path):
    torch.manual_seed(0)
    one = saved(tmp_path / "a", 0.1, MelConvention.espnet())
    two = saved(tmp_path / "b", 0.3, MelConvention.espnet(), {"steps": 7, "metrics": {"PESQ": "4"}})
    result = average(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    found = Vocoder.from_pretrained(tmp_path / "out")
    for name, value in found.flow.state_dict().items():
        torch.testing.assert_close(value, (one.flow.state_dict()[name] + two.flow.state_dict()[name]) / 2)
    assert found.refine == 2 and found.training_facts == {"steps": 7}


def test_one_that_went_on_without_early_outputs_meets_one_that_has_them(tmp_path):
    saved(tmp_path / "a", 0.1, MelConvention.espnet(), early_every=1)
    flow = without_early_outputs(Vocoder.from_pretrained(tmp_path / "a").flow)
    Vocoder(flow, MelConvention.espnet()).save_pretrained(tmp_path / "b")
    result = average(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    for name, value in Vocoder.from_pretrained(tmp_path / "out").flow.state_dict().items():
        torch.testing.assert_close(value, flow.state_dict()[name])


def test_models_of_other_sizes_or_mels_have_no_middle(tmp_path):
    saved(tmp_path / "a", 0.1, MelConvention.espnet())
    for folder, convention, sizes, says in (
        ("b", MelConvention.espnet(), {"channels": 6}, "sizes"), ("c", MelConvention.espnet(fmin=0), {}, "mel"),
    ):  # fmt: skip
        saved(tmp_path / folder, 0.1, convention, **sizes)
        result = average(tmp_path / "a", tmp_path / folder, "-o", tmp_path / "out")
        assert result.returncode == 2 and f"{tmp_path / 'a'}: {says}" in result.stderr
    assert not (tmp_path / "out").exists()
