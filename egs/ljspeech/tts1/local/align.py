#!/usr/bin/env python3
"""Align transcripts with recordings: data folders for ESPnet2's FastSpeech2, with a duration for every token.

Pronunciations are ESPnet's own (``--g2p espeak_ng_english_us_vits``), so no word lacks one; boundaries are those of
pocketsphinx, whose wheel holds its model of US English: nothing is downloaded.

    python local/align.py CORPUS data      # CORPUS: metadata.csv, wavs/; splits/{train,dev,eval}.txt where given

Writes data/tokens.txt, data/SET/{wav.scp,text,durations,utt2spk} and data/SET/wav/*.flac: recordings without the
silence before the first word, which no token could carry.
"""

import argparse
import logging
from collections import Counter
from pathlib import Path

import librosa
import soundfile
from aligner import HOP, LEAD, RATE, Aligner, boundaries, durations, pronunciation, words_by_id
from espnet2.text.phoneme_tokenizer import PhonemeTokenizer
from phones import SEPARATORS
from tqdm import tqdm

from melglow_plugin.checks import run_main
from melglow_plugin.files import read_wav
from melglow_plugin.training.corpus import find_recordings, read_metadata, split

G2P = "espeak_ng_english_us_vits"
SETS = ("train", "dev", "eval")


def prepare(folder: Path, recordings: dict[str, Path], texts: dict, tokens: dict, words: dict, aligner: Aligner):
    """Write the data folder of one set; a recording that cannot be aligned is left out, and named.

    ``texts``, their ``tokens`` and ``words`` by id. ValueError where a recording has another rate or more channels.
    """
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    lines = {file: [] for file in ("wav.scp", "text", "durations", "utt2spk")}
    for key, recording in tqdm(recordings.items(), desc=folder.name):
        wav = read_wav(recording, RATE).numpy()
        try:
            sounds = librosa.resample(wav, orig_sr=RATE, target_sr=16_000)
            times = aligner(sounds, [pronunciation(word) for word in words[key]])
        except (RuntimeError, ValueError) as error:
            logging.warning("%s left out: %s", key, error)
            continue
        cut = max(0, int(times[0][0][0] * RATE) - LEAD)
        path = folder / "wav" / f"{key}.flac"
        soundfile.write(path, wav[cut:], RATE, subtype="PCM_16")
        frames = 1 + (len(wav) - cut) // HOP
        counts = durations(tokens[key], boundaries(words[key], times), cut / RATE, frames)
        lines["wav.scp"].append(f"{key} {path.resolve()}")
        lines["text"].append(f"{key} {texts[key]}")
        lines["durations"].append(f"{key} {' '.join(map(str, counts))}")
        lines["utt2spk"].append(f"{key} LJ")
    for file, rows in lines.items():
        (folder / file).write_text("\n".join(rows) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    texts = read_metadata(args.corpus)
    sets = dict(zip(SETS, split(args.corpus, list(texts)).values(), strict=True))
    recordings = find_recordings(args.corpus, (key for keys in sets.values() for key in keys))
    tokenizer = PhonemeTokenizer(G2P)
    tokens = {key: tokenizer.text2tokens(text) for key, text in texts.items()}
    words = words_by_id(tokens)
    args.out.mkdir(parents=True, exist_ok=True)
    aligner = Aligner({pronunciation(word) for each in words.values() for word in each}, args.out / "dictionary.txt")
    for name, keys in sets.items():
        prepare(args.out / name, {key: recordings[key] for key in keys}, texts, tokens, words, aligner)
    counts = Counter(token for each in tokens.values() for token in each)
    known = [token for token, _ in counts.most_common()]
    known += sorted(SEPARATORS - {*known})  # a corpus may ask no question; release.py gives it a meaning
    (args.out / "tokens.txt").write_text("\n".join(["<blank>", "<unk>", *known, "<sos/eos>"]) + "\n")


if __name__ == "__main__":
    run_main(main)
