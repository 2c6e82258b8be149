"""A released model: a folder with ``config.json``, ``model.safetensors`` and a model card. Nothing in it executes."""

import contextlib
import hashlib
import inspect
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from melglow_plugin.config import short
from melglow_plugin.mel import MelConvention
from melglow_plugin.models import MODELS, MelFlow
from melglow_plugin.refine import check_rounds

SCHEMA = 1
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
MAX_CONFIG_BYTES = 1_000_000
MAX_PARAMETERS = 300_000_000  # 1.2 GB; WaveGlow with its 256 channels has 88 million
MAX_SIZES = {"n_flows": 256, "n_layers": 20, "predictor_layers": 64, "lpc_order": 64}  # of the others: 65,536
_KEYS = {"format", "schema", "architecture", "model", "convention", "training"}
_OPTIONAL = {"refine"}
_WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass
class Checkpoint:
    """A flow, what its mel means, and how it was trained (free facts for ``melglow info`` and the model card).

    ``refine``: rounds of refinement after the flow when it speaks.
    """

    flow: MelFlow
    convention: MelConvention
    training: dict = field(default_factory=dict)
    refine: int = 0


def save(folder: str | Path, checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> None:
    """Write the folder; each file appears whole or not at all.

    Args:
        folder: made where it is missing; a model card in it stays.
        checkpoint: what to write.
        dtype: of the trained weights; float16 halves the file. What the mel's numbers mean keeps its precision.

    Raises:
        ValueError: a weight is beyond ``dtype``.
    """
    from safetensors.torch import save as to_bytes

    flow = checkpoint.flow
    config = {
        "format": "melglow",
        "schema": SCHEMA,
        "architecture": architecture(flow),
        "model": flow.hyperparameters,
        "convention": checkpoint.convention.to_dict(),
        "training": checkpoint.training,
        "refine": checkpoint.refine,
    }
    weights = {name: value.detach().contiguous().cpu() for name, value in flow.state_dict().items()}
    for name, _ in flow.named_parameters():
        largest = weights[name].abs().max()
        if largest > torch.finfo(dtype).max:
            raise ValueError(f"{name} reaches {largest:.3g}, {dtype} ends at {torch.finfo(dtype).max:.3g}")
        weights[name] = weights[name].to(dtype)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = to_bytes(weights, {"format": "pt"})
    write_whole(folder / WEIGHTS_FILE, content)
    write_whole(folder / CONFIG_FILE, json.dumps(config, indent=2).encode() + b"\n")
    if not (folder / CARD_FILE).exists():
        write_whole(folder / CARD_FILE, model_card(config, flow, hashlib.sha256(content).hexdigest()).encode())


def load(folder: str | Path) -> Checkpoint:
    """Read a folder that :func:`save` wrote.

    Raises:
        ValueError: a file is missing or damaged, a key is unknown or missing, or a weight has another shape; the
            message names the file, the key and both values.
    """
    folder = Path(folder)
    config = read_config(folder / CONFIG_FILE)
    try:
        flow = build(config["architecture"], config["model"])
        convention = MelConvention.from_dict(config["convention"])
        refine = check_rounds(config.get("refine", 0))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG_FILE}: {error}") from error
    check_fit(flow, convention, str(folder / CONFIG_FILE))
    load_weights(flow, read_safetensors(folder / WEIGHTS_FILE), str(folder / WEIGHTS_FILE))
    return Checkpoint(flow.eval(), convention, config["training"], refine)


