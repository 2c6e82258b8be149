#!/usr/bin/env python3
"""One training step, forward and backward, of MelGlow and WaveGlow-64 side by side: seconds and peak memory.

    OMP_NUM_THREADS=1 python benchmarks/training_memory.py -o benchmarks/results/training_memory.json

Likelihood of 8 crops of 16,384 samples, float32, as in the published comparison; set the MALLOC_ variables of
egs/ljspeech/voc1/path.sh as the recipe does. Every system runs in a process of its own, and they take turns; memory is
the process's peak above what it held before the step.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

BATCH, SAMPLES = 8, 16_384
SYSTEMS = ("melglow", "melglow recompute", "melglow bfloat16", "waveglow-64")


def step(name: str) -> dict:
    """Seconds and MiB of one system, in this process."""
    import resource

    import torch

    from melglow_plugin import MelConvention, MelGlow, WaveGlow, flow_nll

    kind, *options = name.split()
    flow = MelGlow(lpc_order=32) if kind == "melglow" else WaveGlow(lpc_order=32)
    flow.set_mel_bands(*MelConvention.espnet().band_powers())
    flow.recompute("recompute" in options)
    wav, mel = 0.1 * torch.randn(BATCH, SAMPLES), torch.randn(BATCH, 80, SAMPLES // 256) - 2
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(2):
        start, cpu = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled="bfloat16" in options):
            z, log_det = flow(wav, mel)
        flow_nll(z, log_det).backward()
        times.append((time.perf_counter() - start, time.process_time() - cpu))
        flow.zero_grad(set_to_none=True)
    seconds, cpu_seconds = times[-1]
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 1024
    return {"system": name, "seconds": seconds, "cpu_seconds": cpu_seconds, "mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=SYSTEMS, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--out", type=Path, help="JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(step(args.one)))
        return
    found = {name: [] for name in SYSTEMS}
    for _ in range(args.rounds):
        for name in SYSTEMS:
            run = subprocess.run([sys.executable, __file__, "--one", name], check=True, capture_output=True, text=True)
            found[name].append(json.loads(run.stdout.splitlines()[-1]))
    rows = [
        {"system": name, **{k: statistics.median(r[k] for r in runs) for k in ("seconds", "cpu_seconds", "mib")}}
        for name, runs in found.items()
    ]
    for row in rows:
        ratio = rows[-1]["cpu_seconds"] / row["cpu_seconds"]
        print(
            f"{row['system']:18} {row['seconds']:6.2f} s  {row['cpu_seconds']:6.2f} CPU-s  {row['mib']:6.0f} MiB  "
            f"WaveGlow-64 takes {ratio:.1f} times as long"
        )
    if args.out:
        settings = {"threads": os.environ.get("OMP_NUM_THREADS"), "batch": BATCH, "samples": SAMPLES}
        args.out.write_text(json.dumps({**settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
