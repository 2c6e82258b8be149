#!/usr/bin/env python3
"""How many words a speech recogniser gets wrong, in recordings and in what was made to say the same.

    pip install pocketsphinx                                     # with its model of US English; used here only
    python benchmarks/recognise.py --text "The office of marshal had been hereditary," out.wav other.wav
    python benchmarks/recognise.py --recordings copies           # folders or files, named as in metadata.csv

The recogniser (Gaussian mixtures, a trigram language model) errs on clean recordings, too: figures mean something
beside those of the recordings, which ``--recordings`` puts first, and of wavs that say something else.
"""

import argparse
import string
from pathlib import Path

import librosa
import numpy as np
from bundled import CORPUS

from melglow_plugin.checks import run_main
from melglow_plugin.files import AUDIO_SUFFIXES
from melglow_plugin.training.corpus import find_recordings, read_metadata

RATE = 16_000  # Hz, of the recogniser's model


def words(text: str) -> list[str]:
    return text.lower().translate(str.maketrans("-", " ", string.punctuation.replace("-", ""))).split()


def errors(reference: list[str], heard: list[str]) -> int:
    """Substitutions, insertions and deletions from one list to the other, at least."""
    row = list(range(len(heard) + 1))
    for i, wanted in enumerate(reference, 1):
        before, row[0] = row[0], i
        for j, found in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (wanted != found))
    return row[-1]


def hear(path: Path) -> list[str]:
    """What the recogniser makes of a file, each by a decoder of its own: it adapts to what it heard before.

    Raises:
        ImportError: its package is missing; names it.
    """
    try:
        from pocketsphinx import Decoder
    except ModuleNotFoundError as error:
        raise ImportError("the recogniser needs pocketsphinx: pip install pocketsphinx") from error
    wav, _ = librosa.load(path, sr=RATE)
    samples = (np.clip(wav / np.abs(wav).max(), -1, 1) * 32_767).astype("<i2")
    decoder = Decoder(samprate=RATE, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()
    return words(decoder.hyp().hypstr) if decoder.hyp() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, help="recordings, or folders of them")
    parser.add_argument("--text", help="what they all say; else metadata.csv tells it by their names")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="metadata.csv and wavs/")
    parser.add_argument("--recordings", action="store_true", help="hear the corpus' recordings of the same names first")
    parser.add_argument("--quiet", action="store_true", help="the sums alone")
    args = parser.parse_args()
    texts = read_metadata(args.corpus)
    groups = {}
    for path in args.paths:
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in AUDIO_SUFFIXES) if path.is_dir() else [path]
        groups.setdefault(str(path if path.is_dir() else path.parent), []).extend(found)
    named = [path.stem for paths in groups.values() for path in paths]
    if not args.text and (unknown := sorted(set(named) - set(texts))):
        parser.error(f"{unknown[0]} is not in {args.corpus / 'metadata.csv'}: give --text")
    if args.recordings:
        groups = {"recordings": list(find_recordings(args.corpus, sorted({*named} & {*texts})).values()), **groups}
    for name, paths in groups.items():
        wrong = total = 0
        for path in paths:
            reference, heard = words(args.text or texts[path.stem]), hear(path)
            wrong, total = wrong + errors(reference, heard), total + len(reference)
            if not args.quiet:
                print(f"{path}: {errors(reference, heard)} of {len(reference)} words wrong: {' '.join(heard)}")
        if len(paths) > 1:
            print(f"{name}: {wrong} of {total} words wrong, {100 * wrong / total:.0f} %")


if __name__ == "__main__":
    run_main(main)
