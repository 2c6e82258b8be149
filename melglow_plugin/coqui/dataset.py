"""Crops for Coqui's trainer: their mels equal the whole recording's, and evaluation always uses the same crops."""

import logging
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from TTS.config.shared_configs import BaseAudioConfig
from TTS.utils.audio import AudioProcessor

from melglow_plugin.files import audio_info, read_mapping, read_mel
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.training.crops import cut

logger = logging.getLogger(__name__)
# Smallest correlation of an acoustic model's mel with that of the recording, without each bin's mean; pairs compared.
# Measured on LJSpeech: another recording's reach 0.2, those 10 frames late 0.3, those blurred over 9 frames 0.85.
RESEMBLANCE, COMPARED = 0.5, 4


class MelglowDataset(Dataset):
    """One crop a recording.

    An item is a path, and gives ``{"segments": (segment_samples,)}`` for
    :func:`melglow_plugin.training.crops.wav_and_mel`; or a pair of paths, the second an ``.npy`` with an acoustic
    model's mel (M, F), and gives ``{"wav": (frames * hop,), "mel": (M, frames)}``. Recordings shorter than a crop are
    padded with silence; such pairs are left out.

    Args:
        ap: reads recordings, and trims silence if ``audio.do_trim_silence`` is set.
        items: paths, or pairs of paths.
        convention: the model's mel.
        frames: mel frames of a crop.
        train: random crops, other ones in every ``epoch``; otherwise the crop's place follows from the file's name.
        acoustic: the mel in the ``.npy`` files; None: the model's own.
        seed: of the places.

    Raises:
        ValueError: a recording has another sample rate or is not mono, a mel is not that of its recording, or
            nothing is left.
    """

    def __init__(
        self,
        ap: AudioProcessor,
        items: list,
        convention: MelConvention,
        frames: int,
        train: bool,
        acoustic: MelConvention | None = None,
        seed: int = 0,
    ) -> None:
        self.ap, self.convention, self.frames, self.train = ap, convention, frames, train
        self.seed, self.epoch = seed, 0
        self.acoustic = acoustic or convention
        items = [tuple(map(str, item)) if isinstance(item, tuple | list) else (str(item), None) for item in items]
        for wav_path, _ in items:
            check_recording(wav_path, convention.sample_rate)
        self.items = [item for item in items if item[1] is None or _n_frames(item[1]) >= frames]
        if len(self.items) < len(items):
            logger.warning("%d of %d pairs are shorter than a crop", len(items) - len(self.items), len(items))
        if not self.items:
            raise ValueError(f"none of {len(items)} recordings can be used, crops have {frames} frames")
        for wav_path, mel_path in self.items[:: -(-len(self.items) // COMPARED)]:
            if mel_path is not None:
                self._check_resemblance(mel_path, wav_path)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        wav_path, mel_path = self.items[index]
        wav = self.load(wav_path)
        if mel_path is None:
            wav = self._padded(wav)
            return {"segments": cut(wav, self.convention, self.frames, self._place(index, wav))}
        mel = self._load_mel(mel_path, wav_path, len(wav))
        start, hop = self._place(index, wav), self.convention.hop_length
        wav = torch.nn.functional.pad(wav, (0, hop))  # the last frame's hop reaches beyond the recording
        return {
            "wav": wav[start * hop : (start + self.frames) * hop],
            "mel": mel[:, start : start + self.frames],
        }

    def load(self, path: str) -> Tensor:
        """A recording, (T,) float32 in [-1, 1], trimmed where ``audio`` sets it."""
        return torch.from_numpy(self.ap.load_wav(path)).float()

    def mel(self, index: int) -> Tensor:
        """The mel of a whole recording, (M, F), in the model's convention."""
        wav_path, mel_path = self.items[index]
        wav = self.load(wav_path)
        if mel_path is None:
            return self.convention.extract(self._padded(wav))
        return self._load_mel(mel_path, wav_path, len(wav))

    def _check_resemblance(self, path: str, wav_path: str) -> None:
        wav = self.load(wav_path)
        pair = torch.stack([self._load_mel(path, wav_path, len(wav)), self.convention.extract(wav)])
        pair = pair - pair.mean(2, keepdim=True)
        found = float(torch.nn.functional.cosine_similarity(*pair.flatten(1), dim=0))
        if not found >= RESEMBLANCE:
            raise ValueError(
                f"{path} is not the mel of {wav_path}: correlation {found:.2f}, below {RESEMBLANCE}. "
                "(Coqui's extract_tts_spectrograms writes GlowTTS's latent in place of its mel.)"
            )

    def _padded(self, wav: Tensor) -> Tensor:
        needed = max(self.frames * self.convention.hop_length, self.convention.n_fft)
        return torch.nn.functional.pad(wav, (0, max(0, needed - len(wav))))

    def _place(self, index: int, wav: Tensor) -> int:
        last = self.convention.n_frames(len(wav)) - self.frames
        if self.train:  # no worker's generator: a run that is continued draws the same places
            return int(np.random.default_rng((self.seed, self.epoch, index)).integers(last + 1))
        return zlib.crc32(Path(self.items[index][0]).name.encode()) % (last + 1)

    def _load_mel(self, path: str, wav_path: str, samples: int) -> Tensor:
        mel = read_mel(path, frames_first=False)
        expected = (self.acoustic.n_mels, self.convention.n_frames(samples))
        if tuple(mel.shape) != expected:
            raise ValueError(
                f"{path} has shape {tuple(mel.shape)}, {wav_path} asks for {expected}: made from another recording, or "
                f"with another audio.do_trim_silence than {self.ap.do_trim_silence}?"
            )
        return self.acoustic.convert(mel, self.convention)


def check_recording(path: str, sample_rate: int) -> None:
    """ValueError unless a recording is mono at ``sample_rate`` Hz: Coqui reads any rate as the one it expects."""
    info = audio_info(path)
    if info.samplerate != sample_rate:
        raise ValueError(f"{path} has {info.samplerate} Hz, audio.sample_rate is {sample_rate} Hz")
    if info.channels != 1:
        raise ValueError(f"{path} has {info.channels} channels, wanted 1")


def convention_of_mel_files(config_file: str, audio: BaseAudioConfig) -> MelConvention:
    """The convention of an acoustic model's mel files, from its ``config.json``.

    Raises:
        ValueError: it trims recordings differently from ``audio``, so that frames and samples would not match.
    """
    theirs = {**BaseAudioConfig().to_dict(), **read_mapping(config_file)["audio"]}
    for name in ("do_trim_silence", "trim_db") if theirs["do_trim_silence"] else ("do_trim_silence",):
        if theirs[name] != audio[name]:
            raise ValueError(f"audio.{name} is {audio[name]}, in feature_config {config_file} it is {theirs[name]}")
    return MelConvention.coqui(theirs)


def _n_frames(mel_path: str) -> int:
    return np.load(mel_path, mmap_mode="r", allow_pickle=False).shape[-1]
