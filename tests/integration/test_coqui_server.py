"""Coqui's unmodified ``tts-server`` synthesizes with MelGlow: to a real browser and to programs."""

import io
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("TTS")
pytest.importorskip("flask")
pytest.importorskip("gruut")

from browser import q, wait_for
from coqui_parts import SENTENCE, command, environment, export_vocoder, options, released_fast_pitch, synthesizer


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> tuple[Path, tuple[Path, Path]]:
    """An exported vocoder and the files of an acoustic model, as the recipe exports its voice."""
    folder = tmp_path_factory.mktemp("parts")
    return export_vocoder(folder), released_fast_pitch(folder, folder / "model")


@pytest.fixture(scope="module")
def expected(parts) -> np.ndarray:
    """The sentence as the Synthesizer says it, at full level as Coqui writes every file."""
    wav = np.array(synthesizer(*parts).tts(SENTENCE))
    return wav / np.abs(wav).max()


@pytest.fixture(scope="module")
def server(parts):
    """The address of a running ``tts-server``."""
    with socket.socket(socket.AF_INET6) as probe:  # the server listens there
        probe.bind(("::", 0))
        port = probe.getsockname()[1]
    said = parts[0] / "server.log"
    with said.open("w") as log:
        server = subprocess.Popen(
            command("-m", "TTS.server.server", "--port", str(port), *options(*parts)),
            env=environment(), stdout=log, stderr=log,
        )  # fmt: skip
    address = f"http://localhost:{port}/"

    def answers() -> bool:
        assert server.poll() is None, said.read_text()
        try:
            return bool(urllib.request.urlopen(address, timeout=10).status)
        except OSError:
            return False

    try:
        wait_for(answers)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


def check(content: bytes, expected: np.ndarray) -> None:
    wav, rate = soundfile.read(io.BytesIO(content))
    assert rate == 22_050 and len(wav) == len(expected)
    np.testing.assert_allclose(wav / np.abs(wav).max(), expected, atol=1e-3)


def test_a_sentence_typed_into_the_page_is_synthesized(server, browser, expected):
    browser.open(server)
    browser.click("#text")
    browser("Input.insertText", text=SENTENCE)
    browser.click("#speak-button")
    wait_for(lambda: browser.ask(f"{q('#audio')}.readyState > 0 || {q('#message')}.textContent.startsWith('Error')"))
    assert browser.ask(f"[{q('#message')}.textContent, {q('#audio')}.hidden]") == ["", False]
    assert browser.ask(f"{q('#audio')}.duration") == pytest.approx(len(expected) / 22_050, abs=1e-3)
    check(browser.audio("#audio"), expected)


def test_programs_get_the_same_wav(server, expected):
    check(urllib.request.urlopen(f"{server}api/tts?text={SENTENCE.replace(' ', '%20')}").read(), expected)
    check(urllib.request.urlopen(f"{server}process?INPUT_TEXT={SENTENCE.replace(' ', '%20')}").read(), expected)


def test_no_text_is_refused(server):
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(f"{server}api/tts?text=")
