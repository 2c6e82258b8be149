"""Variation of a training crop before its mel is taken: level, band, and pitch and formants by resampling."""

import math
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

ZEROS = 16  # of the interpolating sinc on either side
LOW, HIGH = (0.0, 0.02), (0.14, 0.4)  # where a limited band may begin and end, of the sample rate


@dataclass(frozen=True)
class VariationConfig:
    """How far training crops leave their recordings; zeros: not at all."""

    level: float = 0.0  # dB up and down; never above full scale
    pitch: float = 0.0  # largest change of the playing speed, up and down: 0.15 is 15 %
    share: float = 0.5  # of the crops whose pitch is changed
    band: float = 0.0  # share of the crops whose band is limited, as telephones and old recordings do

    def __post_init__(self) -> None:
        highest = {"level": 60.0, "pitch": 0.5, "share": 1.0, "band": 1.0}
        for name, limit in highest.items():
            if not 0 <= getattr(self, name) <= limit:
                raise ValueError(f"variation_conf: {name} {getattr(self, name):g} is not from 0 to {limit:g}")

    def draw_speed(self, place: Random) -> float:
        """1, or a speed whose logarithm is uniform."""
        if not self.pitch or place.random() >= self.share:
            return 1.0
        return math.exp(place.uniform(-1, 1) * math.log1p(self.pitch))

    def limited(self, wav: Tensor, place: Random) -> Tensor:
        """``wav`` (T,) without what lies below and above a band, or as it is."""
        if not self.band or place.random() >= self.band:
            return wav
        low, high = (wav.new_tensor([place.uniform(*ends)]) for ends in (LOW, HIGH))
        return band_limited(wav[None], low, high)[0]

    def levelled(self, wav: Tensor, place: Random) -> Tensor:
        """``wav`` at a level drawn uniformly in dB, at most to full scale."""
        if not self.level:
            return wav
        gain = 10 ** (place.uniform(-self.level, self.level) / 20)
        peak = float(wav.abs().max())
        return wav * min(gain, max(1.0, 0.99 / peak) if peak else gain)


def band_limited(wav: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``wav`` (B, T) without what lies below ``low`` and above ``high``, (B,) each in parts of the sample rate."""
    frequency = torch.fft.rfftfreq(wav.shape[1], device=wav.device, dtype=wav.dtype)
    kept = torch.sigmoid((frequency - low[:, None]) / 0.001) * torch.sigmoid((high[:, None] - frequency) / 0.003)
    return torch.fft.irfft(torch.fft.rfft(wav) * kept, wav.shape[1])


def varied_crop(wav: Tensor, samples: int, variation: VariationConfig, place: Random) -> Tensor | None:
    """A crop (``samples``,) of ``wav`` (T,) at another speed; None where that is drawn as 1 or ``wav`` is too short."""
    speed = variation.draw_speed(place)
    room = len(wav) - 1 - speed * (samples - 1)
    return None if speed == 1.0 or room < 0 else at_speed(wav, speed, place.uniform(0, room), samples)


def at_speed(wav: Tensor, speed: float, first: float, samples: int) -> Tensor:
    """``samples`` samples of ``wav`` (T,) played at ``speed``, from its place ``first`` on; zeros outside it.

    Interpolation by a windowed sinc, Smith and Gossett, "A flexible sampling-rate conversion method", ICASSP 1984. What
    would lie above half the sample rate is left out; a slower recording has nothing in the band that it leaves free.
    """
    cutoff = min(1.0, 1.0 / speed)
    reach = math.ceil(ZEROS / cutoff)
    place = first + speed * torch.arange(samples, dtype=torch.float64)
    whole = place.floor().long()
    taps = whole[:, None] + torch.arange(1 - reach, reach + 1)
    distance = place[:, None] - taps
    kernel = cutoff * torch.sinc(cutoff * distance) * (0.5 + 0.5 * torch.cos(math.pi * distance / (reach + 1)))
    inside = (taps >= 0) & (taps < len(wav))
    values = wav[taps.clamp(0, len(wav) - 1)] * inside
    return (values * kernel.to(wav.dtype)).sum(1)
