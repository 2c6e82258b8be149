#!/usr/bin/env python3
"""Copies of recordings by another vocoder, and a CSV of its real-time factor: what MelGlow is compared with.

Griffin-Lim gets the mel of the configuration, HiFi-GAN V1 its own mel (0 to 8000 Hz) and its released LJSpeech weights.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from melglow_plugin.checks import run_main
from melglow_plugin.evaluation import hifigan
from melglow_plugin.evaluation.griffin_lim import griffin_lim
from melglow_plugin.files import append_csv, read_mapping, read_scp, read_wav, write_wav
from melglow_plugin.mel.convention import MelConvention

NAMES = ("griffin_lim", "hifigan")


def copier(name: str, convention: MelConvention, device: str) -> Callable[[Tensor], Tensor]:
    """A function from a recording (T,) at the rate of ``convention`` to its copy, of about that length."""
    if name == "griffin_lim":
        return lambda wav: griffin_lim(convention.extract(wav), convention)
    if convention.sample_rate != hifigan.CONVENTION.sample_rate:
        raise ValueError(f"hifigan makes {hifigan.CONVENTION.sample_rate} Hz, not {convention.sample_rate} Hz")
    hifigan.generator().to(device)
    return lambda wav: hifigan.copy(wav.to(device)).cpu()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("scp", type=Path, help="wav.scp of the recordings")
    parser.add_argument("out", type=Path, help="folder for the copies; the CSV is beside it")
    parser.add_argument("--config", type=Path, required=True, help="training configuration")
    parser.add_argument("--device", default="cpu", help="for hifigan: cpu or cuda")
    args = parser.parse_args()
    convention = MelConvention.espnet(**read_mapping(args.config)["feats_extract_conf"])
    copy = copier(args.name, convention, args.device)
    for key, path in tqdm(read_scp(args.scp).items(), desc=args.name, unit="clip", disable=None):
        if not (args.out / f"{key}.wav").exists():
            wav = read_wav(Path(path), convention.sample_rate)
            start = time.perf_counter()
            generated = copy(wav)
            seconds, length = time.perf_counter() - start, len(wav) / convention.sample_rate
            write_wav(args.out / f"{key}.wav", generated[: len(wav)], convention.sample_rate)
            append_csv(args.out.with_suffix(".csv"), {"id": key, "seconds": length, "rtf": seconds / length})


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    run_main(main)
