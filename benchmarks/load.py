#!/usr/bin/env python3
"""Many threads, then several processes, on one model at once: no error, no growth of memory, the sequential results.

    OMP_NUM_THREADS=1 python benchmarks/load.py --minutes 10
    OMP_NUM_THREADS=1 python benchmarks/load.py --server --minutes 3

The second asks Coqui's tts-server, on the loopback address, from many threads; its acoustic model has random weights.
"""

import argparse
import json
import multiprocessing
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
FRAMES = (1, 7, 40, 23, 64, 12)  # of the mels that are asked for


SENTENCES = ("it is warm.", "the sun has been up for hours.", "no.", "a second sentence is a little longer than that.")


def resident(process: int | str = "self") -> float:
    """MiB of a process's memory."""
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(kilobytes) / 1024


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


def ask(address: str, text: str) -> bytes:
    """A server's answer to a sentence; its status as text where it refuses."""
    try:
        with urllib.request.urlopen(
            f"{address}api/tts?{urllib.parse.urlencode({'text': text})}", timeout=120
        ) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        return str(error.code).encode()


def start_server(model: str, folder: Path) -> tuple[subprocess.Popen, str]:
    """Coqui's tts-server with this vocoder, and its address once it answers."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "integration")]
    from coqui_parts import UNITS, command, environment, glow_tts, options

    from melglow_plugin.cli import main as melglow

    if melglow(["export", model, "--format", "coqui", "-o", str(folder / "coqui")]):
        sys.exit(f"{model} could not be exported")
    with socket.socket(socket.AF_INET6) as probe:  # the server listens there
        probe.bind(("::1", 0))
        port = probe.getsockname()[1]
    log_file = folder / "server.log"
    parts = options(folder, glow_tts(folder, **UNITS["recipes"]))
    with log_file.open("w") as log:
        server = subprocess.Popen(
            command("-m", "TTS.server.server", "--port", str(port), *parts), env=environment(), stdout=log, stderr=log
        )
    address, end = f"http://localhost:{port}/", time.monotonic() + 600
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=10).close()
            return server, address
        except OSError:
            time.sleep(0.5)
    server.kill()
    sys.exit(f"the server did not answer: {log_file.read_text()[-3000:]}")


def besiege(model: str, clients: int, seconds: float) -> dict:
    """Ask a server from ``clients`` threads; every answer is compared with the one it gave alone, byte for byte."""
    with tempfile.TemporaryDirectory() as folder:
        server, address = start_server(model, Path(folder))
        try:
            asked = (*SENTENCES, " ")  # the last is refused
            expected = [ask(address, text) for text in asked]
            counts, wrong, errors = [0] * clients, [0] * clients, []
            end = time.monotonic() + seconds

            def work(number: int) -> None:
                try:
                    while time.monotonic() < end:
                        i = (counts[number] + number) % len(asked)
                        wrong[number] += ask(address, asked[i]) != expected[i]
                        counts[number] += 1
                except Exception as error:
                    errors.append(repr(error))

            workers = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
            for worker in workers:
                worker.start()
            memory = []
            for _ in range(5):
                time.sleep(seconds / 5)
                memory.append(round(resident(server.pid)))
            for worker in workers:
                worker.join()
            return {"minutes": seconds / 60, "clients": clients, "requests": sum(counts),
                    "fewest of a client": min(counts), "bytes of a wav": [len(wav) for wav in expected[:-1]],
                    "status of a blank text": expected[-1].decode(), "not equal": sum(wrong), "errors": errors,
                    "MiB after each fifth": memory}  # fmt: skip
        finally:
            server.terminate()
            server.wait(timeout=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(ROOT / "pretrained" / "melglow_ljspeech"))
    parser.add_argument("--minutes", type=float, default=10.0, help="without --server half of them for the processes")
    parser.add_argument("--server", action="store_true", help="ask Coqui's tts-server instead")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.server:
        report(args.out / "load_server.json", besiege(args.model, args.threads, 60 * args.minutes))
        return
    half = 30 * args.minutes
    found = {"minutes": args.minutes, f"{args.threads} threads": hammer(args.model, args.threads, half)}
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        jobs = [pool.apply_async(hammer, (args.model, 1, half)) for _ in range(args.processes)]
        found[f"{args.processes} processes"] = [job.get() for job in jobs]
    report(args.out / "load.json", found)


def report(path: Path, found: dict) -> None:
    text = json.dumps(found, indent=2)
    print(text)
    path.write_text(text + "\n")


if __name__ == "__main__":
    main()
