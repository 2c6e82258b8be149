"""The resynthesis of melglow_plugin/inference/resynthesis.py in numpy: refined magnitudes, new phases."""

import json

import numpy as np
from refine import Setup

STEPS, STEPS_AFTER, PULL, GAUSSIAN = 6, 3, 0.1, {"hann": 0.25645, "hamming": 0.29794}
LARGEST_GAIN = 4.0


def resynthesize(wav, mel, facts):
    """``wav`` (T,) of the flow and its ``mel`` (bins, frames) -> (T,); ``facts`` are the metadata of the ONNX file."""
    times = 2 if json.loads(facts["convention"])["hop_length"] % 2 == 0 else 1
    setup = Setup(wav, mel, facts, times)
    spectrum, length = setup.spectrum(wav), setup.c["win_length"]
    magnitude = moved(setup.magnitude(spectrum), setup, times, STEPS)
    if layers := json.loads(facts.get("postfilter", "[]")):
        change = postfilter(np.log(magnitude), np.log(envelope(setup, times)), layers)
        magnitude = moved(magnitude * np.exp(change), setup, times, STEPS_AFTER)
    log_magnitude = np.log(magnitude)
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


def moved(magnitude, setup, times, steps):
    """``magnitude`` (times * frames, K), moved to the mel."""
    return magnitude * with_frames_between(setup.gain(magnitude[::times], steps, 1.0), times)


def with_frames_between(values, times):
    """(frames, K) -> (times * frames, K): between two frames their geometric mean."""
    if times == 1:
        return values
    later = np.concatenate([values[1:], values[-1:]])
    return np.stack([values, np.sqrt(values * later)], 1).reshape(2 * len(values), -1)


def envelope(setup, times):
    """The magnitudes (times * frames, K) that are the same throughout a filter; of a bin without one the nearest."""
    spread, seen = setup.bank / np.maximum(setup.area, 1e-12), np.flatnonzero(setup.area)
    nearest = seen[np.abs(np.arange(len(setup.area))[:, None] - seen).argmin(1)]
    power = setup.target / np.maximum(setup.bank.sum(1), 1e-12) @ spread[:, nearest]
    return with_frames_between(np.maximum(np.maximum(power, 1e-12) ** (1 / setup.c["power"]), 1e-6), times)


def postfilter(log_magnitude, log_envelope, layers):
    """What to add to ``log_magnitude`` (N, K), by convolutions over frames and bins."""
    hidden = np.stack([log_magnitude - log_envelope, log_envelope / 4 + 0.75])
    for number, layer in enumerate(layers):
        hidden = convolved(hidden, np.array(layer["weight"]), np.array(layer["bias"]), layer["dilation"])
        if number + 1 < len(layers):
            hidden = np.where(hidden > 0, hidden, 0.1 * hidden)
    return hidden[0].clip(-3, 3)


def convolved(x, weight, bias, dilation):
    """``x`` (C, N, K) by ``weight`` (O, C, frames, bins), zeros around it -> (O, N, K)."""
    rows, columns = (dilation * (size // 2) for size in weight.shape[2:])
    padded = np.pad(x, ((0, 0), (rows, rows), (columns, columns)))
    out = np.zeros((len(weight), *x.shape[1:])) + bias[:, None, None]
    for i, j in np.ndindex(*weight.shape[2:]):
        part = padded[:, i * dilation :, j * dilation :][:, : x.shape[1], : x.shape[2]]
        out += np.tensordot(weight[:, :, i, j], part, 1)
    return out


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
