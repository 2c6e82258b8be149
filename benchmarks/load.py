#!/usr/bin/env python3
"""Many threads, then several processes, on one model at once: no error, no growth of memory, the sequential results.

OMP_NUM_THREADS=1 python benchmarks/load.py --minutes 10
"""

import argparse
import json
import multiprocessing
import threading
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
FRAMES = (1, 7, 40, 23, 64, 12)  # of the mels that are asked for


def resident() -> float:
    """MiB of this process's memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


def requests(n_mels: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n_mels, frames, generator=generator) - 2 for frames in FRAMES]


def hammer(model: str, threads: int, seconds: float) -> dict:
    """Call one vocoder from ``threads`` threads; every result is compared with the sequential one, bit for bit."""
    from melglow_plugin import Vocoder

    torch.set_num_threads(1)
    vocoder = Vocoder.from_pretrained(model)
    mels = requests(vocoder.convention.n_mels)
    expected = [vocoder(mel, seed=i) for i, mel in enumerate(mels)]
    counts, wrong, errors, end = [0] * threads, [0] * threads, [], time.monotonic() + seconds

    def work(number: int) -> None:
        try:
            while time.monotonic() < end:
                i = (counts[number] + number) % len(mels)
                wrong[number] += not torch.equal(vocoder(mels[i], seed=i), expected[i])
                counts[number] += 1
        except Exception as error:
            errors.append(repr(error))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    time.sleep(seconds / 5)  # every thread has its arenas by then
    early = resident()
    for worker in workers:
        worker.join()
    return {"calls": sum(counts), "fewest of a thread": min(counts), "not equal": sum(wrong), "errors": errors,
            "MiB after a fifth": round(early), "MiB at the end": round(resident())}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(ROOT / "pretrained" / "melglow_ljspeech"))
    parser.add_argument("--minutes", type=float, default=10.0, help="half for the threads, half for the processes")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    half = 30 * args.minutes
    found = {"minutes": args.minutes, f"{args.threads} threads": hammer(args.model, args.threads, half)}
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        jobs = [pool.apply_async(hammer, (args.model, 1, half)) for _ in range(args.processes)]
        found[f"{args.processes} processes"] = [job.get() for job in jobs]
    text = json.dumps(found, indent=2)
    print(text)
    (args.out / "load.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
