"""The backend of ESPnet3's ``infer`` stage."""

from pathlib import Path

import torch
from espnet3.contract.kinds.audio import Audio

from melglow_plugin.vocoder import Vocoder


class CopySynthesis:
    """Recording -> mel -> recording: ``copier(speech=Audio)`` gives ``{"wav": (T,)}``.

    Args:
        model: a model folder, or a ``.pth`` of ESPnet's trainers beside its ``config.yaml``.
        device: as ESPnet3 names it.
        sigma, seed: as of :class:`melglow_plugin.Vocoder`.
    """

    def __init__(self, model: str | Path, device: str = "cpu", sigma: float = 0.6, seed: int = 0) -> None:
        self.vocoder = Vocoder.from_pretrained(model, device)
        self.sample_rate = self.vocoder.sample_rate  # ESPnet3 checks its inputs and outputs by it
        self.sigma, self.seed = sigma, seed

    def __call__(self, speech: Audio) -> dict[str, Audio]:
        wav = torch.from_numpy(speech.array)
        copy = self.vocoder(self.vocoder.convention.extract(wav), sigma=self.sigma, seed=self.seed)
        return {"wav": Audio(copy[: len(wav)].cpu().numpy(), self.sample_rate)}
