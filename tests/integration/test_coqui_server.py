"""Coqui's unmodified ``tts-server`` synthesizes with MelGlow: to a real browser and to programs."""

import base64
import fcntl
import io
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("TTS")
pytest.importorskip("flask")

from coqui_parts import SENTENCE, UNITS, command, environment, export_vocoder, glow_tts, options, synthesizer

PATIENCE = 180  # seconds, for a slow machine


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> tuple[Path, tuple[Path, Path]]:
    """An exported vocoder and the files of an acoustic model."""
    folder = tmp_path_factory.mktemp("parts")
    return export_vocoder(folder), glow_tts(folder, **UNITS["recipes"])


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


def wait_for(happens, pause: float = 0.2):
    """What ``happens()`` returns as soon as it is true."""
    end = time.monotonic() + PATIENCE
    while not (result := happens()):
        assert time.monotonic() < end, f"waited {PATIENCE} s in vain"
        time.sleep(pause)
    return result


def check(content: bytes, expected: np.ndarray) -> None:
    wav, rate = soundfile.read(io.BytesIO(content))
    assert rate == 22_050 and len(wav) == len(expected)
    np.testing.assert_allclose(wav / np.abs(wav).max(), expected, atol=1e-3)


class Browser:
    """Headless Chromium under its DevTools protocol, through pipes."""

    def __init__(self, path: str, profile: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        inherited = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands, answers)]

        def connect() -> None:  # Chromium reads from 3 and writes to 4
            for number, end in zip((3, 4), inherited, strict=True):
                os.dup2(end, number)

        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"]
        alone = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost"  # the page asks for a style sheet elsewhere
        self._process = subprocess.Popen(
            [path, *flags, alone, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=connect, pass_fds=(3, 4), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (commands, answers, *inherited):
            os.close(end)
        self._sent, self._received, self._session = 0, b"", {}

    def __call__(self, method: str, **parameters) -> dict:
        """A command of the protocol and its result."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._received:
                part = os.read(self._answers, 1 << 16)
                assert part, "the browser has gone"
                self._received += part
            answer, self._received = self._received.split(b"\0", 1)
            if (answer := json.loads(answer)).get("id") == self._sent:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, address: str) -> None:
        target = self("Target.createTarget", url=address)["targetId"]
        self._session = {"sessionId": self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        wait_for(lambda: self.ask("location.href != 'about:blank' && document.readyState == 'complete'"))

    def ask(self, script: str):
        """The value of an expression in the page, of a promise when it is kept."""
        return self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)["result"].get("value")

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of an element."""
        script = f"(r => [r.x + r.width / 2, r.y + r.height / 2])({q(selector)}.getBoundingClientRect())"
        x, y = self.ask(script)
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def close(self) -> None:
        self._session = {}
        self("Browser.close")
        self._process.wait(timeout=30)
        for end in (self._commands, self._answers):
            os.close(end)


def q(selector: str) -> str:
    return f"document.querySelector({selector!r})"


@pytest.fixture
def browser(tmp_path):
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    browser = Browser(path, tmp_path / "profile")
    yield browser
    browser.close()


def test_a_sentence_typed_into_the_page_is_synthesized(server, browser, expected):
    browser.open(server)
    browser.click("#text")
    browser("Input.insertText", text=SENTENCE)
    browser.click("#speak-button")
    wait_for(lambda: browser.ask(f"{q('#audio')}.readyState > 0 || {q('#message')}.textContent.startsWith('Error')"))
    assert browser.ask(f"[{q('#message')}.textContent, {q('#audio')}.hidden]") == ["", False]
    assert browser.ask(f"{q('#audio')}.duration") == pytest.approx(len(expected) / 22_050, abs=1e-3)
    script = f"""fetch({q("#audio")}.src).then(answer => answer.arrayBuffer())
        .then(wav => btoa(Array.from(new Uint8Array(wav), byte => String.fromCharCode(byte)).join("")))"""
    check(base64.b64decode(browser.ask(script)), expected)


def test_programs_get_the_same_wav(server, expected):
    check(urllib.request.urlopen(f"{server}api/tts?text={SENTENCE.replace(' ', '%20')}").read(), expected)
    check(urllib.request.urlopen(f"{server}process?INPUT_TEXT={SENTENCE.replace(' ', '%20')}").read(), expected)


def test_no_text_is_refused(server):
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(f"{server}api/tts?text=")
