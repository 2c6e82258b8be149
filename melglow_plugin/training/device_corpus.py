"""A corpus in memory, on the GPU where it fits: crops of many speakers, in balance, at several pitches and levels."""

import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from melglow_plugin.files import read_any_wav
from melglow_plugin.training.corpus_voices import Recording
from melglow_plugin.training.resample import resample
from melglow_plugin.training.speaker_balance import speaker_shares
from melglow_plugin.training.variation import HIGH, LOW, VariationConfig, band_limited

PITCH_UNIT = 20  # versions of a recording differ by a twentieth of its length
BLOCK = 64  # steps whose crops are drawn at once
LARGEST_SHARE = 0.25  # of a GPU's free memory; what is larger stays in the host's memory
FULL_SCALE = 32767

logger = logging.getLogger(__name__)


def read_recording(path, sample_rate: int) -> Tensor:
    """Mono samples (T,) at ``sample_rate``; ValueError where the recording's own rate is lower."""
    wav, rate = read_any_wav(path)
    if rate < sample_rate:
        raise ValueError(f"{path} has {rate} Hz, wanted {sample_rate} Hz or more: the missing band would be silence")
    return resample(wav, rate, sample_rate)


class DeviceCorpus:
    """Recordings as 16-bit samples in one tensor, and crops of them.

    Args:
        recordings: to train on.
        sample_rate: Hz; recordings of higher rates are converted.
        segment: samples of a crop.
        variation: of pitch, by versions of each recording played slower and faster, of level, and of band.
        cap: largest share of one speaker (:func:`speaker_shares`).
        device: of the crops.
        seed: of the random choices.

    Raises:
        ValueError: a recording cannot be used, or none is long enough.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        sample_rate: int,
        segment: int,
        variation: VariationConfig,
        cap: float,
        device: torch.device,
        seed: int,
    ) -> None:
        self.segment, self.variation, self.device, self.seed = segment, variation, device, seed
        with ThreadPoolExecutor() as pool:
            wavs = list(pool.map(lambda each: read_recording(each.path, sample_rate), recordings))
        kept = [(each.speaker, wav) for each, wav in zip(recordings, wavs, strict=True) if len(wav) >= segment]
        if not kept:
            raise ValueError(f"none of {len(wavs)} recordings has the {segment} samples of a crop")
        self.seconds: dict[str, float] = {}  # of each speaker
        for speaker, wav in kept:
            self.seconds[speaker] = self.seconds.get(speaker, 0.0) + len(wav) / sample_rate
        shares = speaker_shares(self.seconds, cap)
        weights = [shares[speaker] * len(wav) / sample_rate / self.seconds[speaker] for speaker, wav in kept]
        self._set_versions([wav for _, wav in kept], weights)
        self._block, self._drawn = -1, None
        total = sum(self.seconds.values()) / 60
        logger.info(
            "%d of %d recordings, %.1f minutes, %d speakers, %d versions, %.0f MB on %s",
            len(kept), len(wavs), total, len(self.seconds), len(self._first), 2e-6 * len(self.samples),
            self.samples.device,
        )  # fmt: skip

    def _set_versions(self, wavs: list[Tensor], weights: list[float]) -> None:
        lengths = pitch_lengths(self.variation.pitch)
        changed = self.variation.share / max(1, len(lengths) - 1)
        parts, table, place = [], [], 0
        for wav, weight in zip(wavs, weights, strict=True):
            wav = wav.to(self.device)
            for length in lengths:
                version = resample(wav, PITCH_UNIT, length).clamp(-1, 1)
                if len(version) < self.segment:
                    continue
                share = changed if length != PITCH_UNIT else 1 - changed * (len(lengths) - 1)
                table.append((place, len(version) - self.segment + 1, weight * share, float(version.abs().max())))
                parts.append((version * FULL_SCALE).round().to(torch.int16).cpu())
                place += len(version)
        first, room, weight, peak = torch.tensor(table, dtype=torch.float64).unbind(1)
        self._first, self._room, self._peak = first.long(), room, peak
        self._sum = weight.cumsum(0) / weight.sum()
        self.samples = torch.cat(parts)
        if self.device.type == "cuda" and 2 * place < LARGEST_SHARE * torch.cuda.mem_get_info(self.device)[0]:
            self.samples = self.samples.to(self.device)

    def crops(self, step: int, batch: int) -> Tensor:
        """The crops (batch, segment) of training step ``step``, float32 in [-1, 1]: the same ones in every run."""
        if step // BLOCK != self._block:
            self._block = step // BLOCK
            self._drawn = self._draw(self._block, batch)
        first, gain, low, high = (each[step % BLOCK] for each in self._drawn)
        place = torch.arange(self.segment, device=first.device)
        wav = self.samples[first[:, None] + place].to(self.device, torch.float32) * (gain / FULL_SCALE)[:, None]
        return band_limited(wav, low, high) if self.variation.band else wav

    def _draw(self, block: int, batch: int) -> tuple[Tensor, ...]:
        """First samples, gains and bands (BLOCK, batch) of the crops of a block of steps."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + block)
        drawn = torch.rand(6, BLOCK, batch, dtype=torch.float64, generator=generator)
        which, where, level, is_limited, low, high = drawn
        version = torch.searchsorted(self._sum, which).clamp(max=len(self._sum) - 1)
        first = self._first[version] + (where * self._room[version]).long()
        gain = 10 ** (self.variation.level * (2 * level - 1) / 20)
        # Never above full scale, as VariationConfig.levelled.
        gain = torch.minimum(gain, (0.99 / self._peak[version].clamp(min=1e-6)).clamp(min=1.0))
        whole = is_limited >= self.variation.band
        low = torch.where(whole, -1.0, LOW[0] + (LOW[1] - LOW[0]) * low)
        high = torch.where(whole, 1.0, HIGH[0] + (HIGH[1] - HIGH[0]) * high)
        return first.to(self.samples.device), *(each.float().to(self.device) for each in (gain, low, high))


def pitch_lengths(pitch: float) -> list[int]:
    """Lengths of a recording's versions, in twentieths of its own, for a largest change of ``pitch`` (0.15: 15 %)."""
    most = math.floor(PITCH_UNIT * pitch + 1e-9)
    return list(range(PITCH_UNIT - most, PITCH_UNIT + most + 1))
