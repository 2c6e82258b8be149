"""The mel doctor: which convention a mel seems to follow, and how sure that is."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from melglow_plugin.checks import whole_number
from melglow_plugin.mel.doctor.diagnosis import Diagnosis
from melglow_plugin.mel.doctor.known import KNOWN, NORMALISED, RATES, TEMPERATURE, Known
from melglow_plugin.mel.doctor.recording import rank_by_recording
from melglow_plugin.mel.doctor.statistics import likelihood, outside, without_silence

EDGES = ("espnet", "espnet, 0 to 8000 Hz")  # names of conventions that differ in the filterbank's edges alone
BINS = range(16, 257)  # what can be the mel axis
OTHER_BINS_PENALTY = 12.0  # nats against a preset with another number of bins than its own


def diagnose(mel: np.ndarray | Tensor, wav: Tensor | None = None, sample_rate: int | None = None) -> Diagnosis:
    """Recognise a mel.

    Args:
        mel: (M, F) or (F, M), also with leading axes of one; floats.
        wav: the recording it was made of, (T,) at ``sample_rate``: frames and filterbank are then compared.
        sample_rate: Hz, if known.

    Raises:
        ValueError: ``mel`` has another shape, is too short, or holds values that are not finite; ``sample_rate`` is
            none of speech.
    """
    values = checked(mel)
    if wav is not None and sample_rate is None:
        raise ValueError("a recording needs its sample_rate")
    if sample_rate is not None:
        sample_rate = _checked_rate(sample_rate)
    layouts = [(first, values.T if first else values) for first in _layouts(values)]
    scored = [(first, v, _scores(v, sample_rate)) for first, v in layouts]
    frames_first, v, scores = max(scored, key=lambda entry: max(s for _, s, _ in entry[2]))
    if wav is not None and sample_rate is not None and (found := rank_by_recording(v, wav.double(), sample_rate)):
        return _diagnosis(v, frames_first, sample_rate, *found)
    found = _diagnosis(v, frames_first, sample_rate, scores)
    if wav is not None:
        note = "no known convention gives this mel from that recording: the result rests on its values alone"
        found = replace(found, notes=(*found.notes, note))
    return found


def checked(mel) -> np.ndarray:
    """A mel as float64 of two dimensions, (M, F) or (F, M); ValueError: other numbers or another shape."""
    values = np.asarray(mel.detach().cpu() if isinstance(mel, Tensor) else mel)
    shape = values.shape
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"mel is {values.dtype} of shape {shape}, wanted floats of two dimensions")
    if not np.isfinite(values).all():
        raise ValueError(f"mel holds {int((~np.isfinite(values)).sum())} values that are not finite")
    if max(values.shape) < 16 or not _layouts(values):
        raise ValueError(
            f"mel has shape {shape}: no axis of {BINS.start} to {BINS.stop - 1} bins beside 8 frames or more"
        )
    return values.astype(np.float64)


def _checked_rate(sample_rate: object) -> int:
    rate = whole_number(sample_rate)
    if rate is None or rate not in RATES:
        raise ValueError(f"sample_rate {sample_rate!r} is no whole number from {RATES.start} to {RATES.stop - 1} Hz")
    return rate


def _layouts(values: np.ndarray) -> list[bool]:
    """The possible layouts, True for frames first; a customary number of bins decides where both are possible."""
    usual = {80, 100, 128, 64, 40}
    fits = [first for first in (False, True) if values.shape[first] in BINS and values.shape[1 - first] >= 8]
    sure = [first for first in fits if values.shape[first] in usual]
    return sure if len(sure) == 1 else fits


def _scores(values: np.ndarray, rate: int | None) -> list[tuple[Known | None, float, float]]:
    """(known, log score, distance) for every convention that the numbers can tell apart; None is mean-variance."""
    out = []
    values = without_silence(values)
    for known in KNOWN:
        if known.framed:
            continue
        c = known.convention(rate, len(values))
        score, distance = likelihood(values, c)
        # Synthetic mels overshoot a little; a tenth of a nat is free.
        excess = max(0.0, outside(values, c) - 0.1)
        rare = known.rare + (OTHER_BINS_PENALTY if len(values) != known.bins else 0.0)
        out.append((known, score - 40 * excess - rare, distance + 80 * excess))
    score, distance = likelihood(values, None)
    return [*out, (None, score, distance)]


def _diagnosis(values, frames_first, rate, scores, by_recording=None) -> Diagnosis:
    ranked = sorted(scores, key=lambda entry: -entry[1])
    softened = np.array([entry[1] for entry in ranked]) / TEMPERATURE
    shares = np.exp(softened - softened[0])
    shares /= shares.sum()
    best, _, distance = ranked[0]
    offset, error = by_recording or (None, None)
    notes = _notes(values, best, by_recording)
    return Diagnosis(
        best.name if best else NORMALISED, best.units if best else "normalised to mean 0 and variance 1 in each bin",
        frames_first, values.shape[1], len(values), best.convention(rate, len(values)) if best else None,
        best.python(rate, len(values)) if best else "", float(shares[0]),
        tuple((e[0].name if e[0] else NORMALISED, float(s)) for e, s in zip(ranked[1:], shares[1:], strict=True)),
        distance, float(values.min()), float(values.max()), best.also if best else "", offset, error, notes,
    )  # fmt: skip


def _notes(values: np.ndarray, best: Known | None, by_recording) -> tuple[str, ...]:
    notes = []
    if values.min() >= 0 and values.max() > 30 * max(np.median(values), 1e-9):
        notes.append("no logarithm seems to have been taken: all values are positive and most are tiny")
    if best is not None and best.name == "hifigan" and by_recording is None:
        notes.append("frames of HiFi-GAN are half a hop later than WaveGlow's: only a recording distinguishes them")
    if best is not None and best.name in EDGES and by_recording is None:
        notes.append("80 to 7600 Hz and 0 to 8000 Hz look nearly alike: only a recording distinguishes them")
    if values.shape[1] < 50:
        notes.append(f"{values.shape[1]} frames are few: a longer mel gives a more certain result")
    return tuple(notes)
