"""The resynthesis of melglow_plugin/inference/resynthesis.py in numpy: refined magnitudes, new phases."""

import json

import numpy as np
from refine import Setup

STEPS, PULL, GAUSSIAN = 6, 0.1, {"hann": 0.25645, "hamming": 0.29794}
LARGEST_GAIN = 4.0


def resynthesize(wav, mel, facts):
    """``wav`` (T,) of the flow and its ``mel`` (bins, frames) -> (T,); ``facts`` are the metadata of the ONNX file."""
    times = 2 if json.loads(facts["convention"])["hop_length"] % 2 == 0 else 1
    setup = Setup(wav, mel, facts, times)
    spectrum, length = setup.spectrum(wav), setup.c["win_length"]
    magnitude = setup.magnitude(spectrum)
    gain = np.log(setup.gain(magnitude[::times], STEPS, 1.0))
    if times == 2:
        gain = np.stack([gain, (gain + np.concatenate([gain[1:], gain[-1:]])) / 2], 1).reshape(magnitude.shape)
    log_magnitude = np.log(magnitude) + gain
    bins = np.arange(magnitude.shape[1])
    delay = 2 * np.pi * bins * ((setup.n_fft - length) // 2 + length / 2) / setup.n_fft
    gamma = GAUSSIAN[setup.c["window"]] * length**2
    phases = integrated(log_magnitude, np.angle(spectrum) + delay, setup.hop, setup.n_fft, gamma)
    wav = setup.audio(np.exp(log_magnitude + 1j * (phases - delay)), wav)
    return within_full_scale(wav, setup.c["hop_length"]).astype(np.float32)


def within_full_scale(wav, hop):
    """``wav`` (T,) in [-1, 1]; where that takes power away, more gain makes up for it."""
    blocks = wav.reshape(-1, hop)
    wanted, gains = np.square(blocks).sum(1), np.ones(len(blocks))
    for _ in range(4):
        found = np.square((gains[:, None] * blocks).clip(-1, 1)).sum(1)
        gains = (gains * np.sqrt(np.maximum(wanted, 1e-9) / np.maximum(found, 1e-9))).clip(1, LARGEST_GAIN)
    middles = np.arange(len(blocks)) * hop + (hop - 1) / 2
    return (wav * np.interp(np.arange(len(wav)), middles, gains)).clip(-1, 1)


def integrated(log_magnitude, observed, hop, n_fft, gamma):
    """Phases (frames, K) at the window's centre, by integration of their gradients."""
    ratio, bins = hop * n_fft / gamma, np.arange(log_magnitude.shape[1])
    ends = np.pad(log_magnitude, ((1, 1), (0, 0)), "edge")
    before, behind = ends[:-2], ends[2:]
    sides = np.pad(ends[:-1], ((0, 0), (1, 1)), "edge")
    beyond = ratio * (sides[:, 2:] - sides[:, :-2]) / 2
    advance = (beyond[:-1] + beyond[1:]) / 2 + 2 * np.pi * bins * hop / n_fft
    slope = (before - behind) / (2 * ratio)
    along = np.pad(((slope[:, 1:] + slope[:, :-1]) / 2).cumsum(1), ((0, 0), (1, 0)))
    above = np.pad(log_magnitude[:, 1:], ((0, 0), (0, 1)), constant_values=-np.inf)
    below = np.pad(log_magnitude[:, :-1], ((0, 0), (1, 0)), constant_values=-np.inf)
    louder = np.maximum(above, below)
    takes = (louder > log_magnitude) & (louder > before)
    peaks = np.where(takes, np.where(above >= below, bins + 1, bins - 1), bins)
    for _ in range(len(bins).bit_length()):  # each time twice as far
        peaks = np.take_along_axis(peaks, peaks, 1)
    offset = along - np.take_along_axis(along, peaks, 1)
    phase, phases = observed[0] - 2 * np.pi * bins * hop / n_fft, np.empty_like(log_magnitude)
    for n, peak in enumerate(peaks):
        phase = phase + advance[n]
        phase = (phase + PULL * np.sin(observed[n] - phase))[peak] + offset[n]
        phases[n] = phase = phase % (2 * np.pi)
    return phases
