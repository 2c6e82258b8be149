"""The doctor's confusion matrix over real clips, and the calibration of its statistics.

    python benchmarks/doctor_confusion.py                     # 24 bundled clips, every convention, as Markdown
    python benchmarks/doctor_confusion.py --wav               # the same with each recording given
    python benchmarks/doctor_confusion.py --voice kathleen --unseen   # a voice that the calibration does not contain
    python benchmarks/doctor_confusion.py --calibrate         # writes mel/doctor/doctor.json; other clips

Calibration uses ../shared/data: LJ Speech without the bundled clips, and four other voices.
"""

import argparse
import collections
import itertools
import json
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from bundled import CLIPS as BUNDLED

from melglow_plugin import MelConvention
from melglow_plugin.mel import doctor
from melglow_plugin.mel.doctor import statistics as stats
from melglow_plugin.mel.doctor.diagnosis import UNKNOWN_THRESHOLD
from melglow_plugin.mel.doctor.known import KNOWN, NORMALISED

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
SECONDS = 6
CASES = [known for known in KNOWN if not known.framed]


def read(path: Path, rate: int) -> torch.Tensor:
    """The first seconds of a recording, resampled, (T,)."""
    wav, found = soundfile.read(path, dtype="float32")
    wav = torch.from_numpy(wav)[: SECONDS * found]
    return wav if found == rate else torchaudio.functional.resample(wav, found, rate)


def recordings() -> dict[str, list[Path]]:
    """Clips for calibration by voice; none of them is bundled."""
    names, pick = {path.name for path in BUNDLED}, random.Random(0)
    lj = [p for p in sorted((SHARED / "ljspeech_hour/wavs").glob("*.flac")) if p.name not in names]
    voices = {"ljspeech": pick.sample(lj, 60)}
    for folder in sorted(p for p in (SHARED / "voices_cc0").iterdir() if p.is_dir()):
        clips = sorted(folder.glob("*.flac"))
        voices[folder.name] = pick.sample(clips, min(40, len(clips)))
    return voices


def mean_profile(voices: dict[str, list[Path]]) -> list[float]:
    """Mean ln-amplitude of speech in the doctor's 24 bands, every voice counting alike."""
    hz, edges, means = torch.arange(513) * 24_000 / 1024, stats.profile_edges(), []
    for clips in voices.values():
        rows = []
        for path in clips:
            spectrum = torch.stft(read(path, 24_000), 1024, 256, window=torch.hann_window(1024), return_complex=True)
            amplitude = spectrum.abs().clamp(min=1e-5)
            bands = [(hz >= low) & (hz < high) for low, high in itertools.pairwise(edges)]
            rows.append([float(amplitude[band].mean(0).log().mean()) for band in bands])
        means.append(np.mean(rows, 0))
    return [round(v, 2) for v in np.mean(means, 0).tolist()]


def calibrate(path: Path, without: str | None = None) -> None:
    """Write the profile, and mean and covariance of the statistics under each clip's own convention, and use them."""
    voices = {name: clips for name, clips in recordings().items() if name != without}
    stats.REFERENCE_FILE = path
    zeros = {
        "mean": [0.0] * (stats.SHAPES + 5),
        "covariance": np.eye(stats.SHAPES + 5).tolist(),
    }
    stored = {"profile": mean_profile(voices), "logarithm": zeros, "normalised": zeros}
    path.write_text(json.dumps(stored))
    stats.reference.cache_clear()
    stats.expected_spectrum.cache_clear()
    found = {"logarithm": [], "normalised": []}
    for clips in voices.values():
        for known in CASES:
            c = known.convention(None, known.bins)
            mels = [c.extract(read(clip, c.sample_rate)).double().numpy() for clip in clips]
            found["logarithm"] += [stats.statistics(stats.without_silence(mel), c) for mel in mels]
            if known.name in ("espnet", "coqui, dB", "hifigan"):
                mean, std = statistics(mels)
                found["normalised"] += [
                    stats.statistics(stats.without_silence((mel - mean) / std), None) for mel in mels
                ]
    for kind, rows in found.items():
        covariance = np.cov(np.array(rows).T)
        covariance += 0.05 * np.diag(np.diag(covariance))  # voices that are not among these
        stored[kind] = {
            "mean": [float(f"{v:.4g}") for v in np.mean(rows, 0)],
            "covariance": [[float(f"{v:.4g}") for v in row] for row in covariance],
        }
    path.write_text(json.dumps(stored) + "\n")
    stats.reference.cache_clear()


def statistics(mels: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    frames = np.concatenate(mels, 1)
    return frames.mean(1, keepdims=True), frames.std(1, keepdims=True)


def confusion(
    clips: list[Path], with_wav: bool = False
) -> tuple[dict[str, collections.Counter], list[doctor.Diagnosis]]:
    """How often each convention is taken for which, and all diagnoses."""
    table, all_found = collections.defaultdict(collections.Counter), []
    lj = MelConvention.espnet()
    mean, std = statistics([lj.extract(read(clip, lj.sample_rate)).numpy() for clip in clips])
    normalised = replace(lj, mean=tuple(mean[:, 0].tolist()), std=tuple(std[:, 0].tolist()))
    for clip in clips:
        for known in [*CASES, None]:
            c = known.convention(None, known.bins) if known else normalised
            wav = read(clip, c.sample_rate)
            given = {"wav": wav, "sample_rate": c.sample_rate} if with_wav else {}
            found = doctor.diagnose(c.extract(wav).T.numpy(), **given)
            table[known.name if known else NORMALISED][found.name] += 1
            all_found.append((known.name if known else NORMALISED, found))
    return table, all_found


def markdown(table: dict[str, collections.Counter]) -> str:
    names = list(table)
    lines = ["| true \\ found | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for name in names:
        lines.append(f"| {name} | " + " | ".join(str(table[name][other] or "") for other in names) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--wav", action="store_true")
    parser.add_argument(
        "--voice", default=None, help="a folder of ../shared/data/voices_cc0 instead of the bundled clips"
    )
    parser.add_argument("--unseen", action="store_true", help="calibrate without that voice first, for this run only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.calibrate:
        calibrate(stats.REFERENCE_FILE)
    if args.unseen:
        with tempfile.TemporaryDirectory() as folder:
            calibrate(Path(folder) / "doctor.json", args.voice or "ljspeech")
            stats.reference()
    clips = sorted((SHARED / "voices_cc0" / args.voice).glob("*.flac")) if args.voice else BUNDLED
    table, found = confusion(clips[:24], args.wav)
    right = sum(table[name][name] for name in table)
    print(markdown(table))
    print(f"\n{right} of {len(found)} right ({right / len(found):.1%})")
    for low, high in ((0, 0.6), (0.6, 0.8), (0.8, 0.95), (0.95, 1.01)):
        bucket = [name == d.name for name, d in found if low <= d.probability < high]
        if bucket:
            print(f"stated {low:.0%} to {min(high, 1):.0%}: {np.mean(bucket):.1%} of {len(bucket)} right")
    distances = [d.distance for _, d in found]
    print(
        f"distance: 95 % below {np.quantile(distances, 0.95):.1f}, largest {max(distances):.1f} "
        f"(unknown from {UNKNOWN_THRESHOLD})"
    )
    print(f"{sum(d.frames_first for _, d in found)} of {len(found)} layouts right")


if __name__ == "__main__":
    main()
