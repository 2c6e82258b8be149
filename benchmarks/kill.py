#!/usr/bin/env python3
"""Training killed with SIGKILL at random moments, also while a checkpoint is being written, and resumed each time.

    OMP_NUM_THREADS=1 python benchmarks/kill.py espnet --kills 30
    OMP_NUM_THREADS=1 python benchmarks/kill.py coqui --kills 30

The host is imported once and every attempt is a fork, so that a kill costs a second. Every other attempt is killed by a
timer; the others kill themselves at a random byte of a random checkpoint, or when it is written and not yet renamed.
After each kill every ``*.pth`` under its final name must load, and the next attempt must resume. At the end a run goes
to its last epoch undisturbed; its model, optimizer and scheduler must be those of a run that nobody killed.
"""

import argparse
import contextlib
import json
import mmap
import os
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
NUMBERED = re.compile(r"(checkpoint|best_model)_\d+\.pth")  # what Coqui's trainer continues from
CHECKPOINT_BYTES = 200_000  # of the tiny model; the last part of the draw falls behind the end of a file


class Victim:
    """A route's training in a folder; subclasses know the host.

    Args:
        folder: where everything is written.
        epochs: epochs of a whole run.
    """

    interval: int  # steps from one checkpoint to the next

    def __init__(self, folder: Path, epochs: int) -> None:
        self.folder, self.epochs = folder, epochs
        self.steps = mmap.mmap(-1, 8)  # shared with the forks: steps begun

    def begin(self, step: int) -> None:
        self.steps[:] = struct.pack("<q", step)

    @property
    def begun(self) -> int:
        return struct.unpack("<q", self.steps[:])[0]

    def train(self, exp: Path) -> None:
        """Train to the last epoch, or on from the checkpoint that is there."""
        raise NotImplementedError

    def saved(self, exp: Path) -> int:
        """Steps in the newest checkpoint, 0 where there is none."""
        raise NotImplementedError

    def last(self, exp: Path) -> Path:
        """The checkpoint that a finished run is compared by."""
        raise NotImplementedError


class Espnet(Victim):
    interval = 3

    def __init__(self, folder: Path, epochs: int) -> None:
        super().__init__(folder, epochs)
        import melglow_plugin.espnet.task  # noqa: F401  what main imports is then there for every fork
        from melglow_plugin.espnet.model import ESPnetVocoderModel
        from melglow_plugin.espnet.train import main

        self.main, start = main, ESPnetVocoderModel.start_step

        def counted(model) -> tuple[bool, bool | None]:
            kind = start(model)
            self.begin(int(model.steps))
            return kind

        ESPnetVocoderModel.start_step = counted
        lines = "".join(f"{path.stem} {path}\n" for path in recordings(folder))
        (folder / "wav.scp").write_text(lines)

    def train(self, exp: Path) -> None:
        options = ["--config", str(ROOT / "conf" / "melglow_tiny.yaml"), "--output_dir", str(exp), "--resume", "true",
                   "--max_epoch", str(self.epochs), "--num_att_plot", "0", "--use_matplotlib", "false",
                   "--use_tensorboard", "false", "--keep_nbest_models", "2"]  # fmt: skip
        for name in ("train", "valid"):
            scp = self.folder / "wav.scp"
            options += [
                f"--{name}_data_path_and_name_and_type",
                f"{scp},speech,sound",
                f"--{name}_shape_file",
                str(scp),
            ]
        self.main(options)

    def saved(self, exp: Path) -> int:
        import torch

        path = exp / "checkpoint.pth"
        return int(torch.load(path, weights_only=True)["model"]["steps"]) if path.exists() else 0

    def last(self, exp: Path) -> Path:
        return exp / "checkpoint.pth"


class Coqui(Victim):
    interval = 2

    def __init__(self, folder: Path, epochs: int) -> None:
        super().__init__(folder, epochs)
        import TTS.bin.train_vocoder as command

        import melglow_plugin.coqui

        melglow_plugin.coqui.register()
        from melglow_plugin.coqui.model import Melglow

        self.main, start = command.main, Melglow.on_train_step_start

        def counted(model, trainer) -> None:
            start(model, trainer)
            self.begin(trainer.total_steps_done)

        Melglow.on_train_step_start = counted
        Melglow.train_log = Melglow.eval_log = lambda *_: None  # pictures take longer than the training
        recordings(folder)
        self.epochs = 1  # once in this process: what the host imports late is then there for every fork
        with contextlib.suppress(SystemExit):
            self.train(folder / "warm")
        self.epochs = epochs

    def train(self, exp: Path) -> None:
        run = next(iter(sorted(exp.glob("run*"))), None) if exp.exists() else None
        if run and any(NUMBERED.fullmatch(path.name) for path in run.iterdir()):
            sys.argv = ["train_vocoder", "--continue_path", str(run)]
        else:  # killed before there was a checkpoint: begun anew
            shutil.rmtree(exp, ignore_errors=True)
            exp.mkdir()
            config = {
                "model": "melglow", "run_name": "run", "output_path": str(exp), "data_path": str(self.folder / "wavs"),
                "model_params": {"n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 2}, "eval_split_size": 1,
                "epochs": self.epochs, "batch_size": 2, "seq_len": 2048, "eval_seq_len": 4096, "save_step": 2,
                "save_n_checkpoints": 2, "save_checkpoints": True, "num_loader_workers": 0,
                "num_eval_loader_workers": 0, "lr": 1e-3, "run_eval": True, "test_delay_epochs": 10**6,
            }  # fmt: skip
            (exp / "config.json").write_text(json.dumps(config))
            sys.argv = ["train_vocoder", "--config_path", str(exp / "config.json")]
        self.main()

    def saved(self, exp: Path) -> int:
        import torch

        paths = [path for path in exp.glob("run*/*.pth") if NUMBERED.fullmatch(path.name)]
        return max((torch.load(path, weights_only=True)["step"] for path in paths), default=0)

    def last(self, exp: Path) -> Path:
        return max(exp.glob("run*/checkpoint_*.pth"), key=lambda path: int(path.stem.split("_")[1]))


def recordings(folder: Path) -> list[Path]:
    """Four made-up recordings in ``folder/wavs``."""
    import soundfile

    from melglow_plugin.mel.conversion import example_speech

    (folder / "wavs").mkdir(exist_ok=True)
    paths = [folder / "wavs" / f"{i}.wav" for i in range(4)]
    for i, path in enumerate(paths):
        wav = example_speech(22_050).flatten()[: 11_025 + 1000 * i]
        soundfile.write(path, (0.5 * wav / wav.abs().max()).numpy(), 22_050)
    return paths


def kill_while_writing(draw: random.Random) -> None:
    """From now on, this process kills itself at a random byte of one of the next checkpoints."""
    from melglow_plugin.checkpoint import folder as checkpoint

    # Behind the end of the file: when it is written, flushed or not, and not yet renamed; or training continues.
    left = draw.randrange(3 * CHECKPOINT_BYTES)
    at_sync = draw.random() < 0.3

    class File:
        def __init__(self, file) -> None:
            self.file = file

        def write(self, data) -> int:
            nonlocal left
            part = memoryview(data).cast("B")
            if not at_sync and left < len(part):
                self.file.write(part[:left])
                self.file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            left -= len(part)
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_) -> None:
            self.file.close()

    def sync(file) -> None:
        if at_sync and left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.open = lambda *args: File(open(*args))  # noqa: SIM115
    checkpoint.os = type("Os", (), {"fsync": staticmethod(sync), "__getattr__": lambda self, name: getattr(os, name)})()


