"""The refinement of melglow_plugin/inference/refine.py in numpy: magnitudes move towards the mel, phases stay."""

import json

import numpy as np

STEPS, RELAXATION, LARGEST_RISE, LARGEST_FALL, LARGEST_SHORTFALL = 3, 1.4, 2.4, 8.0, 8.0


def refine(wav, mel, facts):
    """``wav`` (T,) of the flow and its ``mel`` (bins, frames) -> (T,); ``facts`` are the metadata of the ONNX file."""
    c = json.loads(facts["convention"])
    n_fft, hop, frames = c["n_fft"], c["hop_length"], mel.shape[1]
    bank = np.zeros((c["n_mels"], n_fft // 2 + 1))
    for row, (first, values) in zip(bank, json.loads(facts["filterbank"]), strict=True):
        row[first : first + len(values)] = values
    bank *= np.abs(1 - c["preemphasis"] * np.exp(-1j * np.linspace(0, np.pi, n_fft // 2 + 1))) ** c["power"]
    area, window = bank.sum(0), _window(c)
    if c["mean"]:
        mel = mel * np.array(c["std"])[:, None] + np.array(c["mean"])[:, None]
    nats = (mel - c["shift"]) * np.log(c["log_base"]) / (c["gain"] * c["scale"])
    target = np.maximum(np.exp(nats.astype(np.float64)) - c["eps"], 0).T
    left = n_fft // 2 if c["center"] else c["pad"]
    right = max(0, n_fft - hop - left)
    mode = "reflect" if c["pad_mode"] == "reflect" and len(wav) > max(left, right) else "constant"
    places = hop * np.arange(frames)[:, None] + np.arange(n_fft)
    weight = np.zeros(places.max() + 1)
    np.add.at(weight, places, np.broadcast_to(window**2, places.shape))
    for _ in range(int(facts["refine"])):
        spectrum = np.fft.rfft(np.pad(wav, (left, right), mode)[places] * window)
        magnitude = np.maximum(np.abs(spectrum), max(c["spectrum_floor"], 1e-7)) ** c["power"]
        ratio = target.sum(1) / np.maximum((magnitude @ bank.T).sum(1), 1e-12)
        shortfall = (ratio ** (2 / c["power"])).clip(1, LARGEST_SHORTFALL)[:, None]
        gain = np.ones_like(magnitude)
        for _ in range(STEPS):
            step = (target / np.maximum((magnitude * gain) @ bank.T, 1e-12)) @ bank / np.maximum(area, 1e-12)
            gain = gain * np.where(area > 0, step, 1)
        gain = gain ** (1 / c["power"])
        gain = gain + (RELAXATION - 1) / shortfall * (gain - 1)
        gain = np.minimum(np.maximum(gain, 1 / LARGEST_FALL), LARGEST_RISE * shortfall)
        total = np.zeros_like(weight)
        np.add.at(total, places, np.fft.irfft(spectrum * gain, n_fft) * window)
        inside = slice(left, left + len(wav))
        seen, added = weight[inside], total[inside]
        wav = np.concatenate(
            [np.where(seen > 1e-3, added / np.maximum(seen, 1e-3), wav[: len(seen)]), wav[len(seen) :]]
        )
    return wav.clip(-1, 1).astype(np.float32)


def _window(c):
    turn = np.cos(2 * np.pi * np.arange(c["win_length"]) / c["win_length"])
    shape = {"hann": 0.5 - 0.5 * turn, "hamming": 0.54 - 0.46 * turn, "none": np.ones_like(turn)}[c["window"]]
    left = (c["n_fft"] - c["win_length"]) // 2
    return np.pad(shape, (left, c["n_fft"] - c["win_length"] - left))
