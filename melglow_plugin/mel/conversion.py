"""From the numbers of one mel convention to those of another: exactly, by an estimate with a known error, or refused.

``source`` and ``to`` are each a :class:`~melglow_plugin.mel.convention.MelConvention`. The public functions are its
methods, too: ``source.convert(mel, to)``.
"""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import torch
from torch import Tensor

from melglow_plugin.mel.filterbank import geometry, interpolation
from melglow_plugin.mel.validation import check_mel

# Where two conventions differ in one of these, no map from number to number exists.
STRUCTURAL = (
    "sample_rate", "n_fft", "hop_length", "win_length", "window", "center", "pad", "pad_mode", "preemphasis",
    "n_mels", "fmin", "fmax", "mel_scale", "mel_norm", "power",
)  # fmt: skip
# Of these, fields that can be converted with an error through an estimated spectrum, and fields that move the frames.
SPECTRAL = ("n_mels", "fmin", "fmax", "mel_scale", "mel_norm", "power")
FRAMING = ("center", "pad", "pad_mode")
APPROXIMABLE = SPECTRAL + FRAMING
ITERATIONS = 30  # of Richardson and Lucy


def differences(source, to) -> list[str]:
    """The structural fields in which ``to`` differs, each with both values: no conversion changes these."""
    return [
        f"{name} {getattr(source, name)} -> {getattr(to, name)}"
        for name in STRUCTURAL
        if getattr(source, name) != getattr(to, name)
    ]


def incompatible_fields(source, to) -> list[str]:
    """Those of :func:`differences` for which there is no approximation either, and no adaptation of a model."""
    return [text for text in differences(source, to) if text.split()[0] not in APPROXIMABLE]


