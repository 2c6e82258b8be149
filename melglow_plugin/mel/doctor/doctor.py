"""The mel doctor: which convention a mel seems to follow, how sure that is, and what to do about it."""

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from melglow_plugin.files import whole_file
from melglow_plugin.mel.convention import APPROXIMABLE, STRUCTURAL, MelConvention
from melglow_plugin.mel.filterbank import mel_filterbank

BINS = range(16, 257)  # what can be the mel axis
SHAPES = 12  # cosines that describe how a mean mel departs from speech's
ODD = 75.0  # squared distance from speech from which no known convention explains a mel (the right ones: docs/mel.md)
TEMPERATURE = 4.0  # the features are less independent than the Gaussian thinks; stated certainties are softened by it
RARE = 12.0  # nats against a preset with another number of bins than its own
VARIANT = 3.0  # nats against settings that no published recipe uses
REFERENCE_FILE = Path(__file__).with_name("doctor.json")
JUDGED_SECONDS = 6.0  # of a recording, where one is given
MISFIT = 0.004  # nats between a mel and the recording's own that weigh as one nat of evidence
UNRELATED = 0.3  # nats from which a mel is taken to be of another recording, or changed beyond a convention


@dataclass(frozen=True)
class Known:
    """A convention that the doctor can recognise: its numbers in words, and the Python that makes it."""

    name: str
    units: str
    make: Callable[[int, int], MelConvention]  # (Hz, bins)
    code: str  # with {rate} and {bins}
    also: str = ""  # who else uses these numbers
    rate: int = 22_050  # Hz, where nothing says otherwise
    bins: int = 80
    rare: float = 0.0  # nats against it: a setting that few use
    framed: bool = False  # a twin of another one that only its frames tell apart, so only a recording can

    def convention(self, rate: int | None, bins: int) -> MelConvention:
        return self.make(rate or self.rate, bins)

    def python(self, rate: int | None, bins: int) -> str:
        return self.code.format(rate=rate or self.rate, bins=bins)


def _preset(name: str, units: str, rate: int = 22_050, bins: int = 80, also: str = "", framed: bool = False) -> Known:
    def make(hz: int, n_mels: int) -> MelConvention:
        return MelConvention.preset(name, hz, n_mels=n_mels, **_sizes(hz))

    code = f'MelConvention.preset("{name}", {{rate}}, n_mels={{bins}})'
    return Known(name, units, make, code, also, rate, bins, framed=framed)


