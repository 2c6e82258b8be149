"""MelGlow as the vocoder of ESPnet3's F5-TTS, through ``vocoder_path``."""

from pathlib import Path

import torch
from torch import Tensor, nn

from melglow_plugin.checkpoint.pretrained import that_fits
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.vocoder import Vocoder
from melglow_plugin.watch import wrapping

VOCOS_FILE = "config.yaml"  # in a folder of Vocos, which ESPnet loads itself
FLOOR = 1e-5  # of F5-TTS's mel before the logarithm


class F5Vocoder(nn.Module):
    """What F5-TTS calls of its vocoder: ``decode``.

    Args:
        vocoder: of any mel that ``convention`` converts to exactly.
        convention: F5-TTS's mel.
        sigma, seed: of each call.
    """

    def __init__(self, vocoder: Vocoder, convention: MelConvention, sigma: float = 0.6, seed: int = 0) -> None:
        super().__init__()
        if differences := convention.differences(vocoder.convention):
            raise ValueError(
                f"F5-TTS's mel does not fit this vocoder (F5-TTS -> vocoder): {'; '.join(differences)}"
                + that_fits(convention, "espnet").partition(":")[0]
            )
        self.vocoder, self.convention, self.sigma, self.seed = vocoder, convention, sigma, seed

    @torch.no_grad()
    def decode(self, mel: Tensor) -> Tensor:
        """``mel`` (B, M, F) -> wav (B, F * hop_length) in [-1, 1]."""
        mel = self.convention.convert(mel.detach().float(), self.vocoder.convention)
        return self.vocoder(mel, sigma=self.sigma, seed=self.seed)


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
        return F5Vocoder(vocoder, convention_of(self.feats_extract)).to(self.device).eval()
