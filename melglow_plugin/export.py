"""What other systems load, from a Vocoder."""

import io
import json
from pathlib import Path

import torch

from melglow_plugin import coqui_format
from melglow_plugin.checkpoint import architecture, write_whole
from melglow_plugin.vocoder import Vocoder

ESPNET_TYPE = "MelGlowVocoder"  # generator_type in config.yml


def to_espnet(vocoder: Vocoder, folder: str | Path) -> tuple[Path, Path]:
    """``checkpoint.pkl`` and ``config.yml``, in the shape that ESPnet's ``--vocoder_file`` expects; returns both.

    Loaded with ``weights_only=True``; the keys besides ``melglow`` are those that ESPnet reads.
    """
    import yaml

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "generator_type": ESPNET_TYPE,
        "generator_params": {"out_channels": 1},
        "format": "npy",
        "sampling_rate": vocoder.sample_rate,
        "hop_size": vocoder.hop_length,
        "num_mels": vocoder.convention.n_mels,
        "melglow": {
            "architecture": architecture(vocoder.flow),
            "model": vocoder.flow.hyperparameters,
            "convention": vocoder.convention.to_dict(),
            "training": vocoder.training_facts,
            "refine": vocoder.refine,
        },
    }
    buffer = io.BytesIO()
    torch.save({"model": {"generator": vocoder.flow.state_dict()}}, buffer)
    write_whole(folder / "checkpoint.pkl", buffer.getvalue())
    write_whole(folder / "config.yml", yaml.safe_dump(config, sort_keys=False).encode())
    return folder / "checkpoint.pkl", folder / "config.yml"


def to_coqui(vocoder: Vocoder, folder: str | Path) -> tuple[Path, Path]:
    """``model.pth`` and ``config.json``, for Coqui's ``--vocoder_path`` and ``--vocoder_config_path``; returns both.

    Loaded with ``weights_only=True``; Coqui's trainer can start from them (``--restore_path``).

    Raises:
        ValueError: Coqui cannot make this vocoder's mel; the message names the fields.
    """
    config = coqui_format.config_of(vocoder)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"{coqui_format.PREFIX}{name}": value.cpu() for name, value in vocoder.flow.state_dict().items()}
    buffer = io.BytesIO()
    torch.save({"model": weights, "step": 0, "epoch": 0}, buffer)
    write_whole(folder / coqui_format.WEIGHTS_FILE, buffer.getvalue())
    write_whole(folder / coqui_format.CONFIG_FILE, json.dumps(config, indent=2).encode() + b"\n")
    return folder / coqui_format.WEIGHTS_FILE, folder / coqui_format.CONFIG_FILE
