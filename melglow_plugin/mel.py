"""MelConvention: what the numbers of a mel mean, how to extract such a mel, and how to convert one exactly."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Where two conventions differ in one of these, no map from number to number exists.
STRUCTURAL = (
    "sample_rate", "n_fft", "hop_length", "win_length", "window", "center", "pad", "pad_mode", "preemphasis",
    "n_mels", "fmin", "fmax", "mel_scale", "mel_norm", "power",
)  # fmt: skip


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
        set_field(self, "win_length", self.n_fft if self.win_length is None else self.win_length)
        set_field(self, "fmax", self.sample_rate / 2 if self.fmax is None else float(self.fmax))
        set_field(self, "fmin", float(self.fmin or 0))
        for name in ("clip", "mean", "std"):
            value = getattr(self, name)
            set_field(self, name, None if value is None else tuple(float(v) for v in value))
        self._check()

    def _check(self) -> None:
        for name in ("sample_rate", "n_fft", "hop_length", "win_length", "n_mels"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} {value!r} is no positive whole number")
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
                raise ValueError(f"{name} {getattr(self, name)!r} is none of {', '.join(allowed)}")
        if self.floor <= 0 and self.eps <= 0:
            raise ValueError(
                f"floor {self.floor:g} and eps {self.eps:g}: one must be positive, or silence has no logarithm"
            )
        if self.log_base <= 1 or self.gain == 0 or self.scale == 0 or self.power <= 0:
            raise ValueError(
                f"log_base {self.log_base}, gain {self.gain}, scale {self.scale}, power {self.power}: "
                "the base must be above 1, the power positive, the others not 0"
            )
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std come together: one of them is missing")
        for name in ("mean", "std"):
            if getattr(self, name) is not None and len(getattr(self, name)) != self.n_mels:
                raise ValueError(f"{name} has {len(getattr(self, name))} values for n_mels {self.n_mels}")

    # The families

    @classmethod
    def espnet(cls, **conf) -> "MelConvention":
        """ESPnet's ``LogMelFbank``: log10 of the amplitude mel, as handed to a vocoder (un-normalised).

        Args:
            **conf: keywords of ``LogMelFbank`` (``feats_extract_conf`` of a recipe); defaults: its LJSpeech recipe.
        """
        names = {"fs": "sample_rate", "n_shift": "hop_length"}
        same = {"n_fft", "hop_length", "win_length", "window", "center", "n_mels", "fmin", "fmax", "log_base"}
        fields = {"spectrum_floor": 1e-5, "floor": 1e-10}
        for key, value in conf.items():
            if key in ("normalized", "onesided"):
                if value != (key == "onesided"):
                    raise ValueError(f"ESPnet's {key} = {value} is not supported, only {key == 'onesided'}")
            elif key == "htk":
                fields["mel_scale"] = "htk" if value else "slaney"
            elif key in names or key in same:
                fields[names.get(key, key)] = value
            else:
                raise ValueError(f"{key!r} is no keyword of ESPnet's LogMelFbank")
        if isinstance(fields.get("sample_rate"), str):  # ESPnet allows "22050" and "24k"
            text = fields["sample_rate"].strip().lower()
            fields["sample_rate"] = round(float(text[:-1]) * 1000) if text.endswith("k") else int(text)
        for key, none_means in (("log_base", math.e), ("fmin", 0.0), ("window", "none")):
            if key in fields and fields[key] is None:
                fields[key] = none_means
        return cls(**fields)

    @classmethod
    def coqui(cls, audio=None, mean=None, std=None) -> "MelConvention":
        """Coqui's ``AudioProcessor`` under ``audio``: a ``BaseAudioConfig``, its dict, or None for its defaults.

        ``mean`` and ``std`` per bin replace the file that ``stats_path`` names (read without executing its pickle).
        """
        conf = dict(_COQUI_DEFAULTS)
        given = {} if audio is None else audio if isinstance(audio, Mapping) else audio.to_dict()
        conf.update(given)
        unknown = sorted(set(conf) - set(_COQUI_DEFAULTS) - _COQUI_UNUSED)
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no field of Coqui's audio configuration")
        if conf["frame_shift_ms"]:
            conf["win_length"] = int(conf["frame_length_ms"] / 1000 * conf["sample_rate"])
            conf["hop_length"] = int(conf["win_length"] / (conf["frame_length_ms"] / conf["frame_shift_ms"]))
        if not conf["do_amp_to_db_mel"]:
            raise ValueError("do_amp_to_db_mel = False: a mel without a logarithm is not supported")
        for key in ("do_sound_norm", "do_rms_norm"):
            if conf[key]:
                raise ValueError(f"{key} = True changes the level of every recording before its mel: not supported")
        if conf["stats_path"] and conf["signal_norm"] and mean is None:
            mean, std = _read_coqui_stats(conf["stats_path"])
        return cls(
            sample_rate=conf["sample_rate"], n_fft=conf["fft_size"], hop_length=conf["hop_length"],
            win_length=conf["win_length"], pad_mode=conf["stft_pad_mode"], preemphasis=conf["preemphasis"],
            n_mels=conf["num_mels"], fmin=conf["mel_fmin"], fmax=conf["mel_fmax"],
            log_base=10.0 if conf["log_func"] == "np.log10" else math.e, gain=float(conf["spec_gain"]), floor=1e-8,
            mean=mean, std=std, **({} if mean is not None else _coqui_range(conf)),
        )  # fmt: skip

    @classmethod
    def hifigan(
        cls, sampling_rate=22_050, n_fft=1024, hop_size=256, win_size=1024, num_mels=80, fmin=0, fmax=8000
    ) -> "MelConvention":
        """HiFi-GAN's, BigVGAN's and UnivNet's mel, under the keywords of their ``config.json``."""
        return cls(
            sample_rate=sampling_rate, n_fft=n_fft, hop_length=hop_size, win_length=win_size, center=False,
            pad=(n_fft - hop_size) // 2, n_mels=num_mels, fmin=fmin, fmax=fmax, spectrum_eps=1e-9, log_base=math.e,
            floor=1e-5,
        )  # fmt: skip

    @classmethod
    def waveglow(cls, **fields) -> "MelConvention":
        """NVIDIA's Tacotron 2 and WaveGlow mel; ``fields`` replace its own."""
        return cls(**{"fmin": 0, "fmax": 8000, "log_base": math.e, "floor": 1e-5, **fields})

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
        if wav.dim() not in (1, 2) or not wav.is_floating_point():
            raise ValueError(f"wav is {wav.dtype} of shape {tuple(wav.shape)}, wanted float of (T,) or (B, T)")
        if self.preemphasis:
            wav = wav - self.preemphasis * F.pad(wav[..., :-1], (1, 0))
        wav = wav if padded else self.padded(wav)
        if wav.shape[-1] < self.n_fft:
            raise ValueError(f"wav has {wav.shape[-1]} samples with its padding, fewer than n_fft {self.n_fft}")
        wav = wav if wav.dtype == torch.float64 else wav.float()
        window, bank = self._window(wav), self._filterbank(wav)
        spectrum = torch.stft(
            wav, self.n_fft, self.hop_length, self.win_length, window, center=False, return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square() + self.spectrum_eps
        magnitude = power.clamp(min=self.spectrum_floor**2).sqrt()
        return self._from_linear(bank @ (magnitude if self.power == 1 else magnitude**self.power))

    def _window(self, like: Tensor) -> Tensor:
        make = {"hann": torch.hann_window, "hamming": torch.hamming_window}.get(self.window)
        options = {"dtype": like.dtype, "device": like.device}
        return torch.ones(self.win_length, **options) if make is None else make(self.win_length, **options)

    def _filterbank(self, like: Tensor) -> Tensor:
        bank = mel_filterbank(
            self.sample_rate, self.n_fft, self.n_mels, self.fmin, self.fmax, self.mel_scale, self.mel_norm
        )
        return torch.from_numpy(bank).to(like)

    def _from_linear(self, m: Tensor) -> Tensor:
        value = (m + self.eps).clamp(min=self.floor).log() * (
            self.gain * self.scale / math.log(self.log_base)
        ) + self.shift
        value = value if self.clip is None else value.clamp(*self.clip)
        if self.mean is None:
            return value
        return (value - value.new_tensor(self.mean)[:, None]) / value.new_tensor(self.std)[:, None]

    def _log_linear(self, mel: Tensor) -> Tensor:
        """ln(M + eps), the inverse of :meth:`_from_linear` as far as it has one."""
        if self.mean is not None:
            mel = mel * mel.new_tensor(self.std)[:, None] + mel.new_tensor(self.mean)[:, None]
        return (mel - self.shift) * (math.log(self.log_base) / (self.gain * self.scale))

    # Conversion

    def differences(self, to: "MelConvention") -> list[str]:
        """The structural fields in which ``to`` differs, each with both values: what no conversion can bridge."""
        return [
            f"{name} {getattr(self, name)} -> {getattr(to, name)}"
            for name in STRUCTURAL
            if getattr(self, name) != getattr(to, name)
        ]

    def convert(self, mel: Tensor, to: "MelConvention") -> Tensor:
        """``mel`` of this convention in the numbers of ``to``.

        Log base, gain, scale, shift and per-bin statistics are changed exactly. What this convention has clipped or
        floored stays at its limit; values below the floor of ``to`` are raised to it.

        Args:
            mel: (M, F) or (B, M, F).
            to: the convention wanted.

        Raises:
            ValueError: the two differ in a structural field; all of them are named with both values.
        """
        if mel.dim() not in (2, 3) or mel.shape[-2] != self.n_mels:
            raise ValueError(
                f"mel has shape {tuple(mel.shape)}, this convention wants ({self.n_mels}, F) or (B, {self.n_mels}, F)"
            )
        if differences := self.differences(to):
            raise ValueError(f"no exact conversion between these mels: {'; '.join(differences)}")
        if self == to:
            return mel
        wide = self._log_linear(mel.double())
        m = (wide.exp() - self.eps).clamp(min=0.0)
        if to.spectrum_floor:  # its silence, bin by bin
            smallest = to._filterbank(m).sum(1, keepdim=True) * to.spectrum_floor**to.power
            m = torch.maximum(m, smallest)
        return to._from_linear(m).to(mel.dtype)

    # Storage

    def to_dict(self) -> dict:
        """Plain values for JSON and YAML."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping) -> "MelConvention":
        """The inverse of :meth:`to_dict`; ValueError names unknown fields."""
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no field of a mel convention")
        return cls(**values)


@lru_cache(maxsize=32)
def mel_filterbank(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    fmin: float,
    fmax: float,
    mel_scale: str = "slaney",
    mel_norm: str = "slaney",
) -> np.ndarray:
    """Triangular filters over the bins of an STFT, (M, n_fft // 2 + 1), float32; equal to ``librosa.filters.mel``."""
    to_mel, to_hz = (_hz_to_htk, _htk_to_hz) if mel_scale == "htk" else (_hz_to_slaney, _slaney_to_hz)
    edges = to_hz(np.linspace(to_mel(fmin), to_mel(fmax), n_mels + 2))
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    widths = np.diff(edges)
    ramps = edges[:, None] - bins
    bank = np.maximum(0, np.minimum(-ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]))
    if mel_norm == "slaney":
        bank *= (2 / (edges[2:] - edges[:-2]))[:, None]
    return bank.astype(np.float32)


def _hz_to_htk(hz):
    return 2595 * np.log10(1 + np.asarray(hz) / 700)


def _htk_to_hz(mel):
    return 700 * (10 ** (np.asarray(mel) / 2595) - 1)


# Slaney's Auditory Toolbox: linear below 1 kHz (3 mels each 200 Hz), then 27 mels each factor of 6.4.
def _hz_to_slaney(hz):
    hz = np.asarray(hz, dtype=float)
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / math.log(6.4))


