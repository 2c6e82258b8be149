#!/usr/bin/env python3
"""Stage 0: recordings of many speakers -> Kaldi-style sets tr_no_dev, dev and eval1 at the configuration's rate."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml
from tqdm import tqdm

from melglow_plugin.checks import run_main
from melglow_plugin.training.corpus import SETS, write_lines
from melglow_plugin.training.corpus_voices import (
    Recording,
    at_rate,
    check_sets,
    hold_out,
    hold_out_recordings,
    read_source,
)


def gathered(sources: Iterable[Path]) -> list[Recording]:
    """The recordings of all sources, each once."""
    return list({each.path: each for source in sources for each in read_source(source)}.values())


def write_set(folder: Path, recordings: list[Recording], left_out: list[tuple[str, str]]) -> None:
    """``wav.scp``, ``utt2spk``, ``spk2utt`` and ``left_out.txt``, sorted by id."""
    utterances = {each.key: each for each in sorted(recordings, key=lambda each: each.key)}
    speakers: dict[str, list[str]] = {}
    for key, each in utterances.items():
        speakers.setdefault(each.speaker, []).append(key)
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "wav.scp", (f"{key} {each.path}" for key, each in utterances.items()))
    write_lines(folder / "utt2spk", (f"{key} {each.speaker}" for key, each in utterances.items()))
    write_lines(folder / "spk2utt", (f"{name} {' '.join(keys)}" for name, keys in sorted(speakers.items())))
    write_lines(folder / "left_out.txt", (f"{key} {reason}" for key, reason in left_out))
    print(f"{folder}: {len(utterances)} recordings of {len(speakers)} speakers, {len(left_out)} left out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="folders and lists")
    parser.add_argument("--dev", type=Path, nargs="+", help="neither this nor --eval: they are held out of --train")
    parser.add_argument("--eval", type=Path, nargs="+")
    parser.add_argument("--same-speakers", action="store_true", help="dev and eval may have speakers of train")
    parser.add_argument("--config", type=Path, required=True, help="training configuration: the sample rate")
    parser.add_argument("--out", type=Path, required=True, help="folder for raw/SET and audio/")
    args = parser.parse_args()
    if (args.dev is None) != (args.eval is None):
        raise ValueError("give --dev and --eval, or neither: then both are held out of --train")
    rate = yaml.safe_load(args.config.read_text(encoding="utf-8"))["feats_extract_conf"]["fs"]
    train, again = gathered(args.train), []
    if args.eval is None and args.same_speakers:
        again = check_sets({SETS[0]: train})[SETS[0]]  # else one of two might be held out
        parts = hold_out_recordings(each for each in train if each.key not in dict(again))
    else:
        parts = hold_out(train) if args.eval is None else [train, gathered(args.dev), gathered(args.eval)]
    sets = dict(zip(SETS, parts, strict=True))
    twice = check_sets(sets, speakers_apart=not args.same_speakers)
    twice[SETS[0]] += again
    for name, recordings in sets.items():
        repeated = {key for key, _ in twice[name]}
        kept = [each for each in recordings if each.key not in repeated]
        ready = [
            at_rate(each, rate, args.out.resolve() / "audio")
            for each in tqdm(kept, desc=f"{name} at {rate} Hz", mininterval=1, file=sys.stdout)
        ]
        write_set(args.out / "raw" / name, ready, twice[name])


if __name__ == "__main__":
    run_main(main)
