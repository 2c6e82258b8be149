#!/usr/bin/env python3
"""Griffin-Lim copies from the same mels that the vocoder gets: the yardstick beside it."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from melglow_plugin.evaluation.griffin_lim import griffin_lim
from melglow_plugin.files import read_mapping, read_scp, read_wav, write_wav
from melglow_plugin.mel.convention import MelConvention


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scp", type=Path, help="wav.scp of the recordings")
    parser.add_argument("out", type=Path, help="folder for the copies")
    parser.add_argument("--config", type=Path, required=True, help="training configuration")
    args = parser.parse_args()
    conf = read_mapping(args.config)
    convention = MelConvention.espnet(**conf["feats_extract_conf"])
    for key, path in tqdm(read_scp(args.scp).items(), desc="Griffin-Lim", unit="clip", disable=None):
        if not (args.out / f"{key}.wav").exists():
            wav = read_wav(Path(path), convention.sample_rate)
            generated = griffin_lim(convention.extract(wav), convention)
            write_wav(args.out / f"{key}.wav", generated[: len(wav)], convention.sample_rate)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"griffin_lim.py: {error}")
