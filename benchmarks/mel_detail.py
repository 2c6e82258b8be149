#!/usr/bin/env python3
"""How sharp mels are: acoustic models' beside those of recordings.

    python benchmarks/mel_detail.py pretrained/melglow_ljspeech FastSpeech2=exp/mels recordings=CORPUS/wavs

A folder holds KEY.npy, (M, F), or recordings. The detail over bins is the mean of ``|m[b-1] - 2 m[b] + m[b+1]|`` in
nats, over frames the same, in frames that are at most 5 nats below the loudest: pauses say nothing.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from melglow_plugin import MelConvention, Vocoder
from melglow_plugin.files import read_wav

QUIETEST = 5.0  # nats below the loudest frame's mean


def details(mel: torch.Tensor) -> torch.Tensor:
    """Of a mel (M, F) in nats: over bins, over frames, and the mean deviation of a bin over frames."""
    loudness = mel.mean(0)
    speech = loudness > loudness.max() - QUIETEST
    over_bins = (mel[2:] - 2 * mel[1:-1] + mel[:-2]).abs()[:, speech].mean()
    over_frames = (mel[:, 2:] - 2 * mel[:, 1:-1] + mel[:, :-2]).abs()[:, speech[1:-1]].mean()
    return torch.stack([over_bins, over_frames, mel[:, speech].std(1).mean()])


def mel_of(path: Path, convention: MelConvention) -> torch.Tensor:
    if path.suffix == ".npy":
        return torch.from_numpy(np.load(path)).float()
    return convention.extract(read_wav(path, convention.sample_rate))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model folder: its convention is that of the mels")
    parser.add_argument("folders", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--limit", type=int, default=20, help="mels of each folder (20)")
    args = parser.parse_args()
    convention = Vocoder.from_pretrained(args.model).convention
    print(
        "| mels | number | detail over bins | lowest and highest | over frames | deviation of a bin |\n"
        + "| --- " * 6
        + "|"
    )
    for name, folder in (each.split("=", 1) for each in args.folders):
        paths = sorted(path for path in Path(folder).iterdir() if path.suffix in (".npy", ".wav", ".flac"))[
            : args.limit
        ]
        found = torch.stack([details(mel_of(path, convention) * convention.nats_per_unit) for path in paths])
        bins, frames, deviation = found.mean(0).tolist()
        ends = f"{found[:, 0].min():.2f} to {found[:, 0].max():.2f}"
        print(f"| {name} | {len(paths)} | {bins:.2f} | {ends} | {frames:.2f} | {deviation:.2f} |")


if __name__ == "__main__":
    main()
