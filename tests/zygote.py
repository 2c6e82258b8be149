"""Python commands as forks of one process that has imported what they need: importing ESPnet costs seconds each time.

    zygote = Zygote("torch", "espnet2.tasks.tts")
    zygote.run("-m", "melglow_plugin.cli", "info", cwd=folder)  # as subprocess.run([sys.executable, ...])
    subprocess.run(["./run.sh", "--python", zygote.python(folder)])

A command has its own process, arguments, environment, folder, standard streams and ``__main__``. What differs:
the modules named are there already, and variables that libraries read when they are loaded are those of the zygote.
"""

import atexit
import contextlib
import functools
import json
import os
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

HOSTS = ("espnet2.tasks.tts", "matplotlib.pyplot", "trainer.trainer", "TTS.utils.synthesizer", "TTS.vocoder.models")


class Zygote:
    """The process, with ``modules`` imported; ``environment`` as of subprocess."""

    def __init__(self, *modules: str, **environment: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.address = str(Path(self.folder.name) / "socket")
        self.environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", **environment}
        command = [sys.executable, __file__, "--serve", self.address, *modules]
        self.process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE)
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the zygote of {modules} did not start")

    def close(self) -> None:
        """End the process; its commands have ended."""
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()
        self.folder.cleanup()

    def run(self, *arguments: str, cwd=None, timeout: float = 600, **environment: str) -> subprocess.CompletedProcess:
        """The finished command, with its output as text."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull) as none:
            files = [none.fileno(), out.fileno(), err.fileno()]
            status = ask(
                self.address, arguments, {**self.environment, **environment}, cwd or os.getcwd(), files, timeout
            )
            for file in (out, err):
                file.seek(0)
            return subprocess.CompletedProcess(arguments, status, out.read().decode(), err.read().decode())

    def python(self, folder: Path, name: str = "python3") -> Path:
        """A program, written to ``folder``, that a script calls as it would call python3."""
        path = folder / name
        path.write_text(
            f'#!/bin/sh\nexec {shlex.join([sys.executable, "-IS", __file__, "--ask", self.address])} "$@"\n'
        )
        path.chmod(0o755)
        return path


@functools.cache
def shared() -> Zygote:
    """The one for all tests of this process: with torch, with the hosts that are installed, and without MelGlow."""
    zygote = Zygote("torch", *(name for name in HOSTS if find_spec(name.split(".")[0])))
    atexit.register(zygote.close)
    return zygote


def ask(address: str, arguments, environment: dict, folder: str, files: list[int], timeout: float | None = None) -> int:
    """Have a command run with three open files as its standard streams; its exit status."""
    request = json.dumps([list(arguments), environment, str(folder)]).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(address)
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], files)
        connection.sendall(request)
        return int(connection.recv(16).decode() or -signal.SIGKILL)


def serve(address: str, modules: list[str]) -> None:
    """Import, then fork for every request; returns in the child, which becomes the command."""
    for name in modules:
        import_module(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(16)
    signal.signal(signal.SIGTERM, lambda *_: (reap(), os._exit(0)))
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            size, files, *_ = socket.recv_fds(connection, 8, 3)
            request = b""
            while len(request) < int.from_bytes(size, "big"):
                request += connection.recv(1 << 16)
            if (child := os.fork()) == 0:
                connection.close()
                return become(*json.loads(request), files)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            connection.sendall(str(status).encode())
            os._exit(0)
        connection.close()
        reap()


def reap() -> None:
    """Forget the monitors that have ended, and count their time as this process's."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def become(arguments: list[str], environment: dict[str, str], folder: str, files: list[int]) -> None:
    """What ``python ARGUMENTS`` would do."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        setattr(sys, name, os.fdopen(os.dup(("stdin", "stdout", "stderr").index(name)), mode, encoding="utf-8"))
    sys.stderr.reconfigure(line_buffering=True)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    while arguments[0] in ("-u", "-B", "-s"):
        arguments.pop(0)
    kind = arguments.pop(0)
    sys.argv = arguments if kind in ("-m", "-c") else [kind, *arguments]
    sys.path[:1] = ["" if kind in ("-m", "-c") else os.path.dirname(os.path.realpath(kind)), *paths]
    if kind == "-m":
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        code, sys.argv[0] = arguments[0], "-c"
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    action, address, *rest = sys.argv[1:]
    if action == "--ask":
        sys.exit(ask(address, rest, dict(os.environ), os.getcwd(), [0, 1, 2]))
    serve(address, rest)
