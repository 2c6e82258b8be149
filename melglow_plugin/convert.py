"""Models of other shapes -> Vocoder. Only tensors and plain values are ever unpickled."""

import contextlib
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from melglow_plugin import checkpoint, coqui_format
from melglow_plugin.conventions import read_mapping
from melglow_plugin.mel import MelConvention
from melglow_plugin.refine import TRAINED, check_rounds
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
    model_file = Path(model_file)
    config_file = Path(config_file) if config_file else model_file.parent / "config.yaml"
    for path in (model_file, config_file):
        if not path.is_file():
            raise ValueError(f"{path} is missing: an ESPnet model is a .pth and its config.yaml")
    conf = read_mapping(config_file)
    missing = {"vocoder", "vocoder_conf", "feats_extract_conf"} - set(conf)
    if missing:
        raise ValueError(f"{config_file}: no configuration of the MelGlow task, {', '.join(sorted(missing))} missing")
    with _named(config_file):
        flow = checkpoint.build(conf["vocoder"], conf["vocoder_conf"])
        convention = MelConvention.espnet(**conf["feats_extract_conf"])
    state = read_tensors(model_file)
    state = named_tensors(state.get("model", state), model_file)
    prefix = "ema.module." if any(key.startswith("ema.module.") for key in state) else "flow."
    weights = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    checkpoint.load_weights(flow, plain_weights(weights, str(model_file)), str(model_file))
    training = {"trainer": "ESPnet2", "loss": conf.get("loss_conf"), "batch_size": conf.get("batch_size")}
    if conf.get("adversarial_conf"):
        training["adversarial"] = conf["adversarial_conf"]
    if conf.get("init_param"):  # FILE:FROM:TO, as ESPnet's trainer takes them
        training["initialised_from"] = sorted({Path(str(entry).split(":")[0]).name for entry in conf["init_param"]})
    if "steps" in state and state["steps"].numel() == 1:
        training["steps"] = int(state["steps"])
    return Vocoder(flow, convention, training, refine=TRAINED)


def from_espnet_pack(model_file: str | Path, config_file: str | Path | None = None) -> Vocoder:
    """What :func:`melglow_plugin.export.to_espnet` wrote: ``checkpoint.pkl`` with ``config.yml`` beside it.

    Raises:
        ValueError: a file is missing, is not ours, or holds more than tensors.
    """
    model_file = Path(model_file)
    config_file = Path(config_file) if config_file else model_file.parent / "config.yml"
    for path in (model_file, config_file):
        if not path.is_file():
            raise ValueError(f"{path} is missing: an exported model is checkpoint.pkl and config.yml")
    ours = read_mapping(config_file).get("melglow")
    if not isinstance(ours, dict) or not {"architecture", "model", "convention"} <= set(ours):
        raise ValueError(f"{config_file}: no configuration of an exported MelGlow")
    with _named(config_file):
        flow = checkpoint.build(ours["architecture"], ours["model"])
        convention, training = MelConvention.from_dict(ours["convention"]), dict(ours.get("training") or {})
        refine = check_rounds(ours.get("refine", 0))
    state = read_tensors(model_file)
    if not isinstance(state.get("model"), Mapping) or "generator" not in state["model"]:
        raise ValueError(f"{model_file}: no model.generator in it")
    weights = plain_weights(named_tensors(state["model"]["generator"], model_file), str(model_file))
    checkpoint.load_weights(flow, weights, str(model_file))
    return Vocoder(flow, convention, training, refine=refine)


def is_coqui(model_file: str | Path) -> bool:
    """Whether a ``config.json`` beside the file says that Coqui's trainer or ``to_coqui`` wrote it."""
    config_file = Path(model_file).parent / coqui_format.CONFIG_FILE
    try:
        return read_mapping(config_file).get("model") == coqui_format.MODEL
    except (OSError, ValueError):
        return False


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
    config = read_mapping(config_file)
    with _named(config_file):
        flow, convention = coqui_format.model_from(config)
        training, refine = dict(config.get("training") or {}), check_rounds(config.get("refine", TRAINED))
    state = read_tensors(model_file)
    if not isinstance(state.get("model"), Mapping):
        raise ValueError(f"{model_file}: no model in it")
    prefix, tensors = coqui_format.PREFIX, named_tensors(state["model"], model_file)
    weights = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    checkpoint.load_weights(flow, plain_weights(weights, str(model_file)), str(model_file))
    if state.get("step"):
        training |= {"trainer": "Coqui TTS", "loss": config.get("loss_params"), "steps": state["step"]}
    return Vocoder(flow, convention, training, refine=refine)


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """``torch.load`` of tensors and plain containers; ValueError for anything else, of which nothing is executed."""
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch stores its records as they are, side by side
                unpacked, size = sum(info.file_size for info in archive.infolist()), path.stat().st_size
            if unpacked > size:
                raise ValueError(f"its records unpack to {unpacked} bytes, the file has {size}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about old pickles
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can make torch raise nearly anything
        # Of torch's page, the line that names what was refused, without the advice to allow it.
        lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
        reason = next((line for line in lines if "WeightsUnpickler" in line), lines[0]).split(". ")[0]
        raise ValueError(f"{path} holds more than tensors, or is damaged: {reason}") from error
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


@contextlib.contextmanager
def _named(path: Path):
    """Whatever a wrong value leads to is a ValueError that names the file."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, KeyError, ArithmeticError) as error:
        raise ValueError(f"{path}: {error}") from error