def read_config(path: Path) -> dict:
    """``config.json``, its keys and schema checked."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: a model folder holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {MAX_CONFIG_BYTES}: no configuration")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(config, dict) or config.get("format") != "melglow":
        raise ValueError(
            f"{path}: no melglow model, its format is {config.get('format') if isinstance(config, dict) else config!r}"
        )
    if config.get("schema") != SCHEMA:
        raise ValueError(f"{path}: schema {config.get('schema')}, this version reads {SCHEMA}")
    if set(config) - _OPTIONAL != _KEYS:
        raise ValueError(f"{path}: {_difference(set(config) - _OPTIONAL, _KEYS)}")
    for key in ("model", "convention", "training"):
        if not isinstance(config[key], dict):
            raise ValueError(f"{path}: {key} is a {type(config[key]).__name__}, wanted an object")
    return config


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Weights by name; ValueError where the file is missing or damaged."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise ValueError(f"{path} is missing: a model folder holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    try:
        return load_file(path)
    except Exception as error:  # SafetensorError, and whatever torch says about a dtype it does not know
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error


def load_weights(flow: MelFlow, weights: Mapping[str, Tensor], where: str) -> None:
    """Fill ``flow``, strictly; 16-bit weights are widened."""
    wanted = flow.state_dict()
    if set(weights) != set(wanted):
        raise ValueError(f"{where}: {_difference(set(weights), set(wanted))}")
    for name, value in weights.items():
        if value.shape != wanted[name].shape:
            raise ValueError(
                f"{where}: {name} has shape {tuple(value.shape)}, the model wants {tuple(wanted[name].shape)}"
            )
        if value.dtype not in _WEIGHT_DTYPES or not torch.isfinite(value).all():
            raise ValueError(f"{where}: {name} ({value.dtype}) holds values that are no finite floats")
    flow.load_state_dict({name: value.float() for name, value in weights.items()})


def build(architecture: str, sizes: Mapping) -> MelFlow:
    """A fresh flow of values from a file.

    Raises:
        ValueError: an unknown architecture or name, a value of another type than its default, or a size that would
            fill the memory.
    """
    if not isinstance(architecture, str) or architecture not in MODELS:
        raise ValueError(f"architecture {short(architecture)} is none of {', '.join(MODELS)}")
    check_sizes(architecture, sizes)
    return MODELS[architecture](**sizes)


def check_sizes(architecture: str, sizes: Mapping) -> None:
    """ValueError naming the field unless :func:`build` can make such a flow; costs no memory."""
    known = {name: p.default for name, p in inspect.signature(MODELS[architecture]).parameters.items()}
    if unknown := sorted(map(short, set(sizes) - set(known))):
        raise ValueError(f"unknown {', '.join(unknown[:5])}; {architecture} has {', '.join(known)}")
    for name, value in sizes.items():
        default = known[name]
        if type(value) is not type(default) and not (type(default) is float and type(value) is int):
            raise ValueError(f"{name} {short(value)}: wanted {type(default).__name__} as in {default!r}")
        if type(default) is float and not 0 < value < math.inf:
            raise ValueError(f"{name} {value!r} is no finite number above 0")
        lowest, highest = 0 if name in ("predictor_layers", "lpc_order") else 1, MAX_SIZES.get(name, 65_536)
        if type(default) is int and not lowest <= value <= highest:
            raise ValueError(f"{name} {value} does not lie between {lowest} and {highest}")
    if (most := most_parameters(**{**known, **sizes})) > MAX_PARAMETERS:
        raise ValueError(f"{architecture} of these sizes has about {most:,} parameters, more than {MAX_PARAMETERS:,}")


def most_parameters(
    n_mels: int, squeeze_factor: int, n_flows: int, channels: int, n_layers: int, kernel_size: int,
    predictor_channels: int = 0, predictor_layers: int = 0, **_,
) -> int:  # fmt: skip
    """An upper bound of a flow's parameters, without making one; a predictor of width 0 is WaveGlow's."""
    layer = (predictor_channels + 1) * (kernel_size * channels + 1) * 2 * channels
    layer += 2 * channels * (channels + 3 * n_mels + squeeze_factor + 2)
    reading = predictor_channels * (5 * n_mels + predictor_layers * (3 * predictor_channels + 1) + 1)
    return n_flows * (n_layers * layer + reading + squeeze_factor * (squeeze_factor + channels + 2)) + n_mels + 1


def check_fit(flow: MelFlow, convention: MelConvention, where: str) -> None:
    """ValueError unless the model and its mel agree on what both state."""
    for name in ("n_mels", "hop_length"):
        if getattr(flow, name) != getattr(convention, name):
            raise ValueError(
                f"{where}: {name} {getattr(flow, name)} in model, {getattr(convention, name)} in convention"
            )


def architecture(flow: MelFlow) -> str:
    """The name under which ``flow``'s class is registered."""
    return next(name for name, cls in MODELS.items() if type(flow) is cls)


