"""Write a golden folder of the present schema: a tiny model, its weights from a formula, and what it says.

python tests/golden/make.py schema1_lpc melglow lpc_order=4     # once; folders that are there stay as they were written
"""

import json
import sys
from pathlib import Path

import torch

from melglow_plugin import MelConvention, Vocoder
from melglow_plugin.model.melglow import build

CONVENTION = MelConvention.espnet(n_fft=64, hop_length=16, n_mels=5)
SIZES = {"melglow": {"n_flows": 4, "early_every": 2}, "lvcnet": {"n_blocks": 2, "lpc_order": 4}}


def golden_vocoder(architecture: str = "melglow", **changes) -> Vocoder:
    """The same weights on every machine: a sine over each parameter, small; 1x1 convolutions near the identity."""
    sizes = {"n_mels": 5, "hop_length": 16, "channels": 4, "n_layers": 2, "predictor_channels": 4}
    flow = build(architecture, {**sizes, **SIZES[architecture], **changes})
    flow.set_mel_bands(*CONVENTION.band_powers())
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            wave = torch.sin(torch.arange(1.0, parameter.numel() + 1)).view_as(parameter)
            eye = torch.eye(parameter.shape[0]) if name.startswith("convs_1x1") else torch.zeros(())
            parameter.copy_(eye + 0.1 * wave)
    flow.set_mel_statistics(torch.linspace(-3, -2, 5), torch.linspace(0.8, 1.2, 5))
    return Vocoder(flow, CONVENTION, {"steps": 3})


def mel_and_z() -> tuple[torch.Tensor, torch.Tensor]:
    """A mel (5, 6) and a latent (96,), from formulas too."""
    return torch.sin(torch.arange(30.0)).view(5, 6) - 2.5, 0.3 * torch.cos(torch.arange(96.0) ** 1.1)


if __name__ == "__main__":
    folder = Path(__file__).parent / sys.argv[1]
    changes = dict(text.split("=") for text in sys.argv[3:])
    vocoder = golden_vocoder(sys.argv[2], **{name: int(value) for name, value in changes.items()})
    vocoder.save_pretrained(folder)
    mel, z = mel_and_z()
    (folder / "expected.json").write_text(json.dumps({"wav": vocoder(mel, z=z).tolist()}) + "\n")
