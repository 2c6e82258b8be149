"""The blind listening test, answered by real key presses in a browser; and what the page must not tell."""

import csv
import io
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
from browser import q

pytest.importorskip("matplotlib")

from melglow_plugin.cli import main

RATE = 22_050  # Hz
PITCH = {"aaa_low": 300.0, "zzz_high": 900.0}  # Hz, of each system's copies
CLIPS = 6


@pytest.fixture
def folders(tmp_path) -> Path:
    """Recordings of noise, and two systems whose copies are told apart by their pitch."""
    time = np.arange(RATE // 2) / RATE
    for number in range(CLIPS):
        wavs = {"recordings": 0.1 * np.random.default_rng(number).standard_normal(len(time))}
        wavs |= {name: 0.2 * np.sin(2 * np.pi * pitch * time[number:]) for name, pitch in PITCH.items()}
        for name, wav in wavs.items():
            (tmp_path / name).mkdir(exist_ok=True)
            soundfile.write(tmp_path / name / f"clip{number}.wav", wav, RATE)
    return tmp_path


def blind(folder: Path, *options: str) -> Path:
    low, high = (str(folder / name) for name in PITCH)
    assert main(["eval", str(folder / "recordings"), low, "-o", str(folder / "out"), "--blind", high, *options]) == 0
    return folder / "out" / "blind.html"


def test_answers_by_keys_are_counted_and_named_at_the_end(folders, browser):
    browser.open(blind(folders).as_uri())
    assert browser.ask(f"{q('#progress')}.textContent") == f"1 of {CLIPS}"
    browser.press("ArrowLeft")
    assert browser.ask(f"{q('#message')}.textContent") == "Listen to both first."
    for number in range(CLIPS):
        heard = {}
        for key in "12":
            browser.press(key)
            assert browser.ask("!player.paused && last") == int(key)
            heard[key] = pitch(browser.audio_of("player"))
        assert sorted(heard.values()) == sorted(PITCH.values())
        browser.press(" ")
        assert pitch(browser.audio_of("player")) == heard["2"]  # what was played last
        if number == 0:  # one answer is taken back
            browser.press("ArrowRight")
            browser.press("Backspace")
            assert browser.ask(f"{q('#progress')}.textContent") == f"1 of {CLIPS}"
        better = "ArrowLeft" if heard["1"] == PITCH["zzz_high"] else "ArrowRight"
        assert browser.ask(f"{q('#results')}.hidden")
        browser.press("ArrowDown" if number == CLIPS - 1 else better)
    assert browser.ask(f"!{q('#results')}.hidden && {q('#test')}.hidden")
    low, high = PITCH
    lines = browser.ask(f"[...{q('#summary')}.children].map(line => line.textContent)")
    # Clopper and Pearson for 5 of 5: 0.025 ** (1 / 5) = 0.478
    assert lines == [
        f"{low}: chosen 0 of 5 times, 0 % (95 % interval 0 % to 52 %)",
        f"{high}: chosen 5 of 5 times, 100 % (95 % interval 48 % to 100 %)",
        "no difference: 1 of 6 answers, not counted above",
    ]
    link = browser.ask(f"{q('#csv')}.href")
    rows = list(csv.DictReader(io.StringIO(unquote(link.split(",", 1)[1]))))
    assert sorted(row["clip"] for row in rows) == [f"clip{number}" for number in range(CLIPS)]
    assert [row["chosen"] for row in rows] == [high] * 5 + ["no difference"]
    assert {row["one"] for row in rows} | {row["two"] for row in rows} == {low, high}
    assert all(row["plays_recording"] == "0" and int(row["plays_two"]) >= 2 for row in rows)


def test_interval_is_that_of_the_binomial_distribution(folders, browser):
    stats = pytest.importorskip("scipy.stats")
    browser.open(blind(folders, "--clips", "1").as_uri())
    for k, n in ((0, 4), (7, 20), (60, 60), (90, 200)):
        expected = stats.binomtest(k, n).proportion_ci(0.95, "exact")
        assert browser.ask(f"interval({k}, {n})") == pytest.approx([expected.low, expected.high], abs=1e-9)


def test_the_file_does_not_tell_which_is_which(folders):
    page = blind(folders, "--clips", "3").read_text(encoding="utf-8")
    assert page.count('"clip":') == 3 and 'src="' not in page and not re.search(r"https?://|url\(", page)
    assert not any(name in page for name in PITCH)
    files = re.findall(r'"(?:one|two|reference)": "([^"]+)"', page)
    assert len(files) == 9


def test_mistakes_are_one_line(folders, capsys):
    low, out = str(folders / "aaa_low"), str(folders / "out")
    assert main(["eval", str(folders / "recordings"), low, "-o", out, "--blind", low]) == 2
    assert "is the folder it would be compared with" in capsys.readouterr().err
    (folders / "zzz_high" / "clip2.wav").unlink()
    assert main(["eval", str(folders / "recordings"), low, "-o", out, "--blind", str(folders / "zzz_high")]) == 2
    assert re.search(r"clip2\.wav has no partner: 5 generated files", capsys.readouterr().err)


def pitch(content: bytes) -> float:
    """The loudest frequency in Hz, to 100."""
    wav, rate = soundfile.read(io.BytesIO(content))
    return round(np.abs(np.fft.rfft(wav)).argmax() * rate / len(wav) / 100) * 100.0