def frame_offset(source, to) -> int:
    """Samples by which a frame of this convention lies later in the recording than the same frame of ``to``."""
    return (source.n_fft // 2 - source.context) - (to.n_fft // 2 - to.context)


def convert(source, mel: Tensor, to, approximate: bool = False) -> Tensor:
    """``mel`` of this convention in the numbers of ``to``.

    Log base, gain, scale, shift and per-bin statistics are changed exactly. What this convention has clipped or floored
    stays at its limit; values below the floor of ``to`` are raised to it.

    Args:
        source: the convention of ``mel``.
        mel: (M, F) or (B, M, F).
        to: the convention wanted.
        approximate: accept another filterbank or power, too, through an estimate of the magnitude spectrum, and
            frames at other places in the recording, which are not moved, so the audio is shifted in time. A warning
            states the error and the shift.

    Raises:
        ValueError: ``mel`` has another shape or holds no floats; or the two differ in a structural field (with
            ``approximate``: in one besides ``APPROXIMABLE``), and all of them are named with both values.
    """
    check_mel(mel, source.n_mels)
    different = differences(source, to)
    if not approximate and different:
        raise ValueError(f"no exact conversion between these mels: {'; '.join(different)}")
    if beyond := incompatible_fields(source, to):
        raise ValueError(f"not even an approximate conversion between these mels: {'; '.join(beyond)}")
    if source == to:
        return mel
    m = source.to_linear(mel.double())
    if different:
        warnings.warn(f"approximate mel ({'; '.join(different)}): {approximation(source, to)}", stacklevel=2)
        m = m if _same_spectrum(source, to) else _reprojected(source, m, to)
    if to.spectrum_floor:  # its silence, bin by bin
        smallest = to.filterbank(m).sum(1, keepdim=True) * to.spectrum_floor**to.power
        m = torch.maximum(m, smallest)
    return to.from_linear(m).to(mel.dtype)


def approximation(source, to) -> str:
    """The error of ``convert(mel, to, approximate=True)`` in words; empty where the conversion is exact."""
    parts, offset = [], frame_offset(source, to)
    if not _same_spectrum(source, to):
        error = expected_error(source, to)
        parts.append(f"expect an error of {error['median']:.2f} nats (median; 95 % below {error['p95']:.2f})")
    if offset:
        side = "later" if offset > 0 else "earlier"
        parts.append(f"frames {abs(offset)} samples {side}: the audio starts that much {side}")
    elif any(getattr(source, name) != getattr(to, name) for name in FRAMING):
        parts.append("other padding in the first and last frames")
    return "; ".join(parts)


@lru_cache(maxsize=32)
def expected_error(source, to) -> Mapping[str, float]:
    """The error of ``convert(..., approximate=True)`` on a sound like speech, in nats of the mel's amplitude.

    Returns:
        ``median`` and ``p95`` of the absolute error over all bins and frames (a factor of 2 is 0.69 nats).
    """
    # Per-bin statistics would divide the error bin by bin: it is compared as a logarithm of M.
    plain = {"mean": None, "std": None, "clip": None, **{name: getattr(to, name) for name in FRAMING}}
    source, to = dataclasses.replace(source, **plain), dataclasses.replace(to, **plain)
    wav = example_speech(source.sample_rate)
    with torch.no_grad():
        found, expected = _reprojected(source, source.to_linear(source.extract(wav)), to), to.extract(wav)
    error = (to.from_linear(found) - expected).abs() * to.nats_per_unit / to.power
    quantiles = error.flatten().quantile(error.new_tensor([0.5, 0.95])).tolist()
    return MappingProxyType({"median": quantiles[0], "p95": quantiles[1]})  # kept, so nobody may change it


def _same_spectrum(source, target) -> bool:
    return all(getattr(source, name) == getattr(target, name) for name in SPECTRAL)


def _reprojected(source, m: Tensor, target) -> Tensor:
    m = m.clamp(min=max(source.floor, 1e-10))
    spectrum = spectrum_of(m, source.filterbank(m)) ** (target.power / source.power)
    return target.filterbank(m) @ spectrum


def spectrum_of(m: Tensor, bank: Tensor) -> Tensor:
    """A smooth non-negative spectrum whose mel is ``m``.

    Starts from the mel's density interpolated over frequency in logarithms; then Richardson-Lucy steps, which keep it
    non-negative, bring ``bank @ spectrum`` to ``m``. Outside the bank's band the value at the nearest edge is repeated.

    Args:
        m: linear mel, (..., M, F), positive.
        bank: (M, K) for K bins of an STFT.

    Returns:
        (..., K, F).
    """
    centre, area = geometry(bank)
    used = area > 0
    density = (m[..., used, :] / area[used, None].clamp(min=1e-12)).clamp(min=1e-12).log()
    spectrum = (interpolation(centre[used], torch.arange(bank.shape[1], device=bank.device)) @ density).exp()
    inside, weight = bank.sum(0) > 0, bank.sum(0).clamp(min=1e-12)[:, None]
    for _ in range(ITERATIONS):
        ratio = m / (bank @ spectrum).clamp(min=1e-30)
        factor = (bank.mT @ ratio) / weight
        spectrum = torch.where(inside[:, None], spectrum * factor, spectrum)
    return spectrum


def example_speech(sample_rate: int, seconds: float = 2.0) -> Tensor:
    """A synthetic sound like speech (glottal pulses through moving formants, hiss, pauses), (T,) in float64."""
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    phase = torch.cumsum(2 * math.pi * (130 + 50 * torch.sin(3 * time)) / sample_rate, 0)
    voice = torch.zeros_like(time)
    for k in range(1, int(min(sample_rate / 2, 10_000) // 190) + 1):
        hz = k * (130 + 50 * torch.sin(3 * time))
        gain = torch.zeros_like(time)
        for base, swing, width, level in ((550, 250, 120, 1.0), (1600, 600, 200, 0.4), (2700, 200, 300, 0.2)):
            formant = base + swing * torch.sin((5 + level) * time)
            gain += level / (1 + ((hz - formant) / width).square())
        voice += (gain + 0.01) / math.sqrt(k) * torch.sin(k * phase)
    hiss = torch.cat([noise[:1], noise[1:] - 0.9 * noise[:-1]])
    voiced = torch.sin(4 * time).clamp(min=0)
    return (
        0.1 * voiced * voice + 0.01 * (1 - voiced).clamp(min=0) * torch.sin(2.3 * time).square() * hiss + 2e-4 * noise
    )


def band_powers(c) -> tuple[Tensor, Tensor]:
    """The audio's power spectrum that a mel describes, interpolated linearly between the centres of the bands.

    Returns:
        Nats of power for one unit of each bin, (M,), and the power spectrum that a bin of value 0 stands for, as mean
        square per sample, (M, n_fft / 2 + 1); those of all bins add up.
    """
    nats, power = math.log(c.log_base) / (c.gain * c.scale), 2 / c.power
    unit = torch.tensor(c.std or (1.0,) * c.n_mels, dtype=torch.float64)
    offset = torch.tensor(c.mean or (0.0,) * c.n_mels, dtype=torch.float64) - c.shift
    bank = c.filterbank(unit)
    (centre, area), window = geometry(bank), c.stft_window(unit)
    used = area > 0
    spectra = torch.zeros_like(bank)
    spectra[used] = interpolation(centre[used], torch.arange(bank.shape[1])).mT
    spectra *= ((offset * nats - area.clamp(min=1e-12).log()) * power).exp()[:, None] / window.square().sum()
    spectra /= c.preemphasis_power(unit)
    return nats * power * unit, spectra
