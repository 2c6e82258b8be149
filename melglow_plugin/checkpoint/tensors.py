"""Weights in files: read without executing anything, named as this package names them, and checked."""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melglow_plugin.checks import key_differences
from melglow_plugin.files import load_torch, write_bytes
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.model.melflow import current_names

WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def with_config(model_file: str | Path, config_file: str | Path | None, name: str, what: str) -> tuple[Path, Path]:
    """A file of weights and its configuration, by default ``name`` beside it; ValueError where one is missing.

    ``what`` says in the message what such a model is.
    """
    paths = Path(model_file), Path(config_file or Path(model_file).parent / name)
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path} is missing: {what} and its {name}")
    return paths


def load_weights(flow: MelModel, weights: Mapping[str, Tensor], where: str | Path, prefix: str = "") -> None:
    """Fill ``flow``, strictly, also from names of version 0.1; it is in float32 then, whatever torch's default dtype.

    Args:
        weights: by name; those whose names do not begin with ``prefix`` are of another part of a trainer's model.
        where: the file, for messages.
    """
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    wanted, weights = flow.state_dict(), current_names(plain_weights(own, where))
    if set(weights) != set(wanted):
        raise ValueError(f"{where}: {key_differences(set(weights), set(wanted))}")
    for name, value in weights.items():
        if value.shape != wanted[name].shape:
            raise ValueError(
                f"{where}: {name} has shape {tuple(value.shape)}, the model wants {tuple(wanted[name].shape)}"
            )
        if value.dtype not in WEIGHT_DTYPES or not torch.isfinite(value).all():
            raise ValueError(f"{where}: {name} ({value.dtype}) holds values that are no finite floats")
    flow.float().load_state_dict({name: value.float() for name, value in weights.items()})


def plain_weights(weights: Mapping[str, Tensor], where: str | Path = "weights") -> dict[str, Tensor]:
    """Weights under their plain names, weight normalisation folded in, a DDP ``module.`` taken off.

    Both spellings of torch are known: ``weight_g`` and ``weight_v``, and ``parametrizations.weight.original0`` and
    ``original1``. Salimans and Kingma, "Weight normalization", 2016, arXiv:1602.07868: w = g * v / norm(v).

    Raises:
        ValueError: one of a pair is missing, or the two do not fit.
    """
    if weights and all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    plain: dict[str, Tensor] = {}
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.items():
        plain_name, part = _weight_norm_part(name)
        if part is None:
            plain[name] = value
        else:
            pairs.setdefault(plain_name, {})[part] = value
    for name, pair in pairs.items():
        if set(pair) != {"g", "v"}:
            raise ValueError(
                f"{where}: {name} has only the {'length' if 'g' in pair else 'direction'} of its weight norm"
            )
        if name in plain:
            raise ValueError(f"{where}: {name} is there both plain and with a weight norm")
        plain[name] = _folded(pair["g"], pair["v"], f"{where}: {name}")
    return plain


def _weight_norm_part(name: str) -> tuple[str, str | None]:
    """The plain name of a weight, and g or v where ``name`` is a part of its weight norm, in either spelling."""
    if found := re.fullmatch(r"(.*(?:weight|bias))_([gv])", name):
        return found[1], found[2]
    if found := re.fullmatch(r"(.*)parametrizations\.([^.]*)\.original([01])", name):
        return found[1] + found[2], "gv"[int(found[3])]
    return name, None


def _folded(length: Tensor, direction: Tensor, where: str) -> Tensor:
    if length.dim() == 0:  # one length for the whole weight
        return direction * (length / direction.norm())
    kept = [d for d, size in enumerate(length.shape) if size != 1] or [0]
    expected = [size if d == kept[0] else 1 for d, size in enumerate(direction.shape)]
    if len(kept) > 1 or list(length.shape) != expected:
        raise ValueError(f"{where}: lengths of shape {tuple(length.shape)} for directions {tuple(direction.shape)}")
    return torch._weight_norm(direction, length, kept[0])  # bit for bit what torch's own folding gives


def write_tensors(path: Path, state: Mapping) -> None:
    """What :func:`read_tensors` reads; the file appears whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def read_tensors(path: Path) -> Mapping[str, Any]:
    """``torch.load`` of tensors and plain containers; ValueError for anything else, of which nothing is executed."""
    state = load_torch(Path(path))
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, wanted named tensors")
    return state


def named_tensors(state, where: str | Path) -> Mapping[str, Tensor]:
    """``state``; ValueError unless it maps names to tensors that lie in the file as large as they claim to be."""
    if not isinstance(state, Mapping):
        raise ValueError(f"{where} holds a {type(state).__name__}, wanted named tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise ValueError(f"{where}: {str(name)[:100]} is a {type(value).__name__}, wanted a plain tensor")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():  # repeated by a stride of 0
            raise ValueError(f"{where}: {name} of shape {tuple(value.shape)} is larger than what the file holds of it")
    return state
