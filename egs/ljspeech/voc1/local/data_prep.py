#!/usr/bin/env python3
"""Stage 0: a corpus folder -> Kaldi-style directories tr_no_dev, dev and eval1."""

import argparse
from pathlib import Path

from melglow_plugin.checks import run_main
from melglow_plugin.training.corpus import find_recordings, read_metadata, split, write_data_dir


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="folder with metadata.csv and wavs/")
    parser.add_argument("data", type=Path, help="folder to write")
    args = parser.parse_args()
    texts = read_metadata(args.corpus)
    recordings = find_recordings(args.corpus, texts)
    for name, keys in split(args.corpus, list(texts)).items():
        write_data_dir(args.data / name, {key: recordings[key] for key in keys}, texts)
        print(f"{args.data / name}: {len(keys)} recordings")


if __name__ == "__main__":
    run_main(main)
