"""Models of other shapes -> Vocoder. Only tensors and plain values are ever unpickled."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from melglow_plugin import checkpoint, coqui_format
from melglow_plugin.mel import MelConvention
from melglow_plugin.models import MODELS
from melglow_plugin.vocoder import Vocoder


def load(path: str | Path) -> Vocoder:
    """A model of any shape known here.

    Args:
        path: a model folder (any schema), or a file beside its configuration: ``*.pth`` of ESPnet's or Coqui's
            trainer, ``*.pkl`` as :func:`melglow_plugin.export.to_espnet` writes it.

    Raises:
        ValueError: it is none of these; the message names the file.
    """
    path = Path(path)
    if path.is_dir():
        return Vocoder.from_pretrained(path)
    if path.suffix == ".pkl":
        return from_espnet_pack(path)
    return from_coqui(path) if is_coqui(path) else from_espnet_trainer(path)


def plain_weights(weights: Mapping[str, Tensor], where: str = "weights") -> dict[str, Tensor]:
    """Weights under their plain names, weight normalisation folded in, a DDP ``module.`` taken off.

    Both spellings of torch are known: ``weight_g`` and ``weight_v``, and ``parametrizations.weight.original0`` and
    ``original1``. Salimans and Kingma, "Weight normalization", 2016, arXiv:1602.07868: w = g * v / norm(v).

    Raises:
        ValueError: one of a pair is missing, or the two do not fit.
    """
    if weights and all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    plain, pairs = {}, {}
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
    for suffix, part in (("_g", "g"), ("_v", "v")):
        if name.endswith(f"weight{suffix}") or name.endswith(f"bias{suffix}"):
            return name.removesuffix(suffix), part
    head, separator, tail = name.rpartition(".")
    owner, _, parametrized = head.rpartition(".")
    if separator and tail in ("original0", "original1") and (owner + ".").endswith("parametrizations."):
        owner = owner.removesuffix("parametrizations")
        return f"{owner}{parametrized}", "g" if tail == "original0" else "v"
    return name, None


def _folded(length: Tensor, direction: Tensor, where: str) -> Tensor:
    if length.dim() == 0:  # one length for the whole weight
        return direction * (length / direction.norm())
    kept = [d for d, size in enumerate(length.shape) if size != 1] or [0]
    expected = [size if d == kept[0] else 1 for d, size in enumerate(direction.shape)]
    if len(kept) > 1 or list(length.shape) != expected:
        raise ValueError(f"{where}: lengths of shape {tuple(length.shape)} for directions {tuple(direction.shape)}")
    return torch._weight_norm(direction, length, kept[0])  # bit for bit what torch's own folding gives


def from_espnet_trainer(model_file: str | Path, config_file: str | Path | None = None) -> Vocoder:
    """A model of ESPnet2's trainer, ``*.pth`` with the ``config.yaml`` beside it; averaged weights where it has them.

    Raises:
        ValueError: a file is missing, is no such model, or holds more than tensors.
    """
    import yaml

    model_file = Path(model_file)
    config_file = Path(config_file) if config_file else model_file.parent / "config.yaml"
    for path in (model_file, config_file):
        if not path.is_file():
            raise ValueError(f"{path} is missing: an ESPnet model is a .pth and its config.yaml")
    conf = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    missing = {"vocoder", "vocoder_conf", "feats_extract_conf"} - set(conf if isinstance(conf, dict) else ())
    if missing:
        raise ValueError(f"{config_file}: no configuration of the MelGlow task, {', '.join(sorted(missing))} missing")
    state = read_tensors(model_file)
    state = state.get("model", state)
    prefix = "ema.module." if any(key.startswith("ema.module.") for key in state) else "flow."
    weights = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if conf["vocoder"] not in MODELS:
        raise ValueError(f"{config_file}: vocoder {conf['vocoder']!r} is none of {', '.join(MODELS)}")
    flow = MODELS[conf["vocoder"]](**conf["vocoder_conf"])
    checkpoint.load_weights(flow, plain_weights(weights, str(model_file)), str(model_file))
    training = {"trainer": "ESPnet2", "loss": conf.get("loss_conf"), "batch_size": conf.get("batch_size")}
    if "steps" in state:
        training["steps"] = int(state["steps"])
    return Vocoder(flow, MelConvention.espnet(**conf["feats_extract_conf"]), training)


def from_espnet_pack(model_file: str | Path, config_file: str | Path | None = None) -> Vocoder:
    """What :func:`melglow_plugin.export.to_espnet` wrote: ``checkpoint.pkl`` with ``config.yml`` beside it.

    Raises:
        ValueError: a file is missing, is not ours, or holds more than tensors.
    """
    import yaml

    model_file = Path(model_file)
    config_file = Path(config_file) if config_file else model_file.parent / "config.yml"
    for path in (model_file, config_file):
        if not path.is_file():
            raise ValueError(f"{path} is missing: an exported model is checkpoint.pkl and config.yml")
    config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    ours = config.get("melglow") if isinstance(config, dict) else None
    if not isinstance(ours, dict) or ours.get("architecture") not in MODELS:
        raise ValueError(f"{config_file}: no configuration of an exported MelGlow")
    state = read_tensors(model_file)
    if not isinstance(state.get("model"), Mapping) or "generator" not in state["model"]:
        raise ValueError(f"{model_file}: no model.generator in it")
    flow = MODELS[ours["architecture"]](**ours["model"])
    weights = plain_weights(state["model"]["generator"], str(model_file))
    checkpoint.load_weights(flow, weights, str(model_file))
    return Vocoder(flow, MelConvention.from_dict(ours["convention"]), ours.get("training") or {})


def is_coqui(model_file: str | Path) -> bool:
    """Whether a ``config.json`` beside the file says that Coqui's trainer or ``to_coqui`` wrote it."""
    config_file = Path(model_file).parent / coqui_format.CONFIG_FILE
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model") == coqui_format.MODEL


def from_coqui(model_file: str | Path, config_file: str | Path | None = None) -> Vocoder:
    """A model of Coqui's trainer, or of :func:`melglow_plugin.export.to_coqui`: ``*.pth``, ``config.json`` beside it.

    Raises:
        ValueError: a file is missing, is not ours, or holds more than tensors.
    """
    model_file = Path(model_file)
    config_file = Path(config_file) if config_file else model_file.parent / coqui_format.CONFIG_FILE
    for path in (model_file, config_file):
        if not path.is_file():
            raise ValueError(f"{path} is missing: a Coqui model is a .pth and its {coqui_format.CONFIG_FILE}")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        flow, convention = coqui_format.model_from(config)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{config_file}: {error}") from error
    state = read_tensors(model_file)
    if not isinstance(state.get("model"), Mapping):
        raise ValueError(f"{model_file}: no model in it")
    prefix = coqui_format.PREFIX
    weights = {key.removeprefix(prefix): value for key, value in state["model"].items() if key.startswith(prefix)}
    checkpoint.load_weights(flow, plain_weights(weights, str(model_file)), str(model_file))
    training = dict(config.get("training") or {})
    if state.get("step"):
        training |= {"trainer": "Coqui TTS", "loss": config.get("loss_params"), "steps": state["step"]}
    return Vocoder(flow, convention, training)


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """``torch.load`` of tensors and plain containers; ValueError for anything else, of which nothing is executed."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} holds more than tensors, or is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, wanted named tensors")
    return state
