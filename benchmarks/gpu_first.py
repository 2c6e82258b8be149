#!/usr/bin/env python3
"""The first ten minutes on a GPU: everything that docs/gpu.md lists as not run, in one call, with a verdict for each.

    python benchmarks/gpu_first.py -o OUT

It needs what `python -m melglow_plugin.espnet.minutes` needs, and pytest. Every part has a limit of its own, leaves its
output in OUT/NAME.log, and does not stop the next one. OUT/verdicts.json holds the summary that is printed at the end.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ["lvc_triton", "lpc_triton", "inference_triton", "inverse_triton", "cuda_graphs", "convolution"]
CLOSE = 0.02  # largest relative difference of two runs' losses that are the same but for rounding


class Parts:
    """Runs commands one after the other and keeps what came out.

    Args:
        out: folder of their output.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.verdicts = out, []

    def run(self, name: str, seconds: float, *command: str, kill_at: Path | None = None) -> bool:
        """Whether ``command`` of Python ended with 0 within ``seconds``.

        With ``kill_at`` it is killed as soon as that file is there, which is what is wanted then.
        """
        print(f"{time.strftime('%H:%M:%S')} {name}, at most {seconds:.0f} s", flush=True)
        began, killed = time.monotonic(), False
        with (self.out / f"{name}.log").open("w") as log:
            process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=log, stderr=log)
            while process.poll() is None and not killed:
                killed = kill_at is not None and kill_at.is_file()
                if killed or time.monotonic() - began > seconds:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                time.sleep(0.05)
        return killed if kill_at else process.returncode == 0

    def decide(self, question: str, ok: bool, found: str, otherwise: str) -> None:
        """Note an answer, and what follows from a no."""
        self.verdicts.append({"question": question, "ok": ok, "found": found, "otherwise": otherwise})
        (self.out / "verdicts.json").write_text(json.dumps(self.verdicts, indent=1) + "\n")

    def tell(self) -> None:
        """A line for each verdict."""
        for verdict in self.verdicts:
            answer = "ok" if verdict["ok"] else f"NO: {verdict['otherwise']}"
            print(f"{verdict['question']}: {verdict['found']}; {answer}")


def kernels(parts: Parts) -> None:
    """The tests that run on a GPU where there is one."""
    tests = [f"tests/test_{name}.py" for name in TESTS]
    ok = parts.run("tests", 120, "-m", "pytest", "-o", "addopts=", "-q", "-rf", *tests)
    parts.decide("kernels and graphs equal torch's operations", ok, last_line(parts.out / "tests.log"),
                 "tests.log names the kernel: use_fused(False) is the default until it is right")  # fmt: skip


def synthesis(parts: Parts, device: str) -> None:
    """benchmarks/gpu.py, whose verdicts are taken over."""
    result = parts.out / "gpu.json"
    rest = ["--device", device, "-o", str(result), "--seconds", "170" if device == "cuda" else "5", "--rounds"]
    began = time.monotonic()
    ok = parts.run("gpu", 190, "benchmarks/gpu.py", *rest, "20" if device == "cuda" else "1")
    read = json.loads(result.read_text()) if result.is_file() else {}
    ok, seconds = ok and not read.get("errors"), time.monotonic() - began
    parts.decide(
        "benchmarks/gpu.py", ok and seconds < 180, f"{seconds:.0f} s", "gpu.log; its tables must fit 3 minutes"
    )
    for each in read.get("verdicts", []):
        found = f"{each['found']:.4g}, wanted {each['wanted']}"
        parts.decide(each["question"], each["ok"], found, each["otherwise"])


