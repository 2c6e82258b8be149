#!/usr/bin/env python3
"""Whether durations fit the recordings: a picture of ten clips, and numbers for all.

    python local/check_alignment.py data/train alignment.png

Prints, for groups of sounds: how many there are, the mean and the 5 to 95 % range of their length, how many last the
aligner's minimum of three frames, how many of their frames WORLD finds voiced, and their level. Vowels must be voiced,
voiceless fricatives and pauses must not, and pauses must be quiet. An alignment that is too early or too late makes
the groups more alike: ``--shift`` moves it, to see how much.
"""

import argparse
from pathlib import Path

import librosa
import numpy as np
import pyworld
import soundfile
from align import G2P
from aligner import HOP
from espnet2.text.phoneme_tokenizer import PhonemeTokenizer
from matplotlib import pyplot as plt
from phones import SEPARATORS, STRESS

GROUPS = {
    "vowels": set("aɑæeɛiɪᵻoɔuʊʌəɐɚɜ"),
    "voiced consonants": set("bdɡvðzʒmnŋlɹjw"),
    "voiceless fricatives": set("fθsʃ"),
    "voiceless stops": set("ptk"),
    "pauses": SEPARATORS,
}
SHOWN = 10  # clips in the picture
MINIMUM = 3  # frames: 30 ms in the aligner


def read(folder: Path) -> dict[str, tuple[list[str], np.ndarray, np.ndarray]]:
    """Tokens with the sentence's end, their frames, and the recording, for each clip."""
    tokenizer, files = PhonemeTokenizer(G2P), {}
    for name in ("text", "durations", "wav.scp"):
        files[name] = dict(line.split(maxsplit=1) for line in (folder / name).read_text().splitlines())
    return {
        key: (
            [*tokenizer.text2tokens(text), "."],
            np.array(files["durations"][key].split(), int),
            soundfile.read(files["wav.scp"][key])[0],
        )
        for key, text in files["text"].items()
    }


def describe(wav: np.ndarray, rate: int = 22_050) -> tuple[np.ndarray, np.ndarray]:
    """Voicing (0 or 1) and level in dB of each frame."""
    f0, _ = pyworld.dio(wav, rate, f0_floor=80, f0_ceil=400, frame_period=1000 * HOP / rate)
    level = librosa.amplitude_to_db(librosa.feature.rms(y=wav, frame_length=1024, hop_length=HOP)[0], amin=1e-5)
    return (f0 > 0).astype(float), level


def table(clips: dict, shift: int) -> str:
    rows = {name: ([], [], []) for name in GROUPS}
    for tokens, frames, wav in clips.values():
        voiced, level = describe(wav)
        ends = np.cumsum(frames)
        for token, start, end in zip(tokens, ends - frames, ends, strict=True):
            for name, letters in GROUPS.items():
                if end > start and token in letters:
                    lengths, voices, levels = rows[name]
                    lengths.append(end - start)
                    span = np.clip(np.arange(start, end) + shift, 0, min(len(voiced), len(level)) - 1)
                    voices.extend(voiced[span])
                    levels.extend(level[span])
    lines = [
        "| sounds | number | mean, ms | 5 to 95 %, ms | at the minimum | voiced frames | level, dB |",
        "|" + " --- |" * 7,
    ]
    for name, (lengths, voices, levels) in rows.items():
        ms = np.array(lengths) * HOP / 22.05
        low, high = np.percentile(ms, [5, 95])
        short = np.mean(np.array(lengths) <= MINIMUM)
        lines.append(
            f"| {name} | {len(ms)} | {ms.mean():.0f} | {low:.0f} to {high:.0f} | {short:.0%} "
            f"| {np.mean(voices):.0%} | {np.mean(levels):.1f} |"
        )
    return "\n".join(lines)


def picture(clips: dict, path: Path) -> None:
    keys = list(clips)[:: max(1, len(clips) // SHOWN)][:SHOWN]
    figure, axes = plt.subplots(len(keys), 1, figsize=(22, 3 * len(keys)))
    for axis, key in zip(np.atleast_1d(axes), keys, strict=True):
        tokens, frames, wav = clips[key]
        stft = np.abs(librosa.stft(wav, n_fft=1024, hop_length=HOP))
        mel = librosa.feature.melspectrogram(S=stft, sr=22_050, n_mels=80, fmin=80, fmax=7600)
        shown = min(mel.shape[1], 345)  # 4 s
        axis.imshow(np.log10(np.maximum(mel[:, :shown], 1e-4)), origin="lower", aspect="auto", cmap="magma")
        ends = np.cumsum(frames)
        for token, start, end in zip(tokens, ends - frames, ends, strict=True):
            if end > start and end < shown and token not in STRESS:
                axis.axvline(start - 0.5, color="white", linewidth=0.6)
                axis.text((start + end) / 2, 74, token.replace("<space>", "_"), color="cyan", ha="center", fontsize=11)
        axis.set_title(key, loc="left", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data folder of a set, as align.py writes it")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--shift", type=int, default=0, help="frames by which the durations are moved first")
    args = parser.parse_args()
    clips = read(args.data)
    picture(clips, args.picture)
    print(table(clips, args.shift))


if __name__ == "__main__":
    main()
