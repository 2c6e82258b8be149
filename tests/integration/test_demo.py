"""``melglow demo`` in a real browser: a recording is copied, a bad file refused, and nothing elsewhere is asked."""

import io
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from browser import chromium, q, wait_for

pytest.importorskip("gradio")
pytest.importorskip("matplotlib")

from melglow_plugin import Vocoder
from melglow_plugin.demo import figures, sounds

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "pretrained" / "melglow_ljspeech"
CLIP = ROOT / "egs" / "ljspeech" / "voc1" / "corpus" / "wavs" / "LJ050-0131.flac"
# Started with the server: an address that is not this machine's is written down and refused.
WATCH = """
import ipaddress, os, socket
connect = socket.socket.connect
def watched(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not ipaddress.ip_address(address[0]).is_loopback:
        open(os.environ["ASKED"], "a").write(f"{address}\\n")
        raise OSError("not this machine")
    return connect(self, address)
lookup = socket.getaddrinfo
def looked_up(host, *args, **options):
    if host not in (None, "", "localhost", "127.0.0.1", b"127.0.0.1"):
        open(os.environ["ASKED"], "a").write(f"{host}\\n")
        raise socket.gaierror("not this machine")
    return lookup(host, *args, **options)
socket.socket.connect, socket.getaddrinfo = watched, looked_up
open(os.environ["ASKED"] + ".watch", "w").close()
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Path:
    """The file of addresses elsewhere that the server asked for."""
    return tmp_path_factory.mktemp("watch") / "asked"


@pytest.fixture(scope="module")
def server(asked):
    """The address of a running demo."""
    if chromium() is None:
        pytest.skip("no Chromium on this machine")
    (asked.parent / "sitecustomize.py").write_text(WATCH)
    path = os.pathsep.join(filter(None, [str(asked.parent), str(ROOT), os.environ.get("PYTHONPATH")]))
    demo = subprocess.Popen(
        [sys.executable, "-m", "melglow_plugin.cli", "demo", "--port", "0", "--checkpoint", str(MODEL)],
        env={**os.environ, "PYTHONPATH": path, "ASKED": str(asked)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = demo.stdout.readline()
        assert line.startswith("open http://127.0.0.1:"), line
        yield line.split()[1]
    finally:
        demo.terminate()
        demo.wait(timeout=30)


def drop(browser, server: str, file: Path) -> None:
    """Open the page, give it a recording, press the button."""
    browser.open(server)
    tab = "[...document.querySelectorAll('button[role=tab]')].find(tab => tab.textContent.trim() == 'Recording')"
    wait_for(lambda: browser.ask(f"!!{tab}"))
    browser.ask(f"{tab}.click()")
    wait_for(lambda: browser.ask(f"!!{q('#recording input[type=file]')}"))
    browser.choose_file("#recording input[type=file]", file)
    wait_for(lambda: browser.ask(f"!{q('#recording input[type=file]')}"))  # it has been taken
    wait_for(lambda: browser.ask(f"{q('#refine input')}.value") == "resynthesis")  # the model's own
    browser.click("#copy")
    wait_for(lambda: browser.ask(f"!!{q('#result audio, #result .fault')}"))


def test_a_dropped_recording_is_copied(server, browser, asked):
    drop(browser, server, CLIP)
    wav, rate = soundfile.read(CLIP, dtype="float32")
    players = "[...document.querySelectorAll('#result audio')]"
    wait_for(lambda: browser.ask(f"{players}.every(player => player.readyState > 0)"))
    assert browser.ask(f"{players}.map(player => player.dataset.system)") == ["recording", "MelGlow"]
    shown = browser.ask("[...document.querySelectorAll('#result figure')].map(figure => figure.innerText)")
    assert len(shown) == 3 and "mismatch 0." in shown[0] and "bits per sample" in shown[1]
    assert browser.ask("[...document.querySelectorAll('#result img')].every(image => image.naturalWidth > 100)")
    heard, heard_rate = soundfile.read(io.BytesIO(browser.audio("#result audio[data-system=MelGlow]")))
    vocoder = Vocoder.from_pretrained(MODEL)
    expected = vocoder(vocoder.convention.extract(torch.from_numpy(wav)), seed=0)[: len(wav)].numpy()
    assert heard_rate == rate and len(heard) == len(wav)
    assert np.abs(heard - expected).mean() < 0.02 * np.abs(expected).mean()
    elsewhere = "performance.getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith(location.origin))"
    assert browser.ask(f"{elsewhere}.filter(name => !name.startsWith('data:') && !name.startsWith('blob:'))") == []
    assert asked.with_name("asked.watch").exists() and not asked.exists(), asked.read_text()


def test_a_bad_file_is_one_line_in_the_page(server, browser, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF nonsense")
    drop(browser, server, bad)
    assert browser.ask(f"{q('#result')}.innerText").strip() == "bad.wav cannot be read: Format not recognised."


# Without a browser


def test_other_rates_and_long_recordings_are_said(tmp_path):
    soundfile.write(tmp_path / "long.wav", 0.1 * np.random.default_rng(0).standard_normal(9 * 16_000), 16_000)
    settings = sounds.Settings(str(MODEL), refine=0)
    found = sounds.copy(tmp_path / "long.wav", settings)
    assert found.notes == ["resampled from 16000 Hz to the model's 22050 Hz"]
    assert {name: len(wav) for name, wav in found.wavs.items()} == {"recording": 9 * 22_050, "MelGlow": 9 * 22_050}
    assert "resampled from 16000 Hz" in figures.shown(found)
    with pytest.raises(ValueError, match="no recording: drop one"):
        sounds.copy(None, settings)
    with pytest.raises(ValueError, match="no text: type a sentence"):
        sounds.speak("  ", settings)


def test_a_recording_that_is_too_short_is_named(tmp_path):
    soundfile.write(tmp_path / "short.wav", np.zeros(1), 22_050)
    with pytest.raises(ValueError, match=r"^short\.wav: wav has 1 samples"):
        sounds.copy(tmp_path / "short.wav", sounds.Settings(str(MODEL)))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda how: how.name)
def test_whatever_ends_it_no_upload_stays_behind(tmp_path, how):
    demo = subprocess.Popen(
        [sys.executable, "-m", "melglow_plugin.cli", "demo", "--port", "0", "--checkpoint", str(MODEL)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(how, signal.SIG_DFL),  # nohup and background jobs ignore some of them
    )  # fmt: skip
    try:
        address = demo.stdout.readline().split()[1]
        with urllib.request.urlopen(f"{address}gradio_api/heartbeat/page", timeout=30):  # an open page keeps it open
            assert list(tmp_path.glob("melglow-demo-*"))
            demo.send_signal(how)
            assert demo.communicate(timeout=30)[1] == "melglow demo: interrupted\n"
        assert demo.returncode == 130 and not list(tmp_path.glob("melglow-demo-*"))
    finally:
        demo.kill()


def test_a_sentence_without_the_voice_is_refused_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(sounds, "VOICE_SCRIPT", tmp_path / "voice.py")
    with pytest.raises(ValueError, match="Sentences need a checkout of the repository"):
        sounds.speak("Hello.", sounds.Settings(str(MODEL)))


def test_a_sentence_is_synthesized_through_another_models_mel():
    if fault := sounds.voice_fault():
        pytest.skip(fault)
    found = sounds.speak("Hello.", sounds.Settings(str(MODEL.with_name("melglow_universal")), refine=0))
    assert list(found.wavs) == ["MelGlow"] and 0.3 < len(found.wavs["MelGlow"]) / found.sample_rate < 3
    with pytest.raises(ValueError, match="sample_rate"):
        sounds.speak("Hello.", sounds.Settings(str(MODEL.with_name("melglow_universal_24k"))))


def test_what_is_missing_is_one_line(monkeypatch, capsys):
    from melglow_plugin.cli import main
    from melglow_plugin.demo import app

    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == 'melglow demo: the demo needs gradio: pip install "melglow-plugin[demo]"\n'
