"""Headless Chromium under its DevTools protocol: open a page, click, press keys, ask. It reaches this machine alone."""

import fcntl
import json
import os
import shutil
import subprocess
import time
from base64 import b64decode
from pathlib import Path

PATIENCE = 180  # seconds, for a slow machine
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, " ": 32, "Enter": 13, "Backspace": 8}


def wait_for(happens, pause: float = 0.2):
    """What ``happens()`` returns as soon as it is true."""
    end = time.monotonic() + PATIENCE
    while not (result := happens()):
        assert time.monotonic() < end, f"waited {PATIENCE} s in vain"
        time.sleep(pause)
    return result


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
        alone = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
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
        """Press and release the mouse in the middle of an element, once it stands still."""
        self.ask(f"{q(selector)}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        script = f"(r => [r.x + r.width / 2, r.y + r.height / 2])({q(selector)}.getBoundingClientRect())"
        places = [self.ask(script)]

        def still() -> bool:
            places.append(self.ask(script))
            return places[-4:] == places[-1:] * 4

        wait_for(still)
        x, y = places[-1]
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press and release a key: a character, or one of ``KEYS``."""
        code = KEYS.get(key, ord(key[0].upper()))
        text = {"text": key} if len(key) == 1 else {}
        self("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
        self("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to an ``<input type="file">``."""
        root = self("DOM.getDocument")["root"]["nodeId"]
        node = self("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def audio(self, selector: str) -> bytes:
        """The file that an ``<audio>`` plays."""
        return self.audio_of(q(selector))

    def audio_of(self, element: str) -> bytes:
        """The same of a script's expression."""
        if (source := self.ask(f"{element}.src")).startswith("data:"):
            return b64decode(source.split(",", 1)[1])
        script = f"""fetch({element}.src).then(answer => answer.arrayBuffer())
            .then(wav => btoa(Array.from(new Uint8Array(wav), byte => String.fromCharCode(byte)).join("")))"""
        return b64decode(self.ask(script))

    def close(self) -> None:
        self._session = {}
        self("Browser.close")
        self._process.wait(timeout=30)
        for end in (self._commands, self._answers):
            os.close(end)


def chromium() -> str | None:
    """The program, where there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def q(selector: str) -> str:
    return f"document.querySelector({selector!r})"
