"""The configurations of other sample rates, and benchmarks/rates.py, which trains each for a few steps."""

import json
import sys
from pathlib import Path

import pytest
import soundfile
from conftest import speech

from melglow_plugin import MelConvention
from melglow_plugin.files import read_mapping
from melglow_plugin.model.melglow import build

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
rates = pytest.importorskip("rates")
from melglow_plugin.training.corpus_voices import Recording  # noqa: E402

RATES = {"melglow_16k": 16_000, "melglow_24k": 24_000, "melglow_44k": 44_100, "melglow_48k": 48_000}


@pytest.mark.parametrize("name", RATES)
def test_a_configuration_differs_from_the_universal_one_by_its_rate_alone(name):
    ours, universal = (read_mapping(rates.CONF / f"{each}.yaml") for each in (name, "melglow_universal"))
    changed = {key for key in universal if ours.pop(key) != universal[key]}
    assert not ours and changed <= {"vocoder_conf", "feats_extract_conf", "segment_frames"}
    convention, sizes, _, values = rates.Setting(name).read()
    assert convention.sample_rate == RATES[name]
    assert 15_000 < values["segment_frames"] * convention.hop_length < 33_000  # samples


@pytest.mark.parametrize("setting", [each[0] for each in rates.settings()], ids=lambda setting: setting.key)
def test_every_setting_can_be_built(setting):
    convention, sizes, _, values = setting.read()
    flow = build(values["vocoder"], {"n_mels": convention.n_mels, "hop_length": convention.hop_length, **sizes})
    assert flow.hop_length % flow.squeeze_factor == 0


def test_mels_are_those_of_espnets_recipes():
    assert rates.Setting("melglow_16k").read()[0] == MelConvention.preset("espnet", 16_000)
    assert rates.Setting("melglow_24k").read()[0] == MelConvention.preset("espnet", 24_000)


def test_a_stopped_run_goes_on_and_one_that_is_done_is_kept(tmp_path, monkeypatch, capsys):
    recordings = []
    for index in range(10):
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, (0.3 + 0.05 * index) * speech(0.6, 24_000).numpy(), 24_000)
        recordings.append(Recording(path, "anna"))
    setting = rates.Setting("melglow_16k", {"n_layers": 1, "n_flows": 2})
    state, step, steps = tmp_path / "rates.pt", rates.Training.step, []
    monkeypatch.setattr(rates, "DEV_EVERY", 1)

    def stopped(self, number):
        steps.append(number)
        if steps == [0, 1]:
            raise KeyboardInterrupt
        return step(self, number)

    whole = rates.run(setting, 2, recordings, state)
    monkeypatch.setattr(rates.Training, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        rates.run(setting, 2, recordings, state)
    found = rates.run(setting, 2, recordings, state)  # goes on
    assert steps == [0, 1, 1] and not state.exists()
    assert found["dev"] == whole["dev"] and found["train"] == whole["train"]
    assert (found["recordings"], found["sample_rate"], len(found["train"])) == (2, 16_000, 2)
    assert [each["step"] for each in found["dev"]] == [0, 1, 2] and found["dev"][0]["nll"] < 0
    out = tmp_path / "rates.json"
    out.write_text(json.dumps({"melglow_16k": found}))
    monkeypatch.setattr(rates, "settings", lambda: [(rates.Setting("melglow_16k"), 2)])
    monkeypatch.setattr(sys, "argv", ["rates.py", str(tmp_path), "-o", str(out), "--plot", str(tmp_path / "a.png")])
    monkeypatch.setattr(rates, "run", None)  # would fail
    pytest.importorskip("matplotlib")
    rates.main()
    assert "| melglow_16k | 16000 | 256 | 8 | 32 | 0, 2 |" in capsys.readouterr().out and (tmp_path / "a.png").exists()
