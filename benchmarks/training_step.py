#!/usr/bin/env python3
"""Seconds and peak memory of one training step of a configuration, forward, backward and optimizer.

    OMP_NUM_THREADS=2 python benchmarks/training_step.py conf/melglow.yaml conf/melglow_likelihood.yaml

Set the MALLOC_ variables of egs/ljspeech/voc1/path.sh as the recipe does; they matter on a CPU.
"""

import argparse
import resource
import statistics
import time

import torch
import yaml

from melglow_plugin.checks import from_dict
from melglow_plugin.espnet.model import ESPnetVocoderModel
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.melglow import MODELS
from melglow_plugin.training.objective import LossConfig


def seconds_per_step(path: str, steps: int) -> list[float]:
    """Time ``steps`` steps on noise of the configured shapes, after three to warm up."""
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
    for _ in range(3 + steps):
        start = time.perf_counter()
        model(speech=speech)[0].sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), conf["grad_clip"])
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return times[3:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", metavar="CONFIG.yaml")
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for path in args.configs:
        times = seconds_per_step(path, args.steps)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{path}: median {statistics.median(times):.3f} s/step, fastest {min(times):.3f}; peak {peak:.2f} GiB")


if __name__ == "__main__":
    main()
