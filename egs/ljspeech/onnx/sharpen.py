"""The sharpening of melglow_plugin/inference/sharpening.py in numpy: blurred frames get the contrast of recordings."""

import json

import numpy as np

RAISE, BLURRED, SHARP, LARGEST = 3.0, 0.7, 0.85, 0.6


def sharpen(mel, facts):
    """``mel`` (bins, frames) -> (bins, frames); ``facts`` are the metadata of the ONNX file."""
    strength, c = float(facts["sharpen"]), json.loads(facts["convention"])
    bins, frames = mel.shape
    if strength == 0 or bins < 6:
        return mel
    mean, std = (np.array(c[name])[:, None] if c["mean"] else value for name, value in (("mean", 0.0), ("std", 1.0)))
    nats_per_unit = np.log(c["log_base"]) / (c["gain"] * c["scale"])
    nats = (mel * std + mean - c["shift"]) * nats_per_unit
    upper = nats[bins // 2 :]
    memory = int(np.ceil(2 * c["n_fft"] / c["hop_length"]))
    bend = np.abs(np.diff(upper, 2, axis=0)).mean(0) / float(facts["bend_of_noise"])
    seen = np.minimum(np.arange(frames) + 1, memory)
    blur = ((SHARP - np.convolve(bend, np.ones(memory))[:frames] / seen) / (SHARP - BLURRED)).clip(0, 1)
    around = np.pad(nats, ((0, 2), (0, 0)), "edge")[bins // 2 - 2 :]
    around = sum(share * around[i : i + len(upper)] for i, share in enumerate(np.array([1, 3, 4, 3, 1]) / 12))
    change = (strength * RAISE * blur * (upper - around)).clip(-LARGEST * c["power"], LARGEST * c["power"])
    linear = np.exp(upper.clip(-80, 80))
    change -= np.log((linear * np.exp(change)).sum(0) / linear.sum(0))  # the sum over these bins stays
    raised = nats.copy()
    raised[bins // 2 :] += change
    lowest = np.log(max(c["eps"], c["floor"], 1e-300))
    if c["clip"]:
        lowest = max(lowest, (c["clip"][0] - c["shift"]) * nats_per_unit)
    raised = np.maximum(raised, np.minimum(nats, lowest))
    return np.where(blur > 0, mel + (raised - nats) / (nats_per_unit * std), mel).astype(np.float32)
