"""ESPnet's files: its trainer's checkpoint, and checkpoint.pkl with config.yml for --vocoder_file."""

from collections.abc import Mapping
from pathlib import Path

from melglow_plugin.checkpoint.checkpoint import Checkpoint
from melglow_plugin.checkpoint.tensors import load_weights, named_tensors, read_tensors, with_config, write_tensors
from melglow_plugin.checks import naming
from melglow_plugin.files import make_folder, read_mapping, write_yaml
from melglow_plugin.inference.resynthesis import default_refine
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.melglow import build

ESPNET_TYPE = "MelGlowVocoder"  # generator_type in config.yml


def from_espnet_trainer(model_file: str | Path, config_file: str | Path | None = None) -> Checkpoint:
    """A model of ESPnet2's trainer, ``*.pth`` with the ``config.yaml`` beside it; averaged weights where it has them.

    Raises:
        ValueError: a file is missing, is no such model, or holds more than tensors.
    """
    model_file, config_file = with_config(model_file, config_file, "config.yaml", "an ESPnet model is a .pth")
    conf = read_mapping(config_file)
    missing = {"vocoder", "vocoder_conf", "feats_extract_conf"} - set(conf)
    if missing:
        raise ValueError(f"{config_file}: no configuration of the MelGlow task, {', '.join(sorted(missing))} missing")
    with naming(config_file):
        flow = build(conf["vocoder"], conf["vocoder_conf"])
        convention = MelConvention.espnet(**conf["feats_extract_conf"])
        checkpoint = Checkpoint(flow, convention, refine=default_refine(convention))
    state = read_tensors(model_file)
    state = named_tensors(state.get("model", state), model_file)
    prefix = "ema.module." if any(key.startswith("ema.module.") for key in state) else "flow."
    load_weights(flow, state, model_file, prefix)
    checkpoint.check_bands(model_file, config_file)
    training = checkpoint.training
    training |= {"trainer": "ESPnet2", "loss": conf.get("loss_conf"), "batch_size": conf.get("batch_size")}
    if conf.get("adversarial_conf"):
        training["adversarial"] = conf["adversarial_conf"]
    if conf.get("init_param"):  # FILE:FROM:TO, as ESPnet's trainer takes them
        training["initialised_from"] = sorted({Path(str(entry).split(":")[0]).name for entry in conf["init_param"]})
    if "steps" in state and state["steps"].numel() == 1:
        training["steps"] = int(state["steps"])
    return checkpoint


def from_espnet_pack(model_file: str | Path, config_file: str | Path | None = None) -> Checkpoint:
    """What :func:`to_espnet` wrote: ``checkpoint.pkl`` with ``config.yml`` beside it.

    Raises:
        ValueError: a file is missing, is not ours, or holds more than tensors.
    """
    model_file, config_file = with_config(model_file, config_file, "config.yml", "an exported model is checkpoint.pkl")
    ours = read_mapping(config_file).get("melglow")
    if not isinstance(ours, dict):
        raise ValueError(f"{config_file}: no configuration of an exported MelGlow")
    with naming(config_file):
        checkpoint = Checkpoint.from_facts(ours)
    state = read_tensors(model_file)
    if not isinstance(state.get("model"), Mapping) or "generator" not in state["model"]:
        raise ValueError(f"{model_file}: no model.generator in it")
    load_weights(checkpoint.flow, named_tensors(state["model"]["generator"], model_file), model_file)
    checkpoint.check_bands(model_file, config_file)
    return checkpoint


def to_espnet(checkpoint: Checkpoint, folder: str | Path) -> tuple[Path, Path]:
    """``checkpoint.pkl`` and ``config.yml``, in the shape that ESPnet's ``--vocoder_file`` expects; returns both.

    Loaded with ``weights_only=True``; the keys besides ``melglow`` are those that ESPnet reads.
    """
    folder = Path(folder)
    make_folder(folder)
    config = {
        "generator_type": ESPNET_TYPE,
        "generator_params": {"out_channels": 1},
        "format": "npy",
        "sampling_rate": checkpoint.convention.sample_rate,
        "hop_size": checkpoint.convention.hop_length,
        "num_mels": checkpoint.convention.n_mels,
        "melglow": checkpoint.facts(),
    }
    write_tensors(folder / "checkpoint.pkl", {"model": {"generator": checkpoint.flow.state_dict()}})
    write_yaml(folder / "config.yml", config)
    return folder / "checkpoint.pkl", folder / "config.yml"