def _slaney_to_hz(mel):
    mel = np.asarray(mel, dtype=float)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(math.log(6.4) / 27 * (np.maximum(mel, 15) - 15)))


_COQUI_DEFAULTS = {
    "fft_size": 1024, "win_length": 1024, "hop_length": 256, "frame_shift_ms": None, "frame_length_ms": None,
    "stft_pad_mode": "reflect", "sample_rate": 22_050, "preemphasis": 0.0, "ref_level_db": 20, "do_sound_norm": False,
    "log_func": "np.log10", "do_rms_norm": False, "num_mels": 80, "mel_fmin": 0.0, "mel_fmax": None, "spec_gain": 20,
    "do_amp_to_db_mel": True, "signal_norm": True, "min_level_db": -100, "symmetric_norm": True, "max_norm": 4.0,
    "clip_norm": True, "stats_path": None,
}  # fmt: skip
_COQUI_UNUSED = {
    "resample", "do_trim_silence", "trim_db", "db_level", "power", "griffin_lim_iters", "do_amp_to_db_linear",
    "pitch_fmax", "pitch_fmin",
}  # fmt: skip


def _coqui_range(conf: Mapping) -> dict:
    if not conf["signal_norm"]:
        return {}
    top, lowest, reference = conf["max_norm"], conf["min_level_db"], conf["ref_level_db"]
    span = (2 if conf["symmetric_norm"] else 1) * top
    bottom = -top if conf["symmetric_norm"] else 0.0
    return {
        "scale": span / -lowest,
        "shift": span * (-reference - lowest) / -lowest + bottom,
        "clip": (bottom, top) if conf["clip_norm"] else None,
    }


def _read_coqui_stats(path) -> tuple[list[float], list[float]]:
    import pickle

    class NumpyOnly(pickle.Unpickler):
        def find_class(self, module: str, name: str):
            if module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype", "scalar"):
                return super().find_class(module, name)
            raise ValueError(f"{path}: a statistics file must hold numbers only, this one names {module}.{name}")

    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
        stats = NumpyOnly(file).load().item()
    return [float(v) for v in stats["mel_mean"]], [float(v) for v in stats["mel_std"]]