def training(parts: Parts, device: str, config: Path, corpus: Path, start: Path | None, steps: int) -> None:
    """A captured step beside one that runs as it is, and a run that is killed beside one that is not."""
    command = ["-m", "melglow_plugin.espnet.minutes", "--corpus", str(corpus), "--config", str(config)]
    command += ["--device", device, "--steps", str(steps), "--log-interval", str(max(1, steps // 4))]
    command += ["--pretrained", str(start)] if start else []
    runs = {"graph": [], "plain": ["--no-graph"], "killed": ["--save-seconds", "1"], "resumed": []}
    folders = {name: parts.out / ("killed" if name == "resumed" else name) for name in runs}
    good = {}
    for name, more in runs.items():
        state = folders[name] / "state.pt" if name == "killed" else None
        good[name] = parts.run(name, 65, *command, "-o", str(folders[name]), *more, kill_at=state)
    said = (parts.out / "graph.log").read_text()
    captured = "captured as a CUDA graph" in said or device == "cpu"
    parts.decide("the training step is captured", good["graph"] and captured, last_line(parts.out / "graph.log"),
                 "graph.log says which operation is not permitted; --no-graph trains meanwhile")  # fmt: skip
    for other, question in (("plain", "it equals the step that runs as it is"), ("resumed", "a killed run resumes")):
        apart = distance(folders["graph"], folders[other])
        done = good[other] and (other == "plain" or good["killed"])
        parts.decide(question, done and apart is not None and apart <= CLOSE,
                     f"losses {apart if apart is None else f'{apart:.1e}'} apart, wanted <= {CLOSE:g}",
                     "compare graph/log.json; use_graph false is the default until it is right")  # fmt: skip
    pace = {name: seconds_a_step(folders[name]) for name in ("graph", "plain")}
    if None not in pace.values():
        parts.decide("the graph is faster", pace["graph"] < pace["plain"],
                     f"{1e3 * pace['graph']:.0f} ms a step, {1e3 * pace['plain']:.0f} ms without",
                     "use_graph false is the default")  # fmt: skip


def log_of(folder: Path) -> list[dict]:
    """Reports of a run; none where it wrote none."""
    path = folder / "log.json"
    return json.loads(path.read_text())["log"] if path.is_file() else []


def distance(one: Path, other: Path) -> float | None:
    """Largest relative difference of the losses of two runs' last reports; None unless both have the same steps."""
    a, b = log_of(one), log_of(other)
    if not a or not b or a[-1]["step"] != b[-1]["step"]:
        return None
    return max(abs(a[-1][name] - b[-1][name]) / abs(a[-1][name]) for name in ("nll", "stft", "mel"))


def seconds_a_step(folder: Path) -> float | None:
    """From the first report to the last: without compilation and capture."""
    log = log_of(folder)
    if len(log) < 2:
        return None
    return (log[-1]["seconds"] - log[0]["seconds"]) / (log[-1]["step"] - log[0]["step"])


def last_line(path: Path) -> str:
    lines = path.read_text().splitlines()
    return lines[-1] if lines else ""


def configuration(path: Path, out: Path) -> Path:
    """``path``, without the discriminators that need more packages where these are missing."""
    text = path.read_text()
    if not (find_spec("torchaudio") and find_spec("einops")):
        text = text.replace("stft_filters: 32", "stft_filters: 0")
    (out / "conf.yaml").write_text(text)
    return out / "conf.yaml"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-o", "--out", type=Path, required=True, help="folder, new")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: the script itself")
    add("--config", type=Path, default=ROOT / "conf" / "melglow_universal_gpu.yaml")
    add("--corpus", type=Path, default=ROOT / "egs" / "universal" / "voc1" / "corpus")
    add("--pretrained", type=Path, default=None)
    add("--steps", type=int, default=80, help="of each training")
    add("--only", nargs="+", choices=("kernels", "synthesis", "training"), default=["kernels", "synthesis", "training"])
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    parts = Parts(args.out.resolve())
    if "kernels" in args.only:
        kernels(parts)
    if "synthesis" in args.only:
        synthesis(parts, args.device)
    if "training" in args.only:
        config = configuration(args.config, parts.out)
        training(parts, args.device, config, args.corpus.resolve(), args.pretrained, args.steps)
    parts.tell()
    return 0 if all(verdict["ok"] for verdict in parts.verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
