#!/usr/bin/env python3
"""Many more cases of tests/test_fuzz.py, and a mel of a million frames; prints how many were run.

OMP_NUM_THREADS=1 python benchmarks/fuzz.py --cases 2000                # Hypothesis, at random
OMP_NUM_THREADS=1 python benchmarks/fuzz.py --engine atheris --seconds 60   # coverage-guided, for each target
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
RESULTS = Path(__file__).parent / "results"
FRAMES = 1_000_000


def targets() -> dict:
    """The tests of tests/test_fuzz.py by name."""
    import test_fuzz

    return {name: test for name, test in vars(test_fuzz).items() if name.startswith("test_")}


def place():
    """What the fixture of the command line's test makes."""
    import test_fuzz

    class Factory:
        def mktemp(self, name: str) -> Path:
            return Path(tempfile.mkdtemp(prefix=name))

    return test_fuzz.place.__wrapped__(Factory())


def by_hypothesis(cases: int) -> dict[str, int]:
    """Cases run of each target; an exception ends it all."""
    counts = {}
    for name, test in targets().items():
        inner, start = test.hypothesis.inner_test, time.monotonic()
        counts[name] = 0

        def counted(*args, name=name, inner=inner, **kwargs):
            counts[name] += 1
            return inner(*args, **kwargs)

        test.hypothesis.inner_test = counted
        test(place()) if "command_line" in name else test()
        print(f"{counts[name]:8}  {name}  ({time.monotonic() - start:.0f} s)", flush=True)
    return counts


def by_atheris(seconds: int) -> dict[str, int]:
    """The same, a process for each target: libFuzzer ends its process."""
    counts = {}
    for name in targets():
        if "command_line" in name:  # its fixture belongs to pytest
            continue
        command = [sys.executable, __file__, "--engine", "atheris", "--target", name, "--seconds", str(seconds)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            sys.exit(f"{name}: status {result.returncode}\n{result.stderr[-4000:]}")
        counts[name] = int(re.findall(r"Done (\d+) runs", result.stderr)[-1])
        print(f"{counts[name]:8}  {name}", flush=True)
    return counts


def one_by_atheris(name: str, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["melglow_plugin"]):
        import melglow_plugin.checks
        import melglow_plugin.mel.convention
        import melglow_plugin.vocoder  # noqa: F401
    test = targets()[name]
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-rss_limit_mb=3000", "-max_len=4096",
                   f"-artifact_prefix={tempfile.gettempdir()}/"],
                  test.hypothesis.fuzz_one_input)  # fmt: skip
    atheris.Fuzz()


def million_frames() -> dict:
    """A mel of a million frames through the tiny model: seconds, peak memory, and one sample in a thousand."""
    import torch
    from test_fuzz import HOP, VOCODER, M

    mel = torch.randn(M, FRAMES, generator=torch.Generator().manual_seed(0))
    start = time.monotonic()
    wav = VOCODER(mel, seed=0)
    seconds = time.monotonic() - start
    assert wav.shape == (FRAMES * HOP,) and bool(torch.isfinite(wav).all())
    middle, context = FRAMES // 2, VOCODER.flow.context_frames
    part = [piece for piece in VOCODER.stream([mel[:, : 2 * context + 50]], seed=0)]
    assert torch.allclose(torch.cat(part)[: 50 * HOP], wav[: 50 * HOP], atol=1e-5) and bool(wav[middle:].any())
    return {"frames": FRAMES, "samples": len(wav), "seconds": round(seconds, 1),
            "peak GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000, help="of each target, with Hypothesis")
    parser.add_argument("--seconds", type=int, default=60, help="for each target, with atheris")
    parser.add_argument("--engine", choices=("hypothesis", "atheris"), default="hypothesis")
    parser.add_argument("--target", help="one target, with atheris")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    os.environ["MELGLOW_FUZZ_EXAMPLES"] = str(args.cases)
    if args.target:
        return one_by_atheris(args.target, args.seconds)
    if args.engine == "atheris":
        found = {"engine": "atheris", "seconds each": args.seconds, "cases": by_atheris(args.seconds)}
    else:
        found = {"engine": "hypothesis", "a million frames": million_frames(), "cases": by_hypothesis(args.cases)}
    found["cases in all"] = sum(found["cases"].values())
    print(json.dumps(found, indent=2))
    (args.out / f"fuzz_{args.engine}.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
