"""MelConvention: the definition of a mel's values, how to extract such a mel, and how to convert one exactly."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from melglow_plugin.checks import key_differences, naming, plain, renamed_method
from melglow_plugin.mel import config_files, conversion, systems
from melglow_plugin.mel.constants import constant
from melglow_plugin.mel.validation import check_kinds, check_values, check_wav

LOUDEST = 50.0  # nats of a mel that are taken as they are, 17 above a square of 16-bit integers
CHUNK_FRAMES = 8192  # of one spectrum; at 22,050 Hz, 95 s


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
        check_kinds(self)
        set_field(self, "win_length", self.n_fft if self.win_length is None else self.win_length)
        set_field(self, "fmax", self.sample_rate / 2 if self.fmax is None else float(self.fmax))
        set_field(self, "fmin", float(self.fmin or 0))
        for name in ("clip", "mean", "std"):
            value = getattr(self, name)
            set_field(self, name, None if value is None else tuple(float(v) for v in value))
        check_values(self)

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
        with naming(path):
            return cls.from_dict(fields)

    # Extraction

    @property
    def context(self) -> int:
        """Samples of padding on each side of a recording."""
        return self.n_fft // 2 if self.center else self.pad

    @property
    def nats_per_unit(self) -> float:
        """Change of ln M for a change of 1 in a value."""
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
        check_wav(wav)
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
        window, bank = self.stft_window(wav), self.filterbank(wav)
        spectrum = torch.stft(
            wav, self.n_fft, self.hop_length, self.win_length, window, center=False, return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square() + self.spectrum_eps
        # Above 0, where the root has no gradient; far below every floor of a mel.
        magnitude = power.clamp(min=max(self.spectrum_floor**2, 1e-30)).sqrt()
        with torch.autocast(wav.device.type, enabled=False):  # it would multiply in 16 bits
            linear = bank @ (magnitude if self.power == 1 else magnitude**self.power)
        return self.from_linear(linear)

    def stft_window(self, like: Tensor) -> Tensor:
        """The window of the STFT, (win_length,), in the dtype and on the device of ``like``."""
        return constant(self, "window", like.dtype, like.device)

    def filterbank(self, like: Tensor) -> Tensor:
        """The filters (M, n_fft / 2 + 1), in the dtype and on the device of ``like``."""
        return constant(self, "filterbank", like.dtype, like.device)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (constant(self, name, like.dtype, like.device)[:, None] for name in ("mean", "std"))
        return mean, std

    def from_linear(self, m: Tensor) -> Tensor:
        """Values of the mel M itself, both (..., M, F)."""
        value = (m + self.eps).clamp(min=self.floor).log() * (
            self.gain * self.scale / math.log(self.log_base)
        ) + self.shift
        value = value if self.clip is None else value.clamp(*self.clip)
        if self.mean is None:
            return value
        mean, std = self._statistics(value)
        return (value - mean) / std

    def to_log_linear(self, mel: Tensor) -> Tensor:
        """ln(M + eps), the inverse of :meth:`from_linear` as far as it has one."""
        if self.mean is not None:
            mean, std = self._statistics(mel)
            mel = mel * std + mean
        mel = mel - self.shift if self.shift else mel
        return mel * (math.log(self.log_base) / (self.gain * self.scale))

    def to_linear(self, mel: Tensor) -> Tensor:
        """The mel M itself, of its values, both (..., M, F); from 0 to a number whose square is finite."""
        linear = self.to_log_linear(mel).clamp(max=LOUDEST).exp()
        return (linear - self.eps).clamp(min=0.0) if self.eps else linear

    def preemphasis_power(self, like: Tensor) -> Tensor:
        """What pre-emphasis does to the power of each bin, a factor, (n_fft / 2 + 1,); dtype and device of ``like``."""
        turn = torch.linspace(0, math.pi, self.n_fft // 2 + 1, dtype=like.dtype, device=like.device)
        return 1 + self.preemphasis**2 - 2 * self.preemphasis * turn.cos()

    band_powers = conversion.band_powers

    # Conversion: these functions take a convention first, so they serve as methods

    differences = conversion.differences
    incompatible_fields = conversion.incompatible_fields
    frame_offset = conversion.frame_offset
    convert = conversion.convert
    approximation = conversion.approximation
    expected_error = conversion.expected_error
    unbridgeable = renamed_method("unbridgeable", "incompatible_fields")
    lag = renamed_method("lag", "frame_offset")

    # Storage

    def to_dict(self) -> dict:
        """Plain values for JSON and YAML."""
        return plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping, whole: bool = False) -> "MelConvention":
        """The inverse of :meth:`to_dict`; ValueError names unknown fields and, where all are wanted, missing ones."""
        if not isinstance(values, Mapping):
            raise ValueError(f"a mel convention is a {type(values).__name__}, wanted named values")
        fields = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(map(str, set(values) - fields)):
            raise ValueError(f"{', '.join(unknown[:5])}: no field of a mel convention")
        if whole and (missing := key_differences(set(values), fields)):
            raise ValueError(f"convention: {missing}")
        return cls(**values)
