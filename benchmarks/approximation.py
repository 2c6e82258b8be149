#!/usr/bin/env python3
"""The expected and the measured error of approximate conversions, on the first six bundled clips: docs/mel.md's table.

python benchmarks/approximation.py
"""

import warnings

import soundfile
import torch
from bundled import CLIPS

from melglow_plugin import MelConvention

SECONDS = 3
ESPNET = MelConvention.espnet()
PAIRS = {
    "ESPnet 80–7600 → 0–8000 Hz": (ESPNET, MelConvention.espnet(fmin=0, fmax=8000)),
    "WaveGlow → ESPnet": (MelConvention.waveglow(), ESPNET),
    "Coqui 0–11025 → ESPnet": (MelConvention.coqui(), ESPNET),
    "HTK → Slaney": (MelConvention.espnet(htk=True), ESPNET),
    "100 → 80 bins": (MelConvention.espnet(n_mels=100), ESPNET),
}


def found(source: MelConvention, target: MelConvention) -> tuple[float, float]:
    """Median and 95 % of the error in nats over the clips' inner frames, away from the floors of either."""
    errors = []
    for path in CLIPS[:6]:
        wav = torch.from_numpy(soundfile.read(path, frames=SECONDS * source.sample_rate)[0])
        wanted = target.extract(wav)
        got = source.convert(source.extract(wav), target, approximate=True)
        loud = wanted > wanted.max() - 8 / target.nats_per_unit  # 70 dB
        errors.append((got - wanted)[loud].abs() * target.nats_per_unit)
    joined = torch.cat(errors)
    return float(joined.median()), float(joined.quantile(0.95))


def main() -> None:
    warnings.simplefilter("ignore")
    print("| from → to | expected: median, 95 % | measured: median, 95 % |\n| --- | --- | --- |")
    for name, (source, target) in PAIRS.items():
        expected, (median, p95) = source.expected_error(target), found(source, target)
        print(f"| {name} | {expected['median']:.2f}, {expected['p95']:.2f} | {median:.2f}, {p95:.2f} |")


if __name__ == "__main__":
    main()
