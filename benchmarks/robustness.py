"""What a model makes of sounds that it was not trained on: whether the level follows, whether there are bursts or pops.

    python benchmarks/robustness.py MODEL --clips LIST --json FILE

Each condition changes a recording, or makes a sound of its own; its mel goes through the model. Compared are

- ``level``: power of the copy's mel (squared magnitude times the width of the filter) to that of the mel given, in dB;
  ``level_p95``: 95 % of the stretches of 4 frames within 40 dB of the loudest are nearer than this;
- ``burst``: the most that 10 ms of the copy lie above the loudest 10 ms of the sound within 50 ms, in dB, between 100
  and 7500 Hz (below -60 dB of full scale nothing counts);
- ``pop``: the crest of the second difference (peak over RMS of 30 ms) to the largest that the sound has within 60 ms.
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from melglow_plugin import MelConvention, Vocoder
from melglow_plugin.cli.shared import refinement
from melglow_plugin.files import read_any_wav
from melglow_plugin.mel.filterbank import mel_filterbank
from melglow_plugin.training.corpus_voices import read_source

BAND = (100.0, 7500.0)  # Hz
FLOOR = 1e-3  # amplitude, -60 dB of full scale
LIMITS = {"level": 1.0, "level_p95": 3.0, "burst": 6.0, "pop": 2.0}  # of the absolute value


# Sounds


def band_passed(wav: np.ndarray, rate: int, low: float, high: float, slope: float = 1e-3) -> np.ndarray:
    """Without what lies outside ``low`` to ``high`` Hz, by the spectrum of the whole; whole ``slope`` Hz within."""
    hz = np.fft.rfftfreq(len(wav), 1 / rate)
    gain = np.interp(hz, [low, low + slope, high - slope, high], [0, 1, 1, 0])
    return np.fft.irfft(np.fft.rfft(wav) * gain, len(wav))


def noisy(wav: np.ndarray, decibels: float) -> np.ndarray:
    """With white noise ``decibels`` below it."""
    noise = np.random.default_rng(0).standard_normal(len(wav))
    return wav + noise * wav.std() * 10 ** (-decibels / 20)


def vowel(f0: np.ndarray, rate: int, formants: tuple[float, ...] = (600.0, 1200.0, 2600.0, 3500.0)) -> np.ndarray:
    """Harmonics of ``f0`` (T,) in Hz up to 7.5 kHz under four resonances, peak 0.3."""
    phase = 2 * np.pi * np.cumsum(f0) / rate
    wav = np.zeros(len(f0))
    for k in range(1, int(BAND[1] / f0.min()) + 1):
        hz = k * f0
        gain = sum(1 / (1 + ((hz - each) / 120) ** 2) for each in formants) + 0.01
        wav += gain * np.sin(k * phase) * (hz < BAND[1])
    return 0.3 * wav / np.abs(wav).max()


def sweep(rate: int) -> np.ndarray:
    """F0 from 60 to 500 Hz and back in 4 s."""
    half = np.geomspace(60, 500, 2 * rate)
    return vowel(np.concatenate([half, half[::-1]]), rate)


def sung(rate: int) -> np.ndarray:
    """Eight notes of half a second, legato, with a vibrato of 5.5 Hz and 40 cents."""
    notes = 220 * 2 ** (np.array([0, 4, 7, 12, 11, 7, 4, 0]) / 12)
    f0 = np.repeat(notes, rate // 2)
    smooth = np.hanning(rate // 20)
    padded = np.pad(f0, len(smooth), mode="edge")
    f0 = np.convolve(padded, smooth / smooth.sum(), "same")[len(smooth) : -len(smooth)]
    return vowel(f0 * 2 ** (40 / 1200 * np.sin(2 * np.pi * 5.5 * np.arange(len(f0)) / rate)), rate)


def music(rate: int) -> np.ndarray:
    """Four plucked chords and a noise burst on each beat, 4 s."""
    time, wav = np.arange(rate) / rate, []
    noise = np.random.default_rng(0).standard_normal(rate)
    for root in (110, 146.83, 164.81, 110):
        tones = sum(
            np.sin(2 * np.pi * root * ratio * k * time) / k * np.exp(-2 * k**0.5 * time)
            for ratio in (1, 1.26, 1.5, 2)
            for k in range(1, 12)
        )
        wav.append(tones + noise * np.exp(-40 * time))
    wav = np.concatenate(wav)
    return 0.5 * wav / np.abs(wav).max()


def of_speech(rate: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Conditions that change a recording."""
    conditions = {
        f"gain {db:+d} dB": lambda w, db=db: np.clip(w * 10 ** (db / 20), -1, 1) for db in (-20, -10, 0, 10, 20)
    }
    return conditions | {
        "DC 0.1": lambda w: np.clip(w + 0.1, -1, 1),
        "clipped, 12 dB over": lambda w: np.clip(4 * w / np.abs(w).max(), -1, 1) * 0.5,
        "telephone, 300 to 3400 Hz": lambda w: band_passed(w, rate, 300, 3400),
        "noise, 20 dB": lambda w: noisy(w, 20),
        "noise, 5 dB": lambda w: noisy(w, 5),
        "silence between": lambda w: np.concatenate([w[: rate // 2], np.zeros(rate), w[rate // 2 :]]),
    }


def by_itself(rate: int) -> dict[str, np.ndarray]:
    """Sounds that need no recording."""
    quiet = np.random.default_rng(0).standard_normal(2 * rate)
    return {
        "silence": np.zeros(2 * rate),
        "noise of 1 bit": np.round(quiet) / 2**15,
        "F0 60 to 500 Hz": sweep(rate),
        "singing": sung(rate),
        "music": music(rate),
        "tone, 1 kHz": 0.3 * np.sin(2 * np.pi * 1000 * np.arange(2 * rate) / rate),
    }


# Measures


def powers(wav: np.ndarray, size: int) -> np.ndarray:
    """Mean squares of pieces of ``size`` samples."""
    return np.square(wav[: len(wav) // size * size]).reshape(-1, size).mean(1)


def mel_powers(wav: np.ndarray, convention: MelConvention) -> np.ndarray:
    """Of stretches of four frames, (F / 4,), in the model's own filters."""
    units = {"log_base": 10.0, "gain": 10.0, "scale": 1.0, "shift": 0.0, "clip": None, "mean": None, "std": None}
    plain = dataclasses.replace(convention, **units, eps=0.0, floor=1e-10)
    magnitudes = (10 ** (plain.extract(torch.from_numpy(wav)).numpy() / 10)) ** (1 / plain.power)
    bank = mel_filterbank(
        plain.sample_rate, plain.n_fft, plain.n_mels, plain.fmin, plain.fmax, plain.mel_scale, plain.mel_norm
    )
    widths = (bank > 0).sum(1) if plain.mel_norm == "slaney" else 1 / np.maximum(bank.sum(1), 1e-9)
    power = (np.square(magnitudes) * widths[:, None]).sum(0)
    return power[: len(power) // 4 * 4].reshape(-1, 4).mean(1)


def measure(sound: np.ndarray, copy: np.ndarray, convention: MelConvention) -> dict[str, float]:
    """What the module's head describes, of two signals (T,); dB and a ratio."""
    rate, samples = convention.sample_rate, min(len(sound), len(copy))
    sound, copy = sound[:samples], copy[:samples]
    wanted, found = (mel_powers(wav, convention) for wav in (sound, copy))
    level = p95 = 0.0
    loud = wanted > 1e-4 * wanted.max()
    if powers(sound, samples)[0] > FLOOR**2:
        level = 10 * math.log10(found[loud].sum() / wanted[loud].sum())
        p95 = float(np.quantile(np.abs(10 * np.log10(found[loud] / wanted[loud])), 0.95))
    sound, copy = (audible(wav, rate) for wav in (sound, copy))
    short = [powers(wav, rate // 100) + FLOOR**2 for wav in (sound, copy)]
    nearby = np.pad(short[0], 5, mode="edge")
    allowed = np.lib.stride_tricks.sliding_window_view(nearby, 11).max(1)
    burst = float(10 * np.log10(short[1] / allowed).max())
    # Before the start and behind the end there is nothing but the ringing of the band's edges.
    sound, copy = (wav[rate // 20 : -(rate // 20)] for wav in (sound, copy))
    usual = np.lib.stride_tricks.sliding_window_view(np.pad(crests(sound, rate), 6, mode="edge"), 13).max(1)
    pop = float((crests(copy, rate) / usual).max())
    return {"level": level, "level_p95": p95, "burst": burst, "pop": pop}


def audible(wav: np.ndarray, rate: int) -> np.ndarray:
    """Its band of ``BAND``, between 50 ms of silence, as a player has it: else its end would run into its start."""
    return band_passed(np.pad(wav, rate // 20), rate, *BAND, slope=80.0)  # a steep edge would ring for long


def crests(wav: np.ndarray, rate: int) -> np.ndarray:
    """Peak of the second difference over its RMS, in 30 ms from each 10 ms; at least 4, as in noise, and in silence."""
    hop, size = rate // 100, 3 * (rate // 100)
    bends, sound = (
        np.lib.stride_tricks.sliding_window_view(each, size)[::hop] for each in (np.diff(wav, 2, append=[0, 0]), wav)
    )
    rms = np.sqrt(np.square(bends).mean(1))
    heard = (np.square(sound).mean(1) > FLOOR**2) & (rms > 0)
    return np.maximum(4.0, np.divide(np.abs(bends).max(1), rms, out=np.zeros_like(rms), where=heard))


def run(vocoder: Vocoder, recordings: dict[str, np.ndarray], rounds: int | None) -> dict[str, dict[str, float]]:
    """condition -> measure -> the value that is farthest from the ideal over the recordings."""
    rate = vocoder.sample_rate
    sounds = {name: [wav] for name, wav in by_itself(rate).items()}
    sounds |= {name: [change(wav) for wav in recordings.values()] for name, change in of_speech(rate).items()}
    found = {}
    for name, wavs in sounds.items():
        rows = []
        for wav in wavs:
            wav = np.round(wav * 2**15) / 2**15  # 16 bits: no band is emptier than a file can hold
            mel = vocoder.convention.extract(torch.from_numpy(wav).float())
            rows.append(measure(wav, vocoder(mel, seed=0, refine=rounds).double().numpy(), vocoder.convention))
        found[name] = {key: max((row[key] for row in rows), key=abs) for key in LIMITS}
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """Markdown; bold where a limit is passed."""
    lines = ["| condition | level, dB | 95 % of frames, dB | burst, dB | pop |", "| --- | --- | --- | --- | --- |"]
    for name, row in found.items():
        cells = [f"**{v:.2f}**" if abs(v) > LIMITS[key] else f"{v:.2f}" for key, v in row.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    limits = ", ".join(f"{key} {value:g}" for key, value in LIMITS.items())
    return "\n".join([*lines, "", f"Of several recordings the worst; bold: beyond {limits}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--clips", type=Path, required=True, help="folder or list of recordings")
    parser.add_argument("--limit", type=int, help="recordings")
    parser.add_argument("--refine", type=refinement, help="rounds or resynthesis; default: the model's own")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    vocoder = Vocoder.from_pretrained(args.model)
    recordings = {}
    for clip in read_source(args.clips)[: args.limit]:
        import soxr

        wav, rate = read_any_wav(clip.path)
        recordings[clip.key] = soxr.resample(wav.double().numpy(), rate, vocoder.sample_rate, "VHQ")
    found = run(vocoder, recordings, args.refine)
    print(table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
