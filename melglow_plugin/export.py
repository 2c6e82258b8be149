"""What other systems load, from a Vocoder."""

import io
from pathlib import Path

import torch

from melglow_plugin.checkpoint import architecture, write_whole
from melglow_plugin.vocoder import Vocoder

ESPNET_TYPE = "MelGlowVocoder"  # generator_type in config.yml


def to_espnet(vocoder: Vocoder, folder: str | Path) -> None:
    """``checkpoint.pkl`` and ``config.yml``, in the shape that ESPnet's ``--vocoder_file`` expects of a vocoder.

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
        },
    }
    buffer = io.BytesIO()
    torch.save({"model": {"generator": vocoder.flow.state_dict()}}, buffer)
    write_whole(folder / "checkpoint.pkl", buffer.getvalue())
    write_whole(folder / "config.yml", yaml.safe_dump(config, sort_keys=False).encode())
