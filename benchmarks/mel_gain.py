#!/usr/bin/env python3
"""What ``mel_gain`` does for the likelihood: nats per sample on dev over the first steps, with it and without.

    OMP_NUM_THREADS=1 python benchmarks/mel_gain.py --corpus DIR --gain on      # and: --gain off

DIR holds wavs/ and splits/{train,dev}.txt. Same crops, same initial weights of the couplings, likelihood alone, Adam.
"""

import argparse
from pathlib import Path

import soundfile
import torch

from melglow_plugin import MelGlow, Vocoder, flow_nll
from melglow_plugin.cli import bundled_model
from melglow_plugin.data import dequantised, segment_samples, wav_and_mel

FRAMES, BATCH, WARM_UP = 32, 8, 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--gain", choices=("on", "off"), required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--kernel_lr_ratio", type=float, default=2.0)
    args = parser.parse_args()
    released = Vocoder.from_pretrained(bundled_model())  # for its mel and the mel's statistics
    convention = released.convention
    torch.manual_seed(1)
    flow = MelGlow(mel_gain=args.gain == "on")
    flow.set_mel_statistics(released.flow.mel_mean, released.flow.mel_std)
    optimizer = torch.optim.Adam(flow.parameter_groups(args.lr, args.kernel_lr_ratio))
    rates = [group["lr"] for group in optimizer.param_groups]
    generator = torch.Generator().manual_seed(3)
    samples = segment_samples(convention, FRAMES)

    def recordings(name: str) -> list[torch.Tensor]:
        keys = (args.corpus / "splits" / f"{name}.txt").read_text().split()[:150]
        wavs = [torch.from_numpy(soundfile.read(args.corpus / "wavs" / f"{k}.flac", dtype="float32")[0]) for k in keys]
        return [wav for wav in wavs if len(wav) > samples]

    def crops(pool: list[torch.Tensor], n: int) -> torch.Tensor:
        chosen = [pool[int(torch.randint(len(pool), (), generator=generator))] for _ in range(n)]
        starts = [int(torch.randint(len(wav) - samples, (), generator=generator)) for wav in chosen]
        return torch.stack([wav[start : start + samples] for wav, start in zip(chosen, starts, strict=True)])

    def nll(batch: torch.Tensor) -> torch.Tensor:
        wav, mel = wav_and_mel(batch, convention, FRAMES)
        return flow_nll(*flow(dequantised(wav, generator), mel))

    train, dev = recordings("train"), crops(recordings("dev"), 32)
    for step in range(1, args.steps + 1):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1, step / WARM_UP)
        nll(crops(train, BATCH)).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 20.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            with torch.no_grad():
                print(f"gain {args.gain}, step {step}: {nll(dev):.2f} nats per sample on dev", flush=True)


if __name__ == "__main__":
    main()
