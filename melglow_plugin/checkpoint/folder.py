"""A released model: a folder with ``config.json``, ``model.safetensors`` and a model card. Nothing in it executes."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from melglow_plugin.checkpoint.card import model_card
from melglow_plugin.checkpoint.checkpoint import Checkpoint
from melglow_plugin.checkpoint.tensors import WEIGHT_DTYPES, load_weights
from melglow_plugin.checks import key_differences, naming, short
from melglow_plugin.files import make_folder, read_mapping, write_bytes, write_json

SCHEMA = 2  # 1: weights and sizes named as in version 0.1
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
POINTER = b"version https://git-lfs"  # how a file begins that Git LFS has not fetched
_KEYS = {"format", "schema", "architecture", "model", "convention", "training"}
_OPTIONAL = {"refine", "sharpen"}


def save(
    folder: str | Path, checkpoint: Checkpoint, dtype: torch.dtype = torch.float32, called: str = "this folder"
) -> None:
    """Write the folder; each file appears whole or not at all.

    Args:
        folder: made where it is missing; a model card in it stays.
        checkpoint: what to write.
        dtype: of the trained weights; float16 halves the file. The mel's statistics and bands keep their precision.
        called: the name of the model in the card's example.

    Raises:
        ValueError: ``dtype`` is no type of weights, or a weight is beyond it.
    """
    from safetensors.torch import save as to_bytes

    if dtype not in WEIGHT_DTYPES:
        raise ValueError(f"dtype {dtype} is none of {', '.join(map(str, WEIGHT_DTYPES))}")
    flow = checkpoint.flow
    config = {"format": "melglow", "schema": SCHEMA, **checkpoint.facts()}
    weights = {name: value.detach().contiguous().cpu() for name, value in flow.state_dict().items()}
    for name, _ in flow.named_parameters():
        largest = weights[name].abs().max()
        if largest > torch.finfo(dtype).max:
            raise ValueError(f"{name} reaches {largest:.3g}, {dtype} ends at {torch.finfo(dtype).max:.3g}")
        weights[name] = weights[name].to(dtype)
    folder = Path(folder)
    make_folder(folder)
    content = to_bytes(weights, {"format": "pt"})
    write_bytes(folder / WEIGHTS_FILE, content)
    write_json(folder / CONFIG_FILE, config)
    if not (folder / CARD_FILE).exists():
        write_bytes(folder / CARD_FILE, model_card(checkpoint, hashlib.sha256(content).hexdigest(), called).encode())


def load(folder: str | Path) -> Checkpoint:
    """Read a folder that :func:`save` wrote.

    Raises:
        ValueError: a file is missing or damaged, a key is unknown or missing, or a weight has another shape; the
            message names the file, the key and both values.
    """
    folder = Path(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing: a model folder holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    config = read_config(folder / CONFIG_FILE)
    with naming(folder / CONFIG_FILE):
        checkpoint = Checkpoint.from_facts(config)
    load_weights(checkpoint.flow, read_safetensors(folder / WEIGHTS_FILE), folder / WEIGHTS_FILE)
    checkpoint.check_bands(folder / WEIGHTS_FILE, folder / CONFIG_FILE)
    return checkpoint


def read_config(path: Path) -> dict:
    """``config.json``, its keys and schema checked."""
    config = read_mapping(path)
    if config.get("format") != "melglow":
        raise ValueError(f"{path}: no melglow model, its format is {short(config.get('format'))}")
    if config.get("schema") not in (1, SCHEMA):
        raise ValueError(f"{path}: schema {config.get('schema')}, this version reads 1 and {SCHEMA}")
    if set(config) - _OPTIONAL != _KEYS:
        raise ValueError(f"{path}: {key_differences(set(config) - _OPTIONAL, _KEYS)}")
    for key in ("model", "convention", "training"):
        if not isinstance(config[key], dict):
            raise ValueError(f"{path}: {key} is a {type(config[key]).__name__}, wanted an object")
    return config


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Weights by name; ValueError where the file is damaged, OSError where it is missing."""
    from safetensors.torch import load_file

    with open(path, "rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise ValueError(f"{path} is a pointer of Git LFS and not the weights: git lfs pull fetches them")
    try:
        return load_file(path)
    except Exception as error:  # SafetensorError, and torch's errors about unknown dtypes
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error