def _sizes(hz: int) -> dict:
    """STFT sizes for a rate that has no customary ones: the power of two above 40 ms, a quarter of it as hop."""
    from melglow_plugin.mel.systems import SIZES

    n_fft = 2 ** math.ceil(math.log2(0.04 * hz))
    return {} if hz in SIZES else {"n_fft": n_fft, "hop_length": n_fft // 4}


def _coqui(name: str, units: str, settings: str, rare: float = 0.0) -> Known:
    values = json.loads(settings.replace("False", "false"))

    def make(hz: int, n_mels: int) -> MelConvention:
        base = MelConvention.preset("coqui", hz, **_sizes(hz))
        sizes = {"fft_size": base.n_fft, "win_length": base.n_fft, "hop_length": base.hop_length}
        return MelConvention.coqui({"sample_rate": hz, "num_mels": n_mels, **sizes, **values})

    code = f'MelConvention.coqui({{{{"sample_rate": {{rate}}, "num_mels": {{bins}}, {settings[1:-1]}}}}})'
    return Known(name, units, make, code, rare=rare)


KNOWN = (
    _preset("espnet", "log10 of the amplitude", also="parallel_wavegan before its stats.h5"),
    Known(
        "espnet, ln", "natural logarithm of the amplitude",
        lambda hz, n: MelConvention.preset("espnet", hz, n_mels=n, log_base=math.e, **_sizes(hz)),
        'MelConvention.preset("espnet", {rate}, n_mels={bins}, log_base=2.718281828459045)', rare=VARIANT,
    ),
    _preset("hifigan", "natural logarithm of the amplitude", also="BigVGAN, WaveGlow, Tacotron 2, Coqui's ln recipes"),
    _preset("waveglow", "natural logarithm of the amplitude", also="Tacotron 2, Coqui's ln recipes", framed=True),
    _preset("coqui", "dB scaled to -4 ... 4 and clipped"),
    _coqui("coqui, dB", "dB of the amplitude", '{"signal_norm": False}'),
    _coqui("coqui, 0 to 1", "dB scaled to 0 ... 1 and clipped", '{"symmetric_norm": False, "max_norm": 1.0}',
           rare=VARIANT),
    _preset("univnet", "natural logarithm of the amplitude", 24_000, 100, also="BigVGAN at 24 kHz"),
    _preset("vocos", "natural logarithm of the amplitude", 24_000, 100),
    _preset("constant_memory", "natural logarithm of the power"),
    _preset("lvcnet", "dB scaled to 0 ... 1 and clipped"),
    _preset("wg_wavenet", "dB scaled to 0 ... 1 and clipped, after pre-emphasis"),
)  # fmt: skip
NORMALISED = "mean-variance"


@dataclass(frozen=True)
class Diagnosis:
    """What a mel seems to be.

    ``name`` is that of the likeliest convention, ``probability`` how likely among those known; ``convention`` is None
    where the numbers alone do not give one (mean-variance normalised: whose mean and variance?). ``offset`` is by how
    many samples the frames lie later than the convention's, ``error`` the distance in nats (both only with a
    recording); ``distance`` how far the mel is from any speech that convention knows.
    """

    name: str
    units: str
    frames_first: bool
    frames: int
    bins: int
    convention: MelConvention | None
    code: str
    probability: float
    others: tuple[tuple[str, float], ...]
    distance: float
    minimum: float
    maximum: float
    also: str = ""
    offset: int | None = None
    error: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def known(self) -> bool:
        """False where the mel resembles none of the known conventions."""
        return self.distance <= ODD if self.error is None else self.error < 1.0

    def text(self) -> str:
        """The findings in plain words, one a line."""
        layout = "frames first (F, M): transpose it" if self.frames_first else "bins first (M, F)"
        lines = [
            f"layout      {self.frames} frames of {self.bins} bins, {layout}",
            f"values      {self.minimum:.2f} to {self.maximum:.2f}: {self.units if self.known else 'not clear'}",
        ]
        sure = "certainly" if self.probability > 0.99 else "probably" if self.probability > 0.8 else "perhaps"
        head = (
            f"{sure} {self.name} ({self.probability:.0%})" if self.known else f"none that is known; nearest {self.name}"
        )
        lines.append(f"convention  {head}" + (f"; the same numbers: {self.also}" if self.also else ""))
        if rest := [f"{name} {p:.0%}" for name, p in self.others[:3] if p >= 0.01]:
            lines.append(f"or else     {', '.join(rest)}")
        if self.known and self.probability <= 0.8 and self.offset is None:
            lines.append("not sure    the recording would settle it: --wav")
        if c := self.convention:
            lines.append(
                f"filterbank  {c.fmin:g} to {c.fmax:g} Hz, {c.mel_scale}, norm {c.mel_norm}, "
                f"{'magnitude' if c.power == 1 else 'power'}; floor {_floor(c):.2f} (assumed rate {c.sample_rate} Hz)"
            )
        if self.offset is not None:
            where = "as the convention has them" if self.offset == 0 else f"{self.offset} samples later than it"
            lines.append(f"frames      {where}; {self.error:.3f} nats from the recording's own mel")
        return "\n".join([*lines, *(f"note        {note}" for note in self.notes)])

    def advice(self, target: MelConvention) -> tuple[bool, str]:
        """Whether a vocoder of convention ``target`` would accept this mel (as it is or converted), and how."""
        array = "mel.T" if self.frames_first else "mel"
        if not self.known:
            return False, "refuse it: the numbers fit no known convention; look at how it was made"
        if self.convention is None:
            return False, (
                "refuse it as it is: undo the normalisation first, mel * std + mean with the acoustic model's "
                "statistics (ESPnet: take feat_gen_denorm; Coqui: stats_path)"
            )
        if self.offset:
            return False, f"refuse it: its frames lie {self.offset} samples off, which no conversion mends"
        source = self.convention
        if source == target:
            return True, f"fits as it is: vocoder(torch.from_numpy({array}))"
        call = f"{self.code}.convert(torch.from_numpy({array}), vocoder.convention"
        if not (differences := source.differences(target)):
            return True, f"fits after an exact conversion: {call})"
        if not source.unbridgeable(target):
            return False, (
                f"no exact conversion ({'; '.join(differences)}). Extract it again, adapt the vocoder, without "
                f"training: vocoder.adapted({self.code}), or accept what an approximation gets wrong "
                f"({source.approximation(target)}): {call}, approximate=True)"
            )
        return False, f"cannot be converted, extract it again: {'; '.join(differences)}"


def diagnose(mel: np.ndarray | Tensor, wav: Tensor | None = None, sample_rate: int | None = None) -> Diagnosis:
    """Recognise a mel.

    Args:
        mel: (M, F) or (F, M), also with leading axes of one; floats.
        wav: the recording it was made of, (T,) at ``sample_rate``: frames and filterbank are then compared.
        sample_rate: Hz, if known.

    Raises:
        ValueError: ``mel`` has another shape, is too short, or holds values that are not finite.
    """
    values = _checked(mel)
    if wav is not None and sample_rate is None:
        raise ValueError("a recording needs its sample_rate")
    layouts = [(first, values.T if first else values) for first in _layouts(values)]
    scored = [(first, v, _scores(v, sample_rate)) for first, v in layouts]
    frames_first, v, scores = max(scored, key=lambda entry: max(s for _, s, _ in entry[2]))
    if wav is not None and (found := _heard(v, wav.double(), sample_rate)):
        return _diagnosis(v, frames_first, sample_rate, *found)
    found = _diagnosis(v, frames_first, sample_rate, scores)
    if wav is not None:
        note = "no known convention gives this mel from that recording: judged by its numbers alone"
        found = replace(found, notes=(*found.notes, note))
    return found


def _checked(mel) -> np.ndarray:
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


def _layouts(values: np.ndarray) -> list[bool]:
    """Whether frames may come first, and whether bins may; customary numbers of bins settle it."""
    usual = {80, 100, 128, 64, 40}
    fits = [first for first in (False, True) if values.shape[first] in BINS and values.shape[1 - first] >= 8]
    sure = [first for first in fits if values.shape[first] in usual]
    return sure if len(sure) == 1 else fits


# What speech looks like under each convention


@lru_cache(maxsize=1)
def _reference() -> dict:
    """Mean and covariance of the features on recordings; made by ``benchmarks/doctor_confusion.py --calibrate``."""
    stored = json.loads(REFERENCE_FILE.read_text(encoding="utf-8"))
    out = {"profile": np.array(stored["profile"])}
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
def _expected(c: MelConvention) -> np.ndarray:
    """The mean ln-amplitude of each bin on speech, (M,)."""
    bank = mel_filterbank(c.sample_rate, c.n_fft, c.n_mels, c.fmin, c.fmax, c.mel_scale, c.mel_norm)
    hz = np.linspace(0, c.sample_rate / 2, c.n_fft // 2 + 1)
    edges = profile_edges()
    log_amplitude = np.interp(hz, (edges[1:] + edges[:-1]) / 2, _reference()["profile"])
    if c.preemphasis:
        log_amplitude += np.log(np.abs(1 - c.preemphasis * np.exp(-2j * np.pi * hz / c.sample_rate)))
    return np.log(np.maximum(bank @ np.exp(log_amplitude * c.power), 1e-12)) / c.power


def features(values: np.ndarray, c: MelConvention | None) -> np.ndarray:
    """How a mel (M, F), read under ``c`` (None: per-bin normalised), departs from mean speech; in nats of amplitude.

    Level, ``SHAPES`` cosines over the bins, roughness over low and high bins, spread in time, step at the low edge.
    """
    if c is None:
        x, rest = values, values.mean(1)
    else:
        x = (values - c.shift) * c.nats_per_unit / c.power * (1 if c.gain * c.scale > 0 else -1)
        rest = x.mean(1) - _expected(c)
    n = len(rest)
    cosines = np.cos(np.pi * np.arange(1, SHAPES + 1)[:, None] * (np.arange(n) + 0.5) / n) * 2 / n
    bends = np.diff(rest, 2)
    rough = [np.log(np.sqrt(np.mean(part**2)) + 1e-6) for part in (bends[: n // 3], bends[n // 3 :])]
    spread = np.log(x.std(1).mean() + 1e-6)
    return np.array([rest.mean(), *(cosines @ rest), *rough, spread, rest[:2].mean() - rest[2:6].mean()])


def without_silence(values: np.ndarray) -> np.ndarray:
    """The frames (M, F) of which not most bins lie at their floor: digital silence would pass for a wide spread."""
    floor = values.min(1, keepdims=True)
    silent = (values - floor < 0.01 * values.std()).mean(0) > 0.5
    return values[:, ~silent] if (~silent).sum() >= 20 else values


def _likelihood(values: np.ndarray, c: MelConvention | None) -> tuple[float, float]:
    """Log density of the features in terms of the mel's own numbers, and the squared distance from speech."""
    mean, precision, log_det = _reference()["normalised" if c is None else "logarithm"]
    difference = features(values, c) - mean
    distance = float(difference @ precision @ difference)
    # Level, cosines and step are measured in nats: their density in the mel's numbers holds the scale that often.
    scale = 0.0 if c is None else (SHAPES + 2) * math.log(c.nats_per_unit / c.power)
    return scale - 0.5 * (distance + log_det), distance


def _outside(values: np.ndarray, c: MelConvention) -> float:
    """By how many nats a mel leaves the range that ``c`` allows; 0 inside."""
    top = math.inf if c.clip is None else c.clip[1]
    outside = max(_floor(c) - values.min(), values.max() - top, 0.0)
    return outside * c.nats_per_unit


def _floor(c: MelConvention) -> float:
    """The smallest value that a mel of ``c`` can have."""
    value = c.gain * c.scale * math.log(max(c.floor, c.eps)) / math.log(c.log_base) + c.shift
    return value if c.clip is None else max(value, c.clip[0])


def _scores(values: np.ndarray, rate: int | None) -> list[tuple[Known | None, float, float]]:
    """(known, log score, distance) for every convention that the numbers can tell apart; None is mean-variance."""
    out = []
    values = without_silence(values)
    for known in KNOWN:
        if known.framed:
            continue
        c = known.convention(rate, len(values))
        score, distance = _likelihood(values, c)
        # Synthetic mels overshoot a little; a tenth of a nat is free.
        outside = max(0.0, _outside(values, c) - 0.1)
        rare = known.rare + (RARE if len(values) != known.bins else 0.0)
        out.append((known, score - 40 * outside - rare, distance + 80 * outside))
    score, distance = _likelihood(values, None)
    return [*out, (None, score, distance)]


def _diagnosis(values, frames_first, rate, scores, heard=None) -> Diagnosis:
    ranked = sorted(scores, key=lambda entry: -entry[1])
    softened = np.array([entry[1] for entry in ranked]) / TEMPERATURE
    shares = np.exp(softened - softened[0])
    shares /= shares.sum()
    best, _, distance = ranked[0]
    offset, error = heard or (None, None)
    notes = _notes(values, best, heard)
    return Diagnosis(
        best.name if best else NORMALISED, best.units if best else "normalised to mean 0 and variance 1 in each bin",
        frames_first, values.shape[1], len(values), best.convention(rate, len(values)) if best else None,
        best.python(rate, len(values)) if best else "", float(shares[0]),
        tuple((e[0].name if e[0] else NORMALISED, float(s)) for e, s in zip(ranked[1:], shares[1:], strict=True)),
        distance, float(values.min()), float(values.max()), best.also if best else "", offset, error, notes,
    )  # fmt: skip


def _notes(values: np.ndarray, best: Known | None, heard) -> tuple[str, ...]:
    notes = []
    if values.min() >= 0 and values.max() > 30 * max(np.median(values), 1e-9):
        notes.append("no logarithm seems to have been taken: all values are positive and most are tiny")
    if best is not None and best.name == "hifigan" and heard is None:
        notes.append("frames of HiFi-GAN lie half a hop later than WaveGlow's and Coqui's: only a recording can tell")
    if values.shape[1] < 50:
        notes.append(f"{values.shape[1]} frames are few: give a longer mel for a surer answer")
    return tuple(notes)


# With the recording


def _heard(values: np.ndarray, wav: Tensor, rate: int):
    """Compare with the recording's own mels: every convention ranked, and the nearest one's offset and error.

    None where the mel has no relation to the recording; then its numbers alone must speak.
    """
    found = []
    for known in KNOWN:
        c = _with_hop(known.convention(rate, len(values)), len(wav) / values.shape[1])
        if len(wav) > c.n_fft:
            found.append((known, c, *_compare(values, wav, c, (0, 4))))
    found.sort(key=lambda entry: entry[3])
    found = [(k, c, *_compare(values, wav, c, range(8))) for k, c, _, _ in found[:4]] + found[4:]
    found.sort(key=lambda entry: entry[3] + 0.02 * (entry[2] != 0))  # twins: the one whose frames are in place
    if not found or found[0][3] > UNRELATED:
        return None
    ranked = [(k, -TEMPERATURE * (e + 0.02 * (offset != 0)) / MISFIT, 0.0) for k, _, offset, e in found]
    return ranked, found[0][2:]


def _with_hop(c: MelConvention, samples_per_frame: float) -> MelConvention:
    """``c`` with the hop that the lengths of mel and recording imply, where its own is clearly another."""
    if abs(samples_per_frame / c.hop_length - 1) < 0.08:
        return c
    hop = max(1, min(round(samples_per_frame), c.n_fft))
    return replace(c, hop_length=hop, pad=0 if c.center else (c.n_fft - hop) // 2)


def _compare(values: np.ndarray, wav: Tensor, c: MelConvention, eighths) -> tuple[int, float]:
    """Samples by which the mel's frames lie later than those of ``c``, and the mean error there in nats."""
    frames = max(8, min(values.shape[1], round(JUDGED_SECONDS * c.sample_rate / c.hop_length)))
    given = torch.from_numpy(values)[:, :frames]
    best = (0, math.inf)
    for eighth in eighths:
        shift = eighth * c.hop_length // 8
        own = c.extract(wav[shift : (frames + 16) * c.hop_length + c.n_fft + shift])
        for lag in sorted(range(-4, 5), key=abs):
            a, b = given[:, max(0, -lag) :], own[:, max(0, lag) :]
            n = min(a.shape[1], b.shape[1])
            if n < 8:
                continue
            skip = slice(min(3, n // 4), n - min(3, n // 4))  # the ends see padding
            error = float((a[:, skip] - b[:, skip]).abs().mean()) * c.nats_per_unit / c.power
            if error < best[1] - 1e-6:
                best = (lag * c.hop_length + shift, error)
    return best


# Two conventions side by side


def compare(source: MelConvention, target: MelConvention) -> tuple[bool, str]:
    """Whether a vocoder of ``target`` can speak mels of ``source``, and a table, field by field."""
    rows, exact = [], True
    for name in source.to_dict():
        ours, theirs = getattr(source, name), getattr(target, name)
        if ours == theirs:
            verdict = "same"
        elif name not in STRUCTURAL:
            verdict = "converted exactly"
        else:
            verdict, exact = "DOES NOT FIT" + (", approximately at best" if name in APPROXIMABLE else ""), False
        if verdict != "same" or name in STRUCTURAL:
            rows.append(f"{name:15} {_short(ours):>14} {_short(theirs):>14}  {verdict}")
    head = f"{'field':15} {'acoustic model':>14} {'vocoder':>14}"
    return exact, "\n".join([head, *rows])


def acoustic_convention(path: str | Path) -> MelConvention:
    """The mel that an acoustic model hands to a vocoder: its configuration file, or a folder with one somewhere below.

    Raises:
        ValueError: there is none, or it names no mel.
    """
    path = Path(path)
    names = ("config.yaml", "config.json", "config.yml")
    if path.is_dir() and not any((path / name).is_file() for name in names):
        found = sorted(p for name in names for p in path.rglob(name))
        found = [p for p in found if "vocoder" not in str(p)] or found
        if not found:
            raise ValueError(f"{path} holds no {', '.join(names)}")
        path = found[0]
    return MelConvention.from_file(path)


def _short(value) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} values"
    return f"{value:g}" if isinstance(value, float) else str(value)


def plot(values: np.ndarray, diagnosis: Diagnosis, path: str | Path, wav: Tensor | None = None) -> None:
    """Draw the mel beside its reference: the recording's own mel, or mean speech under the convention found."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mel = _checked(values)
    mel = mel.T if diagnosis.frames_first else mel
    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    pictures, means = figure.subplots(1, 2, width_ratios=(3, 1))
    image = pictures.imshow(mel, origin="lower", aspect="auto", cmap="magma")
    pictures.set(title=f"{diagnosis.name}, {diagnosis.probability:.0%}", xlabel="frame", ylabel="mel bin")
    figure.colorbar(image, ax=pictures, label="value in the file")
    means.plot(mel.mean(1), np.arange(len(mel)), label="this mel")
    if c := diagnosis.convention:
        speech = _expected(c) * c.power / c.nats_per_unit + c.shift
        means.plot(speech, np.arange(len(mel)), "--", label=f"speech under {diagnosis.name}")
        if wav is not None:
            means.plot(c.extract(wav.double()).mean(1), np.arange(len(mel)), ":", label="the recording's own")
    means.set(title="mean of each bin", xlabel="value", ylabel="mel bin")
    means.legend()
    with warnings.catch_warnings(), whole_file(path) as file:
        warnings.simplefilter("ignore")
        figure.savefig(file, dpi=90, format=Path(path).suffix.lstrip(".") or "png")
