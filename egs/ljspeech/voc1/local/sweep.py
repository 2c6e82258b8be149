#!/usr/bin/env python3
"""Scores of copies of a few recordings over the standard deviation of z: which ``--sigma`` to decode with.

    local/sweep.py exp/melglow/decode_.../model exp/lists/dev/wav.scp --sigmas 0.4 0.5 0.6 0.7 -o sweep.csv

Choose on dev, never on eval.
"""

import argparse
import csv
import statistics
import sys
from pathlib import Path

import soundfile
import torch

from melglow_plugin import Vocoder
from melglow_plugin.corpus import read_scp
from melglow_plugin.metrics import score_pair

NAMES = ("mcd_dtw", "estoi", "mel_l1", "mr_stft", "vuv_error", "line_noise_db", "pesq", "dnsmos", "distill_mos")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("scp", type=Path, help="recordings, KEY PATH a line")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, help="CSV to write")
    args = parser.parse_args()
    vocoder = Vocoder.from_pretrained(args.model)
    rows = []
    for sigma in args.sigmas:
        clips = []
        for path in list(read_scp(args.scp).values())[: args.clips]:
            wav = soundfile.read(path, dtype="float32")[0]
            mel = vocoder.convention.extract(torch.from_numpy(wav))
            copy = vocoder(mel, sigma=sigma, seed=args.seed)[: len(wav)].numpy()
            clips.append(score_pair(wav, copy, vocoder.sample_rate, names=list(NAMES)))
        row = {name: statistics.fmean(v for clip in clips if (v := clip[name]) == v) for name in NAMES}
        rows.append({"sigma": sigma, **{name: round(value, 4) for name, value in row.items()}})
        print("  ".join(f"{name} {value:.3f}" for name, value in rows[-1].items()), flush=True)
    if args.out:
        with open(args.out, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"sweep.py: {error}")
