"""How well two alarms separate right from wrong mels: per-bin statistics, and the likelihood of mel-wav pairs.

    python benchmarks/alarm.py [--model FOLDER] [--clips 16] [--likelihood] [--plot docs/alarm_roc.png]

Right: the model's own mel, of the bundled clips and of other voices (where ../shared/data is there). Wrong: the same
recordings in another convention of as many bins, handed over unconverted.
"""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from bundled import CLIPS as BUNDLED
from doctor_confusion import SHARED, read

from melglow_plugin import MelConvention, Vocoder
from melglow_plugin.checkpoint.pretrained import pretrained_model

SECONDS = 2.0  # of each clip, for the likelihood


def wrong(own: MelConvention, mean: torch.Tensor, std: torch.Tensor) -> dict[str, MelConvention]:
    """Conventions that a user might hand over instead of ``own`` (ESPnet's log10, 80 bins)."""
    sizes = {"sample_rate": own.sample_rate, "n_mels": own.n_mels}
    presets = ("hifigan", "coqui", "constant_memory", "lvcnet", "vocos")
    return {
        "ln": replace(own, log_base=float(np.e)),
        "dB": replace(own, gain=20.0),
        "mean-variance": replace(own, mean=tuple(mean.tolist()), std=tuple(std.tolist())),
        **{name: MelConvention.preset(name, **sizes) for name in presets},
    }


def auc(right: Iterable[float], wrong_ones: Iterable[float]) -> float:
    """The probability that a wrong mel's figure is above a right one's."""
    a, b = np.array(list(right))[:, None], np.array(list(wrong_ones))
    return float((b > a).mean() + 0.5 * (b == a).mean())


def measured(values: Iterable[float]) -> list[float]:
    """The values without NaN, which stands for a mel that is too short."""
    return [value for value in values if not np.isnan(value)]


def clips(count: int) -> dict[str, list[Path]]:
    voices = {"ljspeech (bundled)": BUNDLED[:count]}
    if SHARED.is_dir():
        for folder in sorted(p for p in (SHARED / "voices_cc0").iterdir() if p.is_dir()):
            voices[folder.name] = sorted(folder.glob("*.flac"))[:count]
    return voices


def likelihood(vocoder: Vocoder, wav: torch.Tensor, convention: MelConvention) -> float:
    """Nats per sample of a recording beside its mel in ``convention``."""
    hop = vocoder.hop_length
    frames = int(SECONDS * vocoder.sample_rate) // hop
    mel = convention.extract(wav)[:, :frames]
    return float(vocoder.score(wav[: mel.shape[1] * hop], mel)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=None)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--likelihood", action="store_true")
    parser.add_argument("--plot", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    vocoder = Vocoder.from_pretrained(args.model or pretrained_model())
    print(f"model: {args.model or 'bundled'}, training {vocoder.training_facts}\n")
    own = vocoder.convention
    others = wrong(own, vocoder.flow.mel_mean, vocoder.flow.mel_std)
    measures = {"per-bin statistics": lambda wav, c: vocoder.mel_mismatch(c.extract(wav))}
    if args.likelihood:
        measures["likelihood"] = lambda wav, c: likelihood(vocoder, wav, c)
    curves = {}
    for measure, of in measures.items():
        wavs = {voice: [read(path, own.sample_rate) for path in paths] for voice, paths in clips(args.clips).items()}
        right = {voice: measured(of(wav, own) for wav in some) for voice, some in wavs.items()}
        every = [value for some in right.values() for value in some]
        print(f"| {measure} | lowest | median | highest | AUC |\n| --- | --- | --- | --- | --- |")
        for voice, some in right.items():
            low, middle, high = min(some), np.median(some), max(some)
            print(f"| right: {voice}, {len(some)} clips | {low:.2f} | {middle:.2f} | {high:.2f} | |")
        pooled = []
        for name, c in others.items():
            some = measured(of(wav, c) for part in wavs.values() for wav in part)
            pooled += some
            low, middle, high = min(some), np.median(some), max(some)
            print(f"| wrong: {name} | {low:.2f} | {middle:.2f} | {high:.2f} | {auc(every, some):.4f} |")
        print(f"| all wrong ones | | | | {auc(every, pooled):.4f} |\n")
        curves[measure] = (every, pooled)
    if args.plot is not None:
        draw(curves, args.plot)


def draw(curves: dict[str, tuple[list, list]], path: Path) -> None:
    """The ROC of each measure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    for measure, (right, pooled) in curves.items():
        thresholds = np.sort([*right, *pooled, np.inf])[::-1]
        false = [np.mean(np.array(right) >= t) for t in thresholds]
        true = [np.mean(np.array(pooled) >= t) for t in thresholds]
        axis.plot(false, true, label=f"{measure}, AUC {auc(right, pooled):.3f}")
    axis.set(xlabel="right mels flagged", ylabel="wrong mels flagged", title="ROC of the alarms")
    axis.legend()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
