#!/usr/bin/env python3
"""Seconds and peak memory of one training step of a configuration, forward, backward and optimizer.

    OMP_NUM_THREADS=2 python benchmarks/training_step.py conf/melglow.yaml conf/melglow_likelihood.yaml
    python benchmarks/training_step.py conf/melglow.yaml --busy 1            # beside a process that takes a core
    python benchmarks/training_step.py conf/melglow.yaml --busy 1 --plain    # as torch alone would run

Without --plain the threads wait and follow the free cores as in both trainers (melglow_plugin.processor).
Set the MALLOC_ variables of egs/ljspeech/voc1/path.sh as the recipe does; they matter on a CPU.
"""

import argparse
import contextlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from melglow_plugin.processor import Cores, prepare

if "--plain" not in sys.argv:
    prepare()  # before torch is imported

import torch
import yaml

from melglow_plugin.checks import from_dict
from melglow_plugin.espnet.model import ESPnetVocoderModel
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.melglow import MODELS
from melglow_plugin.training.objective import LossConfig


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that each take a core."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()


def seconds_per_step(path: str, steps: int, cores: Cores | None) -> list[float]:
    """Time ``steps`` steps on noise of the configured shapes, after twelve to warm up."""
    with open(path, encoding="utf-8") as file:
        conf = yaml.safe_load(file)
    from melglow_plugin.training.crops import segment_samples

    convention = MelConvention.espnet(**conf["feats_extract_conf"])
    loss = from_dict(LossConfig, conf["loss_conf"], "loss_conf")
    model = ESPnetVocoderModel(MODELS[conf["vocoder"]](**conf["vocoder_conf"]), convention, loss, **conf["model_conf"])
    model.flow.set_mel_bands(*convention.band_powers())
    optimizer = torch.optim.Adam(model.flow.parameters(), lr=1e-5)
    speech = 0.1 * torch.randn(conf["batch_size"], segment_samples(convention, conf["segment_frames"]))
    times = []
    for _ in range(12 + steps):
        start = time.perf_counter()
        if cores:
            cores.count_step()
        model(speech=speech)[0].sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), conf["grad_clip"])
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return times[12:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", metavar="CONFIG.yaml")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--busy", type=int, default=0, help="processes beside it that each take a core (0)")
    parser.add_argument("--plain", action="store_true", help="threads as torch has them")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.busy} busy processes")
    for path in args.configs:
        with busy(args.busy):
            times = seconds_per_step(path, args.steps, None if args.plain else Cores())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{path}: median {statistics.median(times):.3f} s/step, fastest {min(times):.3f}; peak {peak:.2f} GiB")


if __name__ == "__main__":
    main()
