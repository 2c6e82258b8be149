"""Statistics of a mel, and how likely they are of speech under a convention."""

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from melglow_plugin.files import read_mapping
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.mel.filterbank import mel_filterbank

SHAPES = 12  # cosines that describe how a mean mel departs from speech's
REFERENCE_FILE = Path(__file__).with_name("doctor.json")


# Speech under each convention


@lru_cache(maxsize=1)
def reference() -> dict:
    """Mean and covariance of the statistics on recordings; made by ``benchmarks/doctor_confusion.py --calibrate``."""
    stored = read_mapping(REFERENCE_FILE)
    out: dict[str, Any] = {"profile": np.array(stored["profile"])}
    for kind in ("logarithm", "normalised"):
        covariance = np.array(stored[kind]["covariance"])
        out[kind] = (
            np.array(stored[kind]["mean"]), np.linalg.inv(covariance), float(np.linalg.slogdet(covariance)[1])
        )  # fmt: skip
    return out


def profile_edges() -> np.ndarray:
    """The borders in Hz of the bands of the stored mean spectrum: 24 between 0 and 12 kHz, equal on the HTK scale."""
    return 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 12_000 / 700), 25) / 2595) - 1)


@lru_cache(maxsize=64)
def expected_spectrum(c: MelConvention) -> np.ndarray:
    """The mean ln-amplitude of each bin on speech, (M,)."""
    bank = mel_filterbank(c.sample_rate, c.n_fft, c.n_mels, c.fmin, c.fmax, c.mel_scale, c.mel_norm)
    hz = np.linspace(0, c.sample_rate / 2, c.n_fft // 2 + 1)
    edges = profile_edges()
    log_amplitude = np.interp(hz, (edges[1:] + edges[:-1]) / 2, reference()["profile"])
    if c.preemphasis:
        log_amplitude += 0.5 * np.log(c.preemphasis_power(torch.zeros(1, dtype=torch.float64)).numpy())
    return np.log(np.maximum(bank @ np.exp(log_amplitude * c.power), 1e-12)) / c.power


def statistics(values: np.ndarray, c: MelConvention | None) -> np.ndarray:
    """How a mel (M, F), read under ``c`` (None: per-bin normalised), departs from mean speech; in nats of amplitude.

    Level, ``SHAPES`` cosines over the bins, roughness over low and high bins, spread in time, step at the low edge.
    """
    if c is None:
        x, rest = values, values.mean(1)
    else:
        x = (values - c.shift) * c.nats_per_unit / c.power * (1 if c.gain * c.scale > 0 else -1)
        rest = x.mean(1) - expected_spectrum(c)
    n = len(rest)
    cosines = np.cos(np.pi * np.arange(1, SHAPES + 1)[:, None] * (np.arange(n) + 0.5) / n) * 2 / n
    bends = np.diff(rest, 2)
    rough = [np.log(np.sqrt(np.mean(part**2)) + 1e-6) for part in (bends[: n // 3], bends[n // 3 :])]
    spread = np.log(x.std(1).mean() + 1e-6)
    return np.array([rest.mean(), *(cosines @ rest), *rough, spread, rest[:2].mean() - rest[2:6].mean()])


def without_silence(values: np.ndarray) -> np.ndarray:
    """The frames (M, F) of which not most bins lie at their floor: digital silence would look like a wide spread."""
    floor = values.min(1, keepdims=True)
    silent = (values - floor < 0.01 * values.std()).mean(0) > 0.5
    return values[:, ~silent] if (~silent).sum() >= 20 else values


def likelihood(values: np.ndarray, c: MelConvention | None) -> tuple[float, float]:
    """Log density of the statistics in terms of the mel's own numbers, and the squared distance from speech."""
    mean, precision, log_det = reference()["normalised" if c is None else "logarithm"]
    difference = statistics(values, c) - mean
    distance = float(difference @ precision @ difference)
    # Level, cosines and step are measured in nats: their density in the mel's numbers holds the scale that often.
    scale = 0.0 if c is None else (SHAPES + 2) * math.log(c.nats_per_unit / c.power)
    return scale - 0.5 * (distance + log_det), distance


def outside(values: np.ndarray, c: MelConvention) -> float:
    """Nats by which values of a mel are outside of the range of ``c``; 0 inside."""
    top = math.inf if c.clip is None else c.clip[1]
    return max(floor(c) - values.min(), values.max() - top, 0.0) * c.nats_per_unit


def floor(c: MelConvention) -> float:
    """The smallest value that a mel of ``c`` can have."""
    value = c.gain * c.scale * math.log(max(c.floor, c.eps)) / math.log(c.log_base) + c.shift
    return value if c.clip is None else max(value, c.clip[0])
