#!/usr/bin/env python3
"""Align transcripts with recordings: data folders for ESPnet2's FastSpeech2, with a duration for every token.

Pronunciations are ESPnet's own (``--g2p espeak_ng_english_us_vits``), so no word lacks one; boundaries are those of
pocketsphinx, whose wheel holds its model of US English: nothing is downloaded.

    python local/align.py CORPUS data      # CORPUS: metadata.csv, wavs/ and splits/{train,dev,eval}.txt

Writes data/tokens.txt, data/SET/{wav.scp,text,durations,utt2spk} and data/SET/wav/*.flac: recordings without the
silence before the first word, which no token could carry.
"""

import argparse
import logging
from collections import Counter
from pathlib import Path

import librosa
import soundfile
from aligner import HOP, LEAD, RATE, Aligner, boundaries, durations, pronunciation
from espnet2.text.phoneme_tokenizer import PhonemeTokenizer
from phones import SEPARATORS, words_of
from tqdm import tqdm

G2P = "espeak_ng_english_us_vits"


def prepare(folder: Path, keys: list[str], texts: dict[str, tuple[str, list[str]]], corpus: Path, aligner: Aligner):
    """Write the data folder of one set; a recording that cannot be aligned is left out, and named."""
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    lines = {file: [] for file in ("wav.scp", "text", "durations", "utt2spk")}
    for key in tqdm(keys, desc=folder.name):
        wav, rate = soundfile.read(corpus / "wavs" / f"{key}.flac", dtype="float32")
        if rate != RATE:
            raise SystemExit(f"{key}.flac: sample rate is {rate}, {RATE} is wanted")
        text, tokens = texts[key]
        words = words_of(tokens)
        try:
            times = aligner(librosa.resample(wav, orig_sr=rate, target_sr=16_000), [pronunciation(w) for w in words])
        except (RuntimeError, ValueError) as error:
            logging.warning("%s left out: %s", key, error)
            continue
        cut = max(0, int(times[0][0][0] * RATE) - LEAD)
        path = folder / "wav" / f"{key}.flac"
        soundfile.write(path, wav[cut:], rate, subtype="PCM_16")
        frames = 1 + (len(wav) - cut) // HOP
        counts = durations(tokens, boundaries(words, times), cut / RATE, frames)
        lines["wav.scp"].append(f"{key} {path.resolve()}")
        lines["text"].append(f"{key} {text}")
        lines["durations"].append(f"{key} {' '.join(map(str, counts))}")
        lines["utt2spk"].append(f"{key} LJ")
    for file, rows in lines.items():
        (folder / file).write_text("\n".join(rows) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    sets = {name: (args.corpus / "splits" / f"{name}.txt").read_text().split() for name in ("train", "dev", "eval")}
    rows = (line.split("|") for line in (args.corpus / "metadata.csv").read_text().splitlines())
    tokenizer = PhonemeTokenizer(G2P)
    texts = {row[0]: (row[2], tokenizer.text2tokens(row[2])) for row in rows}
    args.out.mkdir(parents=True, exist_ok=True)
    aligner = Aligner(
        {pronunciation(word) for _, tokens in texts.values() for word in words_of(tokens)}, args.out / "dictionary.txt"
    )
    for name, keys in sets.items():
        prepare(args.out / name, keys, texts, args.corpus, aligner)
    counts = Counter(token for _, tokens in texts.values() for token in tokens)
    known = [token for token, _ in counts.most_common()]
    known += sorted(SEPARATORS - {*known})  # a corpus may ask no question; release.py gives it a meaning
    (args.out / "tokens.txt").write_text("\n".join(["<blank>", "<unk>", *known, "<sos/eos>"]) + "\n")


if __name__ == "__main__":
    main()
