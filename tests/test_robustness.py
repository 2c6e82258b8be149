"""benchmarks/robustness.py measures what it says, and the released model keeps the level of sounds new to it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import speech

from melglow_plugin import MelConvention, Vocoder
from melglow_plugin.checkpoint.pretrained import pretrained_model

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
robustness = pytest.importorskip("robustness")
RATE = 22_050
MELS = [MelConvention(), MelConvention(fmin=0, fmax=8000.0, power=2.0), MelConvention.preset("vocos", RATE)]


def sound():
    return speech(1.0).numpy()


@pytest.mark.parametrize("convention", MELS, ids=["espnet", "power", "vocos"])
def test_the_level_is_that_of_the_mel(convention):
    found = robustness.measure(sound(), 0.5 * sound(), convention)
    assert found["level"] == pytest.approx(-6.02, abs=0.05)
    assert found["level_p95"] == pytest.approx(6.02, abs=0.1)


def test_the_sound_itself_is_perfect():
    found = robustness.measure(sound(), sound(), MELS[0])
    assert found == {"level": 0, "level_p95": 0, "burst": pytest.approx(0, abs=0.01), "pop": 1}


def test_a_burst_in_a_pause_is_found():
    copy = sound()
    pause = slice(RATE, 2 * RATE)
    wav, copy = (np.concatenate([each, np.zeros(RATE)]) for each in (copy, copy))
    copy[pause][8000:8500] = 0.1 * np.sin(np.arange(500) * 0.3)
    assert robustness.measure(wav, copy, MELS[0])["burst"] > 20


def test_a_pop_is_found():
    copy = sound()
    copy[12_000] += 0.5
    assert robustness.measure(sound(), copy, MELS[0])["pop"] > 2


def test_sounds_are_what_they_are_called():
    rate = RATE
    for wav in (robustness.sweep(rate), robustness.sung(rate), robustness.music(rate)):
        assert len(wav) == 4 * rate and 0.29 < np.abs(wav).max() < 0.51
    telephone = robustness.of_speech(rate)["telephone, 300 to 3400 Hz"](sound())
    spectrum, hz = np.abs(np.fft.rfft(telephone)), np.fft.rfftfreq(len(telephone), 1 / rate)
    assert spectrum[(hz < 290) | (hz > 3410)].max() < 1e-6 * spectrum.max()


def test_a_step_at_the_start_is_no_pop_of_the_copy():
    found = robustness.measure(sound() + 0.1, sound(), MELS[0])
    assert found["pop"] < 1.2 and found["burst"] < 1.0


@pytest.fixture(scope="module")
def found():
    """All conditions, on the bundled clips of two men whom the model has not met."""
    soxr = pytest.importorskip("soxr")
    torch.set_num_threads(1)
    corpus, recordings = Path(__file__).parents[1] / "egs" / "universal" / "voc1" / "corpus", {}
    for name in ("rdh/vl09647", "thorsten/neutral"):
        wav, rate = soundfile.read(corpus / f"{name}.flac")
        recordings[name] = soxr.resample(wav, rate, RATE, "VHQ")
    return robustness.run(Vocoder.from_pretrained(pretrained_model()), recordings, rounds=None)


@pytest.mark.parametrize("name", ["silence", "noise of 1 bit"])
def test_silence_stays_silent(found, name):
    assert found[name]["burst"] < 0.5


CONDITIONS = [*robustness.by_itself(RATE), *robustness.of_speech(RATE)]
LEVELS = {"tone, 1 kHz": 2.0, "telephone, 300 to 3400 Hz": 1.25, "gain +20 dB": 1.25}  # dB; of others: 1


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_level_follows_the_mel(found, name):
    assert abs(found[name]["level"]) < LEVELS.get(name, 1.0)
    assert found[name]["level_p95"] < 4.0


@pytest.mark.parametrize("name", CONDITIONS)
def test_nothing_bursts_or_pops(found, name):
    assert found[name]["burst"] < 3.0
    assert found[name]["pop"] < 3.0


def test_the_table_marks_what_is_beyond_its_limit():
    text = robustness.table({"music": {"level": -1.5, "level_p95": 1.0, "burst": 2.0, "pop": 2.5}})
    assert "| music | **-1.50** | 1.00 | 2.00 | **2.50** |" in text
