#!/usr/bin/env python3
"""Align transcripts with recordings: what Coqui's FastPitch learns from, with a duration for every token.

Tokens are those that Coqui's tokenizer makes of a text (gruut's phonemes), boundaries are those of pocketsphinx, whose
wheel holds its model of US English: nothing is downloaded.

    pip install pocketsphinx pyworld gruut
    python align_fastpitch.py CORPUS data     # CORPUS: metadata.csv, wavs/; splits/{train,dev,eval}.txt where given

Writes data/{train,dev,eval}.csv, data/durations.csv (KEY|frames of each token), data/wavs/*.wav (without the
silence before the first word, which no token could carry) and data/pitch, in the form of Coqui's cache of F0.
"""

import argparse
import logging
import sys
from pathlib import Path

from melglow_plugin.processor import prepare

prepare()  # before torch is imported

import librosa
import numpy as np
import pyworld
import soundfile
from tqdm import tqdm
from train_fastpitch import F0, configuration, f0_file
from TTS.tts.utils.text.tokenizer import TTSTokenizer

from melglow_plugin.checks import run_main
from melglow_plugin.files import read_wav
from melglow_plugin.training.corpus import find_recordings, read_metadata, split

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tts1" / "local"))
from aligner import HOP, LEAD, RATE, Aligner, boundaries, durations, pronunciation, words_by_id
from phones import SPACE


def tokens_of(tokenizer: TTSTokenizer, text: str) -> list[str]:
    """The tokens of ``text`` between those of its beginning and its end."""
    characters = tokenizer.characters
    tokens = [characters.id_to_char(index) for index in tokenizer.text_to_ids(text, language="en")[1:-1]]
    return [SPACE if token == " " else token for token in tokens]


def at_least_one(frames: list[int]) -> list[int]:
    """Frames of tokens, of which each has one: Coqui's model cannot speak shorter ones. Others give the missing ones.

    The nearest token gives that has two or more, of two that are as near the longer one.

    Raises:
        ValueError: there are fewer frames than tokens.
    """
    frames = list(frames)
    if sum(frames) < len(frames):
        raise ValueError(f"{len(frames)} tokens in {sum(frames)} frames")
    for i in [i for i, count in enumerate(frames) if count == 0]:
        giver = min((j for j, count in enumerate(frames) if count > 1), key=lambda j: (abs(j - i), -frames[j]))
        frames[giver], frames[i] = frames[giver] - 1, 1
    return frames


def log_f0(wav: np.ndarray, frames: int) -> np.ndarray:
    """Logarithm of F0 (Hz) of each frame, interpolated where the voice is silent."""
    f0, times = pyworld.dio(wav, RATE, f0_floor=80, f0_ceil=400, frame_period=1000 * HOP / RATE)
    f0 = pyworld.stonemask(wav, f0, times, RATE)
    voiced = np.flatnonzero(f0)
    return np.interp(np.arange(frames), voiced, np.log(f0[voiced])).astype(np.float32)


def prepare(
    wav: np.ndarray, words: list, tokens: list[str], aligner: Aligner, out: Path
) -> tuple[list[int], np.ndarray]:
    """Frames of each token, and log F0 of each frame, of a recording, which is written to ``out`` as WAV.

    Raises:
        ValueError: it cannot be aligned; nothing is written.
    """
    sounds = librosa.resample(wav, orig_sr=RATE, target_sr=16_000)
    times = aligner(sounds, [pronunciation(word) for word in words])
    cut = max(0, int(times[0][0][0] * RATE) - LEAD)
    frames = 1 + (len(wav) - cut) // HOP
    counts = at_least_one([0, *durations(tokens, boundaries(words, times), cut / RATE, frames)])
    pitch = log_f0(wav[cut:].astype(np.float64), frames)
    soundfile.write(out, wav[cut:], RATE, subtype="PCM_16")
    return counts, pitch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    tokenizer, _ = TTSTokenizer.init_from_config(configuration(args.out, str(args.out)))
    texts = read_metadata(args.corpus)
    recordings = find_recordings(args.corpus, texts)
    tokens = {key: tokens_of(tokenizer, texts[key]) for key in recordings}
    words = words_by_id(tokens)
    for folder in ("wavs", F0):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    aligner = Aligner({pronunciation(word) for key in words for word in words[key]}, args.out / "dictionary.txt")
    counts, pitch = {}, {}
    for key, path in tqdm(recordings.items()):
        wav = read_wav(path, RATE).numpy()
        try:
            counts[key], pitch[key] = prepare(wav, words[key], tokens[key], aligner, args.out / "wavs" / f"{key}.wav")
        except (RuntimeError, ValueError) as error:
            logging.warning("%s left out: %s", key, error)
            continue
        np.save(f0_file(args.out, key), pitch[key])
    (args.out / "durations.csv").write_text(
        "".join(f"{key}|{' '.join(map(str, row))}\n" for key, row in counts.items())
    )
    for name, keys in zip(("train", "dev", "eval"), split(args.corpus, list(recordings)).values(), strict=True):
        rows = "".join(f"{key}|{texts[key]}|{texts[key]}\n" for key in keys if key in counts)
        (args.out / f"{name}.csv").write_text(rows, encoding="utf-8")
    values = np.concatenate(list(pitch.values())).astype(np.float64)
    np.save(args.out / F0 / "pitch_stats", {"mean": values.mean(), "std": values.std()}, allow_pickle=True)


if __name__ == "__main__":
    run_main(main)
