"""MelConvention: what the numbers of a mel mean, how to extract such a mel, and how to convert one exactly."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from melglow_plugin.checks import short
from melglow_plugin.mel import config_files, conversion, systems
from melglow_plugin.mel.filterbank import mel_filterbank

# Where two conventions differ in one of these, no map from number to number exists.
STRUCTURAL = (
    "sample_rate", "n_fft", "hop_length", "win_length", "window", "center", "pad", "pad_mode", "preemphasis",
    "n_mels", "fmin", "fmax", "mel_scale", "mel_norm", "power",
)  # fmt: skip
# Of these, what a spectrum estimated from the mel can bridge, with an error, and what moves the frames alone.
SPECTRAL = ("n_mels", "fmin", "fmax", "mel_scale", "mel_norm", "power")
FRAMING = ("center", "pad", "pad_mode")
APPROXIMABLE = SPECTRAL + FRAMING
CHUNK_FRAMES = 8192  # of one spectrum; at 22,050 Hz, 95 s
MAX_SIZES = {"sample_rate": 1_000_000, "n_mels": 1024}  # of the others: 65,536; a filterbank stays below 300 MB


@dataclass(frozen=True)
class MelConvention:
    """A mel's definition, from samples to numbers.

    With the STFT ``S`` of the padded wav and the filterbank ``B``::

        M = B @ max(sqrt(abs(S)**2 + spectrum_eps), spectrum_floor) ** power
        v = gain * log(max(M + eps, floor), log_base)
        value = clip(scale * v + shift), then (value - mean) / std per bin where they are given

    Frame f is paired with the samples [f * hop_length, (f + 1) * hop_length). A centred frame f is centred on sample
    f * hop_length, one with ``pad = (n_fft - hop_length) / 2`` half a hop later.
    """

    sample_rate: int = 22_050  # Hz
    n_fft: int = 1024  # samples
    hop_length: int = 256  # samples per frame
    win_length: int | None = None  # samples; None: n_fft
    window: str = "hann"  # hann or hamming, periodic; none: rectangular
    center: bool = True  # pad n_fft / 2 on both sides: 1 + T // hop_length frames
    pad: int = 0  # samples on both sides where not centred
    pad_mode: str = "reflect"  # reflect or constant
    preemphasis: float = 0.0  # y[n] - preemphasis * y[n-1]
    n_mels: int = 80
    fmin: float = 80.0  # Hz
    fmax: float | None = 7600.0  # Hz; None: half the sample rate
    mel_scale: str = "slaney"  # slaney or htk
    mel_norm: str = "slaney"  # slaney: filters of equal area; none: of equal height
    power: float = 1.0  # 1: magnitude, 2: power
    spectrum_eps: float = 0.0  # added to abs(S)**2
    spectrum_floor: float = 0.0  # smallest magnitude
    log_base: float = 10.0
    gain: float = 1.0  # factor of the logarithm, 20 for dB
    eps: float = 0.0  # added to M
    floor: float = 1e-10  # smallest M
    scale: float = 1.0
    shift: float = 0.0
    clip: tuple[float, float] | None = None  # of the scaled and shifted values
    mean: tuple[float, ...] | None = None  # per bin
    std: tuple[float, ...] | None = None  # per bin

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        self._check_kinds()
        set_field(self, "win_length", self.n_fft if self.win_length is None else self.win_length)
        set_field(self, "fmax", self.sample_rate / 2 if self.fmax is None else float(self.fmax))
        set_field(self, "fmin", float(self.fmin or 0))
        for name in ("clip", "mean", "std"):
            value = getattr(self, name)
            set_field(self, name, None if value is None else tuple(float(v) for v in value))
        self._check()

    def _check_kinds(self) -> None:
        """ValueError naming the field where a value is none of its kind, before anything is computed from it."""
        for field in dataclasses.fields(self):
            name, value, kinds = field.name, getattr(self, field.name), get_args(field.type) or (field.type,)
            if value is None and (type(None) in kinds or name == "fmin"):
                continue
            if int in kinds:
                lowest, highest = 0 if name == "pad" else 1, MAX_SIZES.get(name, 65_536)
                if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                    number = "positive whole number" if lowest else "whole number from 0 on"
                    raise ValueError(f"{name} {short(value)} is no {number}")
                if value > highest:
                    raise ValueError(f"{name} {value} is above {highest}")
            elif float in kinds and not _is_finite(value):
                raise ValueError(f"{name} {short(value)} is no finite number")
            elif bool in kinds and not isinstance(value, bool):
                raise ValueError(f"{name} {short(value)} is neither true nor false")
            elif name in ("clip", "mean", "std") and not (
                isinstance(value, tuple | list | np.ndarray) and all(map(_is_finite, value))
            ):
                raise ValueError(f"{name} {short(value)} is no list of finite numbers")

    def _check(self) -> None:
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} is above n_fft {self.n_fft}")
        if not 0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(
                f"fmin {self.fmin:g} and fmax {self.fmax:g} Hz do not lie in order between 0 and half of "
                f"sample_rate {self.sample_rate}"
            )
        choices = {
            "window": ("hann", "hamming", "none"),
            "pad_mode": ("reflect", "constant"),
            "mel_scale": ("slaney", "htk"),
            "mel_norm": ("slaney", "none"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {short(getattr(self, name))} is none of {', '.join(allowed)}")
        for name in ("spectrum_eps", "spectrum_floor", "eps", "floor"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name):g} is below 0")
        if self.floor <= 0 and self.eps <= 0:
            raise ValueError(
                f"floor {self.floor:g} and eps {self.eps:g}: one must be positive, or silence has no logarithm"
            )
        if self.log_base <= 1 or self.gain == 0 or self.scale == 0 or self.power <= 0:
            raise ValueError(
                f"log_base {self.log_base}, gain {self.gain}, scale {self.scale}, power {self.power}: "
                "the base must be above 1, the power positive, the others not 0"
            )
        if self.clip is not None and not (len(self.clip) == 2 and self.clip[0] < self.clip[1]):
            raise ValueError(f"clip {short(self.clip)}: wanted two numbers, the lower one first")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std come together: one of them is missing")
        for name in ("mean", "std"):
            if getattr(self, name) is not None and len(getattr(self, name)) != self.n_mels:
                raise ValueError(f"{name} has {len(getattr(self, name))} values for n_mels {self.n_mels}")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std has a value of {min(self.std):g}, wanted all above 0")

    # The families

    @classmethod
    def preset(cls, name: str, sample_rate: int | None = None, **fields) -> "MelConvention":
        """The mel of a system by name (``systems.PRESETS``), at its own rate or another; ``fields`` replace its."""
        return cls(**systems.preset(name, sample_rate, **fields))

    @classmethod
    def espnet(cls, **conf) -> "MelConvention":
        """ESPnet's ``LogMelFbank``: log10 of the amplitude mel, as handed to a vocoder (un-normalised).

        Args:
            **conf: keywords of ``LogMelFbank`` (``feats_extract_conf`` of a recipe); defaults: its LJSpeech recipe.
        """
        return cls(**systems.espnet(**conf))

    @classmethod
    def coqui(cls, audio=None, mean=None, std=None) -> "MelConvention":
        """Coqui's ``AudioProcessor`` under ``audio``: a ``BaseAudioConfig``, its dict, or None for its defaults.

        ``mean`` and ``std`` per bin replace the file that ``stats_path`` names (read without executing its pickle).
        """
        return cls(**systems.coqui(audio, mean, std))

    @classmethod
    def hifigan(cls, **conf) -> "MelConvention":
        """HiFi-GAN's, BigVGAN's and UnivNet's mel, under the keywords of their ``config.json``."""
        return cls(**systems.hifigan(**conf))

    @classmethod
    def waveglow(cls, **fields) -> "MelConvention":
        """NVIDIA's Tacotron 2 and WaveGlow mel; ``fields`` replace its own."""
        return cls(**systems.waveglow(**fields))

    @classmethod
    def from_file(cls, path: str | Path) -> "MelConvention":
        """From a file of ours or of another system, or a folder that holds one: see ``config_files.from_file``.

        Raises:
            ValueError: the file is none that is known, or a value in it cannot be; the message names the file.
        """
        fields = config_files.from_file(path)
        try:
            return cls.from_dict(fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    # Extraction

    @property
    def context(self) -> int:
        """Samples of padding on each side of a recording."""
        return self.n_fft // 2 if self.center else self.pad

    @property
    def nats_per_unit(self) -> float:
        """What a difference of one in a value is in natural logarithms of M."""
        return abs(math.log(self.log_base) / (self.gain * self.scale))

    def n_frames(self, samples: int) -> int:
        """Frames that ``samples`` samples give."""
        return max(0, 1 + (samples + 2 * self.context - self.n_fft) // self.hop_length)

    def padded(self, wav: Tensor) -> Tensor:
        """``wav`` (..., T) with its padding, (..., T + 2 * context); ValueError if too short to reflect."""
        if self.pad_mode == "constant":
            return F.pad(wav, (self.context, self.context))
        if wav.shape[-1] <= self.context:
            raise ValueError(f"wav has {wav.shape[-1]} samples, reflection needs more than {self.context}")
        flat = wav.reshape(-1, wav.shape[-1])
        return F.pad(flat, (self.context, self.context), mode="reflect").view(*wav.shape[:-1], -1)

    def extract(self, wav: Tensor, padded: bool = False) -> Tensor:
        """The mel of a recording.

        Args:
            wav: (T,) or (B, T) in [-1, 1], at ``sample_rate``.
            padded: ``wav`` already holds ``context`` samples on both sides; so crops get the full recording's mel.

        Returns:
            (M, F) or (B, M, F).

        Raises:
            ValueError: ``wav`` has another number of dimensions, is no float, or is too short.
        """
        if not isinstance(wav, Tensor) or wav.dim() not in (1, 2) or not wav.is_floating_point():
            found = f"{getattr(wav, 'dtype', type(wav).__name__)} of shape {tuple(getattr(wav, 'shape', ()))}"
            raise ValueError(f"wav is {found}, wanted float of (T,) or (B, T)")
        if wav.numel() == 0:
            raise ValueError(f"wav is empty, of shape {tuple(wav.shape)}")
        if self.preemphasis:
            wav = wav - self.preemphasis * F.pad(wav[..., :-1], (1, 0))
        wav = wav if padded else self.padded(wav)
        if wav.shape[-1] < self.n_fft:
            raise ValueError(f"wav has {wav.shape[-1]} samples with its padding, fewer than n_fft {self.n_fft}")
        wav = wav if wav.dtype == torch.float64 else wav.float()
        frames = 1 + (wav.shape[-1] - self.n_fft) // self.hop_length
        if frames <= CHUNK_FRAMES:
            return self._extract_padded(wav)
        starts = range(0, frames, CHUNK_FRAMES)  # an hour's spectrum would take gigabytes
        ends = (self.hop_length * (min(start + CHUNK_FRAMES, frames) - 1) + self.n_fft for start in starts)
        pieces = (wav[..., start * self.hop_length : end] for start, end in zip(starts, ends, strict=True))
        return torch.cat([self._extract_padded(piece) for piece in pieces], dim=-1)

    def _extract_padded(self, wav: Tensor) -> Tensor:
        window, bank = self._window(wav), self._filterbank(wav)
        spectrum = torch.stft(
            wav, self.n_fft, self.hop_length, self.win_length, window, center=False, return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square() + self.spectrum_eps
        # Above 0, where the root has no gradient; far below every floor of a mel.
        magnitude = power.clamp(min=max(self.spectrum_floor**2, 1e-30)).sqrt()
        return self._from_linear(bank @ (magnitude if self.power == 1 else magnitude**self.power))

    def _window(self, like: Tensor) -> Tensor:
        return _constant(self, "window", like.dtype, like.device)

    def _filterbank(self, like: Tensor) -> Tensor:
        return _constant(self, "filterbank", like.dtype, like.device)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(_constant(self, name, like.dtype, like.device)[:, None] for name in ("mean", "std"))

    def _make_constant(self, name: str, dtype: torch.dtype) -> Tensor:
        if name == "window":
            make = {"hann": torch.hann_window, "hamming": torch.hamming_window}.get(self.window, torch.ones)
            return make(self.win_length, dtype=dtype)
        if name == "filterbank":
            c = self
            bank = mel_filterbank(c.sample_rate, c.n_fft, c.n_mels, c.fmin, c.fmax, c.mel_scale, c.mel_norm)
            return torch.from_numpy(bank).to(dtype)
        return torch.tensor(getattr(self, name), dtype=dtype)

    def _from_linear(self, m: Tensor) -> Tensor:
        value = (m + self.eps).clamp(min=self.floor).log() * (
            self.gain * self.scale / math.log(self.log_base)
        ) + self.shift
        value = value if self.clip is None else value.clamp(*self.clip)
        if self.mean is None:
            return value
        mean, std = self._statistics(value)
        return (value - mean) / std

    def _log_linear(self, mel: Tensor) -> Tensor:
        """ln(M + eps), the inverse of :meth:`_from_linear` as far as it has one."""
        if self.mean is not None:
            mean, std = self._statistics(mel)
            mel = mel * std + mean
        return (mel - self.shift) * (math.log(self.log_base) / (self.gain * self.scale))

    def band_powers(self) -> tuple[Tensor, Tensor]:
        """What a value says of the audio's power spectrum, if that goes straight from band to band.

        Returns:
            Nats of power for one unit of each bin, (M,), and the power spectrum that a bin of value 0 stands for, as
            mean square per sample, (M, n_fft / 2 + 1); those of all bins add up.
        """
        nats, power = math.log(self.log_base) / (self.gain * self.scale), 2 / self.power
        unit = torch.tensor(self.std or (1.0,) * self.n_mels, dtype=torch.float64)
        offset = torch.tensor(self.mean or (0.0,) * self.n_mels, dtype=torch.float64) - self.shift
        bank = self._filterbank(unit)
        area, window = bank.sum(1), self._window(unit)
        used = area > 0  # narrow low filters may hold no bin at all
        centres = (bank * torch.arange(bank.shape[1])).sum(1)[used] / area[used]
        spectra = torch.zeros_like(bank)
        spectra[used] = conversion.interpolation(centres, torch.arange(bank.shape[1])).mT
        spectra *= ((offset * nats - area.clamp(min=1e-12).log()) * power).exp()[:, None] / window.square().sum()
        turn = torch.linspace(0, math.pi, bank.shape[1], dtype=torch.float64)
        spectra /= 1 - 2 * self.preemphasis * turn.cos() + self.preemphasis**2
        return nats * power * unit, spectra

    # Conversion

    def differences(self, to: "MelConvention") -> list[str]:
        """The structural fields in which ``to`` differs, each with both values: what no conversion can bridge."""
        return [
            f"{name} {getattr(self, name)} -> {getattr(to, name)}"
            for name in STRUCTURAL
            if getattr(self, name) != getattr(to, name)
        ]

    def unbridgeable(self, to: "MelConvention") -> list[str]:
        """Those of :meth:`differences` that no approximation bridges and no model can be adapted to."""
        return [text for text in self.differences(to) if text.split()[0] not in APPROXIMABLE]

    def lag(self, to: "MelConvention") -> int:
        """Samples by which a frame of this convention lies later in the recording than the same frame of ``to``."""
        return (self.n_fft // 2 - self.context) - (to.n_fft // 2 - to.context)

    def convert(self, mel: Tensor, to: "MelConvention", approximate: bool = False) -> Tensor:
        """``mel`` of this convention in the numbers of ``to``.

        Log base, gain, scale, shift and per-bin statistics are changed exactly. What this convention has clipped or
        floored stays at its limit; values below the floor of ``to`` are raised to it.

        Args:
            mel: (M, F) or (B, M, F).
            to: the convention wanted.
            approximate: bridge another filterbank or power, too, through an estimate of the magnitude spectrum, and
                frames that lie elsewhere, which stay as they are: what is spoken from them starts that much later in
                the recording. A warning says how far off both are.

        Raises:
            ValueError: the two differ in a structural field (with ``approximate``: in one besides ``APPROXIMABLE``);
                all of them are named with both values.
        """
        if not isinstance(mel, Tensor) or mel.dim() not in (2, 3) or mel.shape[-2] != self.n_mels:
            raise ValueError(
                f"mel is a {type(mel).__name__} of shape {tuple(getattr(mel, 'shape', ()))}, this convention wants "
                f"({self.n_mels}, F) or (B, {self.n_mels}, F)"
            )
        differences = self.differences(to)
        if not approximate and differences:
            raise ValueError(f"no exact conversion between these mels: {'; '.join(differences)}")
        if beyond := self.unbridgeable(to):
            raise ValueError(f"not even an approximate conversion between these mels: {'; '.join(beyond)}")
        if self == to:
            return mel
        m = self._linear(mel.double())
        if differences:
            warnings.warn(f"approximate mel ({'; '.join(differences)}): {self.approximation(to)}", stacklevel=2)
            m = m if self._same_spectrum(to) else self._reprojected(m, to)
        if to.spectrum_floor:  # its silence, bin by bin
            smallest = to._filterbank(m).sum(1, keepdim=True) * to.spectrum_floor**to.power
            m = torch.maximum(m, smallest)
        return to._from_linear(m).to(mel.dtype)

    def expected_error(self, to: "MelConvention") -> dict[str, float]:
        """How far ``convert(..., approximate=True)`` is off on a sound like speech, in nats of the mel's amplitude.

        Returns:
            ``median`` and ``p95`` of the absolute error over all bins and frames (a factor of 2 is 0.69 nats).
        """
        return dict(_expected_error(self, to))

    def _same_spectrum(self, to: "MelConvention") -> bool:
        return all(getattr(self, name) == getattr(to, name) for name in SPECTRAL)

    def approximation(self, to: "MelConvention") -> str:
        """What ``convert(mel, to, approximate=True)`` gets wrong, in words; empty where the conversion is exact."""
        parts, lag = [], self.lag(to)
        if not self._same_spectrum(to):
            error = self.expected_error(to)
            parts.append(f"expect an error of {error['median']:.2f} nats (median; 95 % below {error['p95']:.2f})")
        if lag:
            side = "later" if lag > 0 else "earlier"
            parts.append(f"frames {abs(lag)} samples {side}: what is spoken starts that much {side} in the recording")
        elif any(getattr(self, name) != getattr(to, name) for name in FRAMING):
            parts.append("other padding in the first and last frames")
        return "; ".join(parts)

    def _linear(self, mel: Tensor) -> Tensor:
        """The mel M itself."""
        return (self._log_linear(mel).exp() - self.eps).clamp(min=0.0)

    def _reprojected(self, m: Tensor, to: "MelConvention") -> Tensor:
        m = m.clamp(min=max(self.floor, 1e-10))
        spectrum = conversion.spectrum_of(m, self._filterbank(m)) ** (to.power / self.power)
        return to._filterbank(m) @ spectrum

    # Storage

    def to_dict(self) -> dict:
        """Plain values for JSON and YAML."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping) -> "MelConvention":
        """The inverse of :meth:`to_dict`; ValueError names unknown fields."""
        if not isinstance(values, Mapping):
            raise ValueError(f"a mel convention is a {type(values).__name__}, wanted named values")
        unknown = sorted(map(str, set(values) - {f.name for f in dataclasses.fields(cls)}))
        if unknown:
            raise ValueError(f"{', '.join(unknown[:5])}: no field of a mel convention")
        return cls(**values)


def _is_finite(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


@lru_cache(maxsize=64)
def _constant(convention: MelConvention, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A convention's window, filterbank, mean or std where they are used: a GPU gets them once, not in every call.

    Besides, a graph of CUDA operations cannot hold a copy from the CPU.
    """
    with torch.inference_mode(False):  # else none could be used in training later
        return convention._make_constant(name, dtype).to(device)


@lru_cache(maxsize=32)
def _expected_error(source: MelConvention, target: MelConvention) -> tuple[tuple[str, float], ...]:
    # Per-bin statistics would divide the error bin by bin: it is compared as a logarithm of M.
    plain = {"mean": None, "std": None, "clip": None, **{name: getattr(target, name) for name in FRAMING}}
    source, target = dataclasses.replace(source, **plain), dataclasses.replace(target, **plain)
    wav = conversion.example_speech(source.sample_rate)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        found, expected = source._reprojected(source._linear(source.extract(wav)), target), target.extract(wav)
    error = (target._from_linear(found) - expected).abs() * target.nats_per_unit / target.power
    quantiles = error.flatten().quantile(error.new_tensor([0.5, 0.95])).tolist()
    return ("median", quantiles[0]), ("p95", quantiles[1])
