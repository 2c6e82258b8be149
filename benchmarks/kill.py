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
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from kill_victims import Coqui, Espnet, Victim

RESULTS = Path(__file__).parent / "results"
CHECKPOINT_BYTES = 200_000  # of the tiny model; the last part of the draw falls behind the end of a file


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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("route", choices=("espnet", "coqui"))
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=12, help="of a run; a finished one is followed by another")
    parser.add_argument("--seconds", type=float, default=4.0, help="a timer's longest time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> int:
    args = arguments()
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
    unequal = not found.get("equal to a run that nobody killed", 1)
    return int(bool(found["runs lost"] or found["half-written checkpoints"] or unequal))


if __name__ == "__main__":
    sys.exit(main())
