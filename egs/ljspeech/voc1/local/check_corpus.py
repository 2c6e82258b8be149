#!/usr/bin/env python3
"""Stage 1: leave out, by name, the recordings that cannot be trained on or copied."""

import argparse
import sys
from pathlib import Path

import yaml
from tqdm import tqdm

from melglow_plugin.corpus import SETS, read_scp, recording_faults
from melglow_plugin.data import segment_samples
from melglow_plugin.mel import MelConvention


def check_set(scp: Path, out: Path, sample_rate: int, min_samples: int) -> tuple[int, int]:
    """Write the accepted list to ``out``; returns how many were accepted and how many left out."""
    accepted, rejected = [], []
    for key, path in tqdm(read_scp(scp).items(), desc=f"checking {out.name}", mininterval=1, file=sys.stdout):
        if faults := recording_faults(path, sample_rate, min_samples):
            rejected.append(f"{key} {'; '.join(faults)}")
        else:
            accepted.append(f"{key} {path}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "rejected.txt").write_text("".join(f"{line}\n" for line in rejected), encoding="utf-8")
    for line in rejected:
        print(f"{out.name}: left out {line}")
    if not accepted:
        raise ValueError(f"{scp}: none of {len(rejected)} recordings is usable, see {out / 'rejected.txt'}")
    (out / "wav.scp").write_text("".join(f"{line}\n" for line in accepted), encoding="utf-8")
    return len(accepted), len(rejected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder with one directory, holding wav.scp, for each set")
    parser.add_argument("out", type=Path, help="folder for the accepted lists")
    parser.add_argument("--config", type=Path, required=True, help="training configuration")
    args = parser.parse_args()
    conf = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    convention = MelConvention.espnet(**conf["feats_extract_conf"])
    frames = {"tr_no_dev": conf["segment_frames"], "dev": conf["valid_segment_frames"], "eval1": 1}
    for name in SETS:
        needed = segment_samples(convention, frames[name]) - 2 * convention.context
        kept, left_out = check_set(args.source / name / "wav.scp", args.out / name, convention.sample_rate,
                                   max(needed, convention.context + 1))  # fmt: skip
        print(f"{name}: {kept} recordings, {left_out} left out")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"check_corpus.py: {error}")
