"""The commands of README.md and of the help, as they stand, in a folder with what they name."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import zygote

from melglow_plugin.cli.parser import _parser

ROOT = Path(__file__).parents[2]
CORPUS = Path("egs/ljspeech/voc1/corpus")
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOT_RUN = {  # how a line begins: why
    "make demo": "minutes: tests/recipe runs its scripts on less",
    "make speak": "it would set up .venv: test_tts1.py runs the script that it calls",
    "pip install": "it changes the environment",
    "./run.sh --python": "it stands in a checkout of ESPnet's recipes: test_espnet_inference.py gives the same options",
    "cd egs/ljspeech/voc1": "of the two commands below it",
    "./run.sh ": "hours: test_recipe.py runs every stage on less",
    "melglow demo": "it serves a page until it is stopped: test_demo.py",
    "melglow doctor --espnet MODEL_DIR": "the reader's model: test_doctor.py",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def lines_of(block: str) -> list[str]:
    """Commands without comments, each in one line."""
    joined = re.sub(r"\\\n\s*", "", block)
    return [line for line in (re.sub(r"(^|\s)#\s.*", "", line).strip() for line in joined.splitlines()) if line]


def reason(command: str) -> str | None:
    return next((why for start, why in NOT_RUN.items() if f"{command} ".startswith(start)), None)


LINES = [line for block in blocks("bash") for line in lines_of(block)]
COMMANDS = [line for line in LINES if reason(line) is None]
(SUBPARSERS,) = (action for action in _parser()._actions if action.dest == "command")
EXAMPLES = {name: [line.strip() for line in sub.epilog.splitlines()[1:]] for name, sub in SUBPARSERS.choices.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A checkout with two of the recordings, the reader's feats.npy, clip.wav and tts/, and melglow on its PATH."""
    root = tmp_path_factory.mktemp("place")
    (root / "pretrained").symlink_to(ROOT / "pretrained")
    (root / CORPUS / "wavs").mkdir(parents=True)
    for name in ("LJ050-0131", "LJ002-0198"):
        shutil.copy(ROOT / CORPUS / "wavs" / f"{name}.flac", root / CORPUS / "wavs")
    shutil.copytree(ROOT / CORPUS / "mels", root / CORPUS / "mels")
    shutil.copy(root / CORPUS / "mels" / "LJ050-0131.npy", root / "feats.npy")
    soundfile.write(root / "clip.wav", *soundfile.read(root / CORPUS / "wavs" / "LJ050-0131.flac"))
    (root / "bin").mkdir()
    python = zygote.shared().python(root / "bin", "python")
    (root / "bin" / "melglow").write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} -m melglow_plugin.cli "$@"\n')
    (root / "bin" / "melglow").chmod(0o755)
    return root


@pytest.fixture(scope="module")
def acoustic(place) -> None:
    """tts/, an acoustic model of Coqui's in the vocoder's mel."""
    pytest.importorskip("TTS")
    from coqui_parts import UNITS, glow_tts

    model, config = glow_tts(place / "tts", **UNITS["recipes"], mel_fmin=0.0, mel_fmax=8000.0)
    model.rename(model.with_name("model.pth"))
    config.rename(config.with_name("config.json"))


def shell(command: str, folder: Path) -> str:
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment |= {"PYTHONWARNINGS": "ignore", "COLUMNS": "80"}
    result = subprocess.run(["bash", "-euc", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and "Traceback" not in result.stderr, (result.stdout + result.stderr)[-3000:]
    return result.stdout


def test_every_line_is_run_or_has_a_reason():
    assert len(COMMANDS) >= 8 and len({reason(line) for line in LINES}) == len(NOT_RUN) + 1
    assert reason("melglow doctor feats.npy") is None and reason("./run.sh") is not None


def test_the_commands_run_as_they_stand(place, request):
    """One after the other: each finds what those before it wrote."""
    for command in COMMANDS:
        if "tts/" in command:
            request.getfixturevalue("acoustic")
        if command.startswith("melglow eval"):
            pytest.importorskip("pysptk")
        shell(command, place)
    written = ["out/LJ050-0131.wav", "synthesized/LJ050-0131.wav", "scores/index.html"]
    for name in [*written, "model/model.safetensors", "out.wav"]:
        assert (place / name).stat().st_size > 0, name


def test_the_lines_of_python_give_what_they_say(place, monkeypatch):
    monkeypatch.chdir(place)
    (block,) = blocks("python")
    names = {"mel": torch.from_numpy(np.load("feats.npy"))}
    exec(block, names)
    frames = names["mel"].shape[1]
    assert names["wav"].shape == (256 * frames,) and names["wav"].dtype == torch.float32
    assert 0.01 < names["wav"].abs().max() <= 1


@pytest.mark.parametrize("name", [name for name, lines in EXAMPLES.items() if not any(map(reason, lines))])
def test_the_example_of_the_help_runs(place, name, tmp_path):
    folder = tmp_path / "root"
    shutil.copytree(place, folder, symlinks=True, ignore=shutil.ignore_patterns("out", "scores", "exp", "model"))
    if name == "eval":
        pytest.importorskip("pysptk")
    assert shell("\n".join(EXAMPLES[name]), folder)
