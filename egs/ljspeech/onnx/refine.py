"""The refinement of melglow_plugin/inference/refine.py in numpy: magnitudes move towards the mel, phases stay."""

import json

import numpy as np

STEPS, RELAXATION, LARGEST_RISE, LARGEST_FALL, LARGEST_SHORTFALL = 3, 1.4, 2.4, 8.0, 8.0
LOUDEST = 50.0  # nats of a mel that are taken as they are


class Setup:
    """What a mel (bins, frames) and the metadata of its ONNX file say, for frames ``hop`` samples apart."""

    def __init__(self, wav, mel, facts, frames_a_hop=1):
        self.c = c = json.loads(facts["convention"])
        self.n_fft, self.hop = c["n_fft"], c["hop_length"] // frames_a_hop
        bank = np.zeros((c["n_mels"], self.n_fft // 2 + 1))
        for row, (first, values) in zip(bank, json.loads(facts["filterbank"]), strict=True):
            row[first : first + len(values)] = values
        bank *= np.abs(1 - c["preemphasis"] * np.exp(-1j * np.linspace(0, np.pi, self.n_fft // 2 + 1))) ** c["power"]
        self.bank, self.area, self.window = bank, bank.sum(0), _window(c)
        if c["mean"]:
            mel = mel * np.array(c["std"])[:, None] + np.array(c["mean"])[:, None]
        nats = (mel - c["shift"]) * np.log(c["log_base"]) / (c["gain"] * c["scale"])
        self.target = np.maximum(np.exp(np.minimum(nats.astype(np.float64), LOUDEST)) - c["eps"], 0).T
        self.left = self.n_fft // 2 if c["center"] else c["pad"]
        self.right = max(0, self.n_fft - self.hop - self.left)
        self.mode = "reflect" if c["pad_mode"] == "reflect" and len(wav) > max(self.left, self.right) else "constant"
        self.places = self.hop * np.arange(frames_a_hop * mel.shape[1])[:, None] + np.arange(self.n_fft)
        self.weight = np.zeros(self.places.max() + 1)
        np.add.at(self.weight, self.places, np.broadcast_to(self.window**2, self.places.shape))

    def spectrum(self, wav):
        """(frames, K)."""
        return np.fft.rfft(np.pad(wav, (self.left, self.right), self.mode)[self.places] * self.window)

    def magnitude(self, spectrum):
        return np.maximum(np.abs(spectrum), max(self.c["spectrum_floor"], 1e-7))

    def gain(self, magnitude, steps, relaxation):
        """What moves ``magnitude`` (frames, K) towards the mel."""
        power = self.c["power"]
        magnitude = magnitude**power
        ratio = self.target.sum(1) / np.maximum((magnitude @ self.bank.T).sum(1), 1e-12)
        shortfall = (ratio ** (2 / power)).clip(1, LARGEST_SHORTFALL)[:, None]
        gain = np.ones_like(magnitude)
        for _ in range(steps):
            step = self.target / np.maximum((magnitude * gain) @ self.bank.T, 1e-12)
            gain = gain * np.where(self.area > 0, step @ self.bank / np.maximum(self.area, 1e-12), 1)
        gain = gain ** (1 / power)
        gain = gain + (relaxation - 1) / shortfall * (gain - 1)
        return np.minimum(np.maximum(gain, 1 / LARGEST_FALL), LARGEST_RISE * shortfall)

    def audio(self, spectrum, wav):
        """(T,); where no frame reaches, that of ``wav``."""
        total = np.zeros_like(self.weight)
        np.add.at(total, self.places, np.fft.irfft(spectrum, self.n_fft) * self.window)
        inside = slice(self.left, self.left + len(wav))
        seen, added = self.weight[inside], total[inside]
        known = np.where(seen > 1e-3, added / np.maximum(seen, 1e-3), wav[: len(seen)])
        return np.concatenate([known, wav[len(seen) :]])


def refine(wav, mel, facts):
    """``wav`` (T,) of the flow and its ``mel`` (bins, frames) -> (T,); ``facts`` are the metadata of the ONNX file."""
    refinement = json.loads(facts["refine"])
    if refinement == "resynthesis":
        from resynthesis import resynthesize

        return resynthesize(wav, mel, facts)
    setup = Setup(wav, mel, facts)
    for _ in range(refinement):
        spectrum = setup.spectrum(wav)
        wav = setup.audio(spectrum * setup.gain(setup.magnitude(spectrum), STEPS, RELAXATION), wav)
    return wav.clip(-1, 1).astype(np.float32)


def _window(c):
    turn = np.cos(2 * np.pi * np.arange(c["win_length"]) / c["win_length"])
    shape = {"hann": 0.5 - 0.5 * turn, "hamming": 0.54 - 0.46 * turn, "none": np.ones_like(turn)}[c["window"]]
    left = (c["n_fft"] - c["win_length"]) // 2
    return np.pad(shape, (left, c["n_fft"] - c["win_length"] - left))