def attempt(victim: Victim, exp: Path, seconds: float | None, draw: random.Random | None) -> int:
    """Fork, train, and kill after ``seconds`` or while writing; the exit status, negative for a kill."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            log = os.open(victim.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if draw is not None:
                kill_while_writing(draw)
            victim.train(exp)
            status = 0
        except SystemExit as error:
            status = 0 if error.code in (None, 0) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.01)


def half_written(exp: Path) -> int:
    """Checkpoints under their final names that do not load."""
    import torch

    damaged = 0
    for path in filter(Path.exists, exp.rglob("*.pth")):  # ESPnet leaves links to epochs that it has removed
        try:
            torch.load(path, weights_only=True)
        except Exception:
            # Coqui's copy of the best model is made good when the run is continued.
            damaged += not (path.name == "best_model.pth" and list(path.parent.glob("best_model_*.pth")))
    return damaged


def equal(first: Path, second: Path) -> bool:
    """Whether two checkpoints hold the same model, optimizers and schedulers, bit for bit."""
    import torch

    def same(one, other) -> bool:
        if isinstance(one, dict):
            return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        if isinstance(one, list | tuple):
            return len(one) == len(other) and all(map(same, one, other))
        return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other

    a, b = (torch.load(path, weights_only=True) for path in (first, second))
    names = ("model", "melglow_learning", "optimizer", "optimizers", "scheduler", "schedulers")
    names = [name for name in names if name in a]
    return first.name == second.name and len(names) >= 3 and all(same(a[name], b[name]) for name in names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("route", choices=("espnet", "coqui"))
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=12, help="of a run; a finished one is followed by another")
    parser.add_argument("--seconds", type=float, default=4.0, help="a timer's longest time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    draw, folder = random.Random(args.seed), Path(tempfile.mkdtemp(prefix="kill_"))
    victim = {"espnet": Espnet, "coqui": Coqui}[args.route](folder, args.epochs)
    found = {"kills": 0, "of them while writing": 0, "finished runs": 0, "runs lost": 0,
             "half-written checkpoints": 0, "most steps repeated": 0,
             "checkpoint interval, steps": victim.interval}  # fmt: skip
    number, before = 0, 0
    exp = folder / "exp0"
    while found["kills"] < args.kills:
        victim.begin(0)
        writing = draw.random() < 0.5
        status = attempt(victim, exp, None if writing else draw.uniform(0.2, args.seconds), draw if writing else None)
        saved = victim.saved(exp)
        found["half-written checkpoints"] += half_written(exp)
        if status == -signal.SIGKILL:
            found["kills"] += 1
            found["of them while writing"] += writing
            if saved < before:
                found["runs lost"] += 1
            found["most steps repeated"] = max(found["most steps repeated"], victim.begun - saved)
            before = saved
        elif status == 0:
            found["finished runs"] += 1
            number, before = number + 1, 0
            exp = folder / f"exp{number}"
        else:
            found["runs lost"] += 1
            print((folder / "log.txt").read_text()[-3000:], file=sys.stderr)
            break
        print(f"kill {found['kills']}: steps saved {saved}, begun {victim.begun}, "
              f"{'writing' if writing else 'timer'}, status {status}", flush=True)  # fmt: skip
    if found["runs lost"] == 0:
        found["runs lost"] += attempt(victim, exp, None, None) != 0
    if found["runs lost"] == 0:
        attempt(victim, folder / "undisturbed", None, None)
        found["equal to a run that nobody killed"] = equal(victim.last(exp), victim.last(folder / "undisturbed"))
    text = json.dumps(found, indent=2)
    print(text)
    args.out.mkdir(exist_ok=True)
    (args.out / f"kill_{args.route}.json").write_text(text + "\n")
    shutil.rmtree(folder)
    bad = (
        found["runs lost"] or found["half-written checkpoints"] or not found.get("equal to a run that nobody killed", 1)
    )
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
