"""Loading of a model from any file format that is known here. Only tensors and plain values are unpickled."""

from pathlib import Path

import torch

from melglow_plugin.checkpoint import folder
from melglow_plugin.checkpoint.checkpoint import Checkpoint
from melglow_plugin.checkpoint.coqui import from_coqui, is_coqui
from melglow_plugin.checkpoint.espnet import from_espnet_pack, from_espnet_trainer
from melglow_plugin.checkpoint.pretrained import of_name


def load(path: str | Path) -> Checkpoint:
    """Read a model: in float32 on the CPU, whatever the default dtype and device of torch.

    Args:
        path: a model folder (any schema) or one of its two files, or a file beside its configuration: ``*.pth`` of
            ESPnet's or Coqui's trainer, ``*.pkl`` as :func:`melglow_plugin.checkpoint.espnet.to_espnet` writes it.

    Raises:
        ValueError: it is none of these; the message names the file.
    """
    with torch.device("cpu"):
        return _load(Path(path))


def _load(path: Path) -> Checkpoint:
    if path.is_dir():
        models = sorted(p.name for p in path.iterdir() if p.suffix in (".pth", ".pkl"))
        if models and not (path / folder.WEIGHTS_FILE).is_file():
            raise ValueError(f"{path} is no model folder; of the files in it name the model: {', '.join(models[:5])}")
        return folder.load(path)
    if path.name in (folder.CONFIG_FILE, folder.WEIGHTS_FILE) and (path.parent / folder.WEIGHTS_FILE).is_file():
        return folder.load(path.parent)
    if not path.exists() and (model := of_name(path.as_posix())):
        raise ValueError(f"{path}: no such folder here; the released model of that name is {model}")
    if path.suffix == ".pkl":
        return from_espnet_pack(path)
    if path.suffix != ".pth":
        raise ValueError(f"{path} is no model: a model is a folder, or a .pth or .pkl beside its configuration")
    return from_coqui(path) if is_coqui(path) else from_espnet_trainer(path)
