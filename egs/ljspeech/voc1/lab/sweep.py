#!/usr/bin/env python3
"""Scores of copies of a few recordings over the standard deviation of z and rounds of refinement.

    lab/sweep.py exp/melglow/decode_.../model exp/lists/dev/wav.scp --sigmas 0.5 0.6 0.7 --refine 0 1 4 -o sweep.csv
    lab/sweep.py MODEL exp/lists/dev/wav.scp --sigmas 0.6 --refine 0 1 4 --blur-bins 3   # as if of an acoustic model
    lab/sweep.py MODEL exp/lists/dev/wav.scp --sigmas 0.6 --refine 1 --steps 1 3 --relaxation 1 1.4   # of a round

Which ``--sigma`` and ``--refine`` to decode with: choose on dev, never on eval.
"""

import argparse
import itertools
import statistics
from pathlib import Path

import soundfile
import torch
from torch.nn import functional as F

from melglow_plugin import Vocoder
from melglow_plugin.checks import run_main
from melglow_plugin.cli.shared import refinement as kind_of_refinement
from melglow_plugin.evaluation.evaluate import default_names, score_pair
from melglow_plugin.files import read_scp, write_csv
from melglow_plugin.inference import refine as refinement

NAMES = ("mcd_dtw", "estoi", "mel_l1", "mr_stft", "vuv_error", "line_noise_db", "pesq", "dnsmos", "distill_mos")


def blurred(mel: torch.Tensor, bins: int, frames: int) -> torch.Tensor:
    """(M, F) -> (M, F), each value the mean of its neighbourhood, in the mel's own units."""
    if bins % 2 == 0 or frames % 2 == 0:
        raise ValueError(f"--blur-bins {bins}, --blur-frames {frames}: wanted odd numbers")
    padded = F.pad(mel[None, None], (frames // 2, frames // 2, bins // 2, bins // 2), mode="replicate")
    return F.avg_pool2d(padded, (bins, frames), stride=1)[0, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("scp", type=Path, help="recordings, KEY PATH a line")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    parser.add_argument(
        "--refine", type=kind_of_refinement, nargs="+", default=[None], help="rounds or resynthesis (model's)"
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[refinement.STEPS], help="in a round")
    parser.add_argument("--relaxation", type=float, nargs="+", default=[refinement.RELAXATION], help="of a round")
    parser.add_argument("--blur-bins", type=int, default=1, help="mean of so many neighbouring bins of the mel, odd")
    parser.add_argument("--blur-frames", type=int, default=1, help="and of so many frames, odd")
    parser.add_argument("--noise", type=float, default=0.0, help="nats of noise added to the mel, standard deviation")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, help="CSV to write")
    args = parser.parse_args()
    vocoder = Vocoder.from_pretrained(args.model)
    names = [name for name in NAMES if name in default_names(vocoder.sample_rate)]
    rows = []
    for sigma, rounds, steps, relaxation in itertools.product(args.sigmas, args.refine, args.steps, args.relaxation):
        refinement.STEPS, refinement.RELAXATION = steps, relaxation
        clips, generator = [], torch.Generator().manual_seed(args.seed)
        for path in list(read_scp(args.scp).values())[: args.clips]:
            wav = soundfile.read(path, dtype="float32")[0]
            mel = blurred(vocoder.convention.extract(torch.from_numpy(wav)), args.blur_bins, args.blur_frames)
            mel += args.noise / vocoder.convention.nats_per_unit * torch.randn(mel.shape, generator=generator)
            copy = vocoder(mel, sigma=sigma, seed=args.seed, refine=rounds)[: len(wav)].numpy()
            clips.append(score_pair(wav, copy, vocoder.sample_rate, names=names))
        row = {name: statistics.fmean(v for clip in clips if (v := clip[name]) == v) for name in names}
        rounds = vocoder.refine if rounds is None else rounds
        chosen = {"sigma": sigma, "refine": rounds, "steps": steps, "relaxation": relaxation}
        rows.append(chosen | {name: round(value, 4) for name, value in row.items()})
        print("  ".join(f"{name} {value:.3f}" for name, value in rows[-1].items()), flush=True)
    if args.out:
        write_csv(args.out, rows)


if __name__ == "__main__":
    run_main(main)
