"""MelGlow as the vocoder of ESPnet3's F5-TTS, through ``vocoder_path``."""

from pathlib import Path

import torch
from torch import Tensor, nn

from melglow_plugin.checkpoint.pretrained import check_fits
from melglow_plugin.espnet.vocoder import EspnetVocoder
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.vocoder import Vocoder
from melglow_plugin.watch import wrapping

VOCOS_FILE = "config.yaml"  # in a folder of Vocos, which ESPnet loads itself
FLOOR = 1e-5  # of F5-TTS's mel before the logarithm


class F5Vocoder(EspnetVocoder):
    """What F5-TTS calls of its vocoder: ``decode``."""

    def decode(self, mel: Tensor) -> Tensor:
        """``mel`` (B, M, F) -> wav (B, F * hop_length) in [-1, 1]."""
        return torch.stack(self.batch(list(mel.mT)))


def convention_of(feats_extract: nn.Module) -> MelConvention:
    """The mel of ESPnet3's ``VocoderMelSpec``: torchaudio's HTK filters of equal height, as Vocos has them."""
    names = ("n_fft", "hop_length", "win_length", "n_mels")
    sizes = {name: getattr(feats_extract, name) for name in names}
    return MelConvention.preset("vocos", feats_extract.fs, **sizes, fmax=None, floor=FLOOR)


def patch(module) -> None:
    """Let ``F5TTSInference`` load models of ours; doing it again changes nothing."""

    @wrapping(module.F5TTSInference, "_load_vocoder")
    def load_vocoder(original, self, vocoder_path: str | None):
        if not vocoder_path or (Path(vocoder_path) / VOCOS_FILE).exists():
            return original(self, vocoder_path)
        vocoder = Vocoder.from_pretrained(vocoder_path, self.device)
        if vocoder.sample_rate != self.target_sample_rate:
            raise ValueError(
                f"target_sample_rate {self.target_sample_rate} Hz, {vocoder_path} has {vocoder.sample_rate} Hz"
            )
        convention = convention_of(self.feats_extract)
        check_fits(convention, vocoder.convention, "F5-TTS")
        return F5Vocoder(vocoder, convention).to(self.device).eval()