def write_whole(path: Path, content: bytes) -> None:
    """A file that appears whole or not at all."""
    with whole_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def whole_file(path: str | Path, tag: object = None) -> Iterator[BinaryIO]:
    """Write under a temporary name, flush to disk, rename: a reader sees the old file or the new one.

    Args:
        path: the file.
        tag: part of the temporary name; None: the process's number. With a constant, what a killed writer left behind
            is written over by the next one.

    Raises:
        OSError: naming ``path``.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid() if tag is None else tag}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # a full disk, met while writing
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def model_card(config: dict, flow: MelFlow, sha256: str = "", name: str = "this folder") -> str:
    """A README for the folder, from what the configuration says.

    ``training`` may hold ``license``, ``data`` and ``metrics`` (a dict of figures), which get places of their own.
    """
    parameters = sum(p.numel() for p in flow.parameters())
    convention, training = config["convention"], dict(config["training"])
    licence, metrics = training.pop("license", "apache-2.0"), training.pop("metrics", {})
    data = training.pop("data", None)
    tables = [("metric", metrics if isinstance(metrics, dict) else {"": metrics}), ("training", training)]
    return (
        "---\nlibrary_name: melglow_plugin\npipeline_tag: text-to-speech\n"
        f"license: {json.dumps(licence)}\ntags: [vocoder, {config['architecture']}]\n---\n"
        f"# {config['architecture']}, {parameters:,} parameters\n\n"
        "A flow vocoder: mel in, audio out, exact likelihoods.\n\n"
        "```python\nfrom melglow_plugin import Vocoder\n"
        f"vocoder = Vocoder.from_pretrained({json.dumps(name)})\n"
        f"wav = vocoder(mel)  # ({convention['n_mels']}, F) -> (T,)\n```\n\n"
        f"Mel: {convention['sample_rate']} Hz, FFT {convention['n_fft']}, hop {convention['hop_length']}, "
        f"{convention['n_mels']} bins, {convention['fmin']:g} to {convention['fmax']:g} Hz (`config.json`).\n"
        + _refinement(config.get("refine", 0))
        + (f"\nData: {data}\n" if data else "")
        + f"\nLicence: {licence}\n"
        + "".join(_table(head, rows) for head, rows in tables if rows)
        + (f"\nsha256 of `{WEIGHTS_FILE}`: `{sha256}`\n" if sha256 else "")
    )


def _refinement(rounds: int) -> str:
    if rounds == 0:
        return ""
    said = "One round of refinement brings" if rounds == 1 else f"{rounds} rounds of refinement bring"
    return f"\n{said} what the flow drew nearer to the mel; `vocoder(mel, refine=0)` is the flow's own sample.\n"


def _table(head: str, rows: dict) -> str:
    def said(value) -> str:
        return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)

    lines = "".join(f"| {key} | {' '.join(said(value).split())} |\n" for key, value in rows.items())
    return f"\n| {head} | |\n| --- | --- |\n{lines}"


def _difference(found: set, wanted: set) -> str:
    """What is missing and what is unknown, by name."""
    parts = [
        f"{word} {', '.join(sorted(map(str, keys))[:5])}{' and more' if len(keys) > 5 else ''}"
        for word, keys in (("missing", wanted - found), ("unknown", found - wanted))
        if keys
    ]
    return "; ".join(parts)
