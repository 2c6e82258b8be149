"""benchmarks/voices.py: scores are kept and reused by system and clip, and its tables say what was scored."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import speech

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
pytest.importorskip("soxr")
voices = pytest.importorskip("voices")
from voices_tables import tables  # noqa: E402

from melglow_plugin.training.corpus_voices import Recording  # noqa: E402

RATE = 22_050


def system(name="half", identity="1", rate=RATE, change=lambda wav: 0.5 * wav):
    return voices.System(name, identity, rate, change)


@pytest.fixture
def clip(tmp_path):
    soundfile.write(tmp_path / "a.wav", speech(1.0, 48_000).numpy(), 48_000)
    return Recording(tmp_path / "a.wav", "anna", "F", "en")


@pytest.mark.parametrize("rate", [RATE, 24_000])
def test_a_copy_at_another_level_and_rate_is_as_good_as_the_recording(clip, rate, tmp_path):
    found = voices.score_clip(system(rate=rate), clip, RATE, ["mel_l1", "estoi"], tmp_path)
    # A copy at 24 kHz goes through two resamplings, whose edges at half the rate differ.
    assert found["mel_l1"] < (1e-3 if rate == RATE else 0.1) and found["estoi"] > 0.999
    copy, written = soundfile.read(tmp_path / "half" / "anna--a.wav")
    assert written == RATE and len(copy) == pytest.approx(RATE, abs=2)


def test_scores_are_reused_until_the_weights_change(clip, tmp_path):
    store = voices.Store(tmp_path / "scores.json")
    assert store.missing(system(), clip, ["mel_l1", "pesq"]) == ["mel_l1", "pesq"]
    store.add(system(), clip, {"mel_l1": 0.1, "pesq": float("nan")})
    assert store.missing(system(), clip, ["mel_l1", "pesq", "estoi"]) == ["estoi"]
    assert store.missing(system(identity="2"), clip, ["mel_l1"]) == ["mel_l1"]
    store.add(system(identity="2"), clip, {"mel_l1": 0.2})
    data = json.loads((tmp_path / "scores.json").read_text())
    assert data["systems"]["half"] == {"identity": "2", "scores": {"anna/a": {"mel_l1": 0.2}}}
    assert data["clips"]["anna/a"] == {"speaker": "anna", "sex": "F", "language": "en"}


def test_of_the_recording_itself_only_the_opinion_is_scored(clip, tmp_path):
    recordings = voices.peer("recordings", RATE)
    assert voices.Store(tmp_path / "s.json").missing(recordings, clip, ["pesq", "distill_mos"]) == ["distill_mos"]


def test_an_unknown_peer_and_a_model_without_name_are_refused():
    with pytest.raises(ValueError, match="--peer wavenet is none of"):
        voices.peer("wavenet", RATE)
    with pytest.raises(ValueError, match="wanted NAME=FOLDER"):
        voices.model_systems("folder", "cpu")


def test_what_would_clip_is_turned_down():
    loud = torch.from_numpy(np.sign(np.sin(np.arange(4800) * 0.05))).float()
    assert voices.resample(loud, 48_000, RATE).abs().max() <= 0.999 + 1e-6


def data(**systems):
    clips = {
        f"{s}/{i}": {"speaker": s, "sex": "F" if s == "a" else "M", "language": "en"} for s in "ab" for i in range(3)
    }
    return {
        "clips": clips,
        "systems": {
            name: {"identity": "", "scores": dict(zip(clips, rows, strict=True))} for name, rows in systems.items()
        },
    }


def test_tables_have_means_groups_and_differences():
    ours, theirs = ([{"pesq": base + i, "mcd_dtw": base - i} for i in range(6)] for base in (3.0, 2.0))
    ours[5]["pesq"] = None
    text = tables(data(ours=ours, theirs=theirs), ["ours", "theirs"], set(data()["clips"]), "theirs")
    assert "| theirs | 6 | 4.500 ±" in text
    assert "| ours | 5 | 1.000 ± 0.000 (5 of 5)" not in text
    assert "| ours | 6 | 1.000 ± 0.000 (5 of 5) |  | 1.00 ± 0.00 (0 of 6) |" in text
    assert "#### Sex: M" in text and "Language" not in text
    assert "| b | M | en | 3 | 6.50 | 6.00 |" in text


def test_clips_that_were_not_asked_for_are_left_out():
    rows = [{"pesq": float(i)} for i in range(6)]
    assert "| ours | 1 | 0.000 |" in tables(data(ours=rows), ["ours"], {"a/0"})
