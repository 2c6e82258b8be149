"""Coqui TTS's files: config.json and model.pth. To read or write them needs no Coqui."""

import inspect
from collections.abc import Mapping
from pathlib import Path

from melglow_plugin.checkpoint.checkpoint import Checkpoint
from melglow_plugin.checkpoint.tensors import load_weights, named_tensors, read_tensors, with_config, write_tensors
from melglow_plugin.checks import naming
from melglow_plugin.files import make_folder, read_mapping, write_json
from melglow_plugin.inference.resynthesis import default_refine
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.mel.systems import COQUI_NAMES
from melglow_plugin.model.melglow import MODELS, build

PREFIX = "vocoder.flow."  # of the weights in model.pth
GENERATOR = "model_g."  # before it, in Coqui's GAN
# "model" in config.json -> where the sizes stand, the prefix of the weights, and the architectures
MODELS_OF_COQUI = {
    "melglow": ("model_params", PREFIX, ("melglow", "waveglow")),
    "lvcnet": ("generator_model_params", GENERATOR + PREFIX, ("lvcnet",)),
}
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.pth"
# Coqui's Synthesizer undoes the acoustic model's normalisation and applies the vocoder's: these fields decide it.
NORMALISATION = (
    "signal_norm", "min_level_db", "ref_level_db", "symmetric_norm", "max_norm", "clip_norm", "stats_path",
)  # fmt: skip


def is_coqui(model_file: str | Path, config_file: str | Path | None = None) -> bool:
    """Whether a ``config.json``, by default beside the file, says that Coqui's trainer or ``to_coqui`` wrote it."""
    config_file = config_file or Path(model_file).parent / CONFIG_FILE
    try:
        return _named(read_mapping(Path(config_file))) in MODELS_OF_COQUI
    except (OSError, ValueError):
        return False


def _named(config: Mapping) -> str:
    """The model of a configuration, as Coqui finds it; empty: none is named."""
    name = config.get("model", config.get("generator_model"))
    return name.removesuffix("_generator").lower() if isinstance(name, str) else ""


def from_coqui(model_file: str | Path, config_file: str | Path | None = None) -> Checkpoint:
    """A model of Coqui's trainer, or of :func:`to_coqui`: ``*.pth``, ``config.json`` beside it.

    Raises:
        ValueError: a file is missing, is not ours, or holds more than tensors.
    """
    model_file, config_file = with_config(model_file, config_file, CONFIG_FILE, "a Coqui model is a .pth")
    config = read_mapping(config_file)
    with naming(config_file):
        checkpoint = model_from(config)
    state = read_tensors(model_file)
    if not isinstance(state.get("model"), Mapping):
        raise ValueError(f"{model_file}: no model in it")
    prefix = MODELS_OF_COQUI[_named(config)][1]
    load_weights(checkpoint.flow, named_tensors(state["model"], model_file), model_file, prefix)
    checkpoint.check_bands(model_file, config_file)
    if state.get("step"):
        checkpoint.training |= {"trainer": "Coqui TTS", "loss": config.get("loss_params"), "steps": state["step"]}
    return checkpoint


def to_coqui(checkpoint: Checkpoint, folder: str | Path) -> tuple[Path, Path]:
    """``model.pth`` and ``config.json``, for Coqui's ``--vocoder_path`` and ``--vocoder_config_path``; returns both.

    Loaded with ``weights_only=True``; Coqui's trainer can start from them (``--restore_path``).

    Raises:
        ValueError: Coqui cannot make this model's mel; the message names the fields.
    """
    config = config_of(checkpoint)
    folder = Path(folder)
    make_folder(folder)
    prefix = MODELS_OF_COQUI[config["model"]][1]
    state = {"model": {f"{prefix}{name}": value.cpu() for name, value in checkpoint.flow.state_dict().items()}}
    if prefix != PREFIX:  # Coqui's GAN then takes the generator alone
        state["model_disc"] = {}
    write_tensors(folder / WEIGHTS_FILE, {**state, "step": 0, "epoch": 0})
    write_json(folder / CONFIG_FILE, config)
    return folder / WEIGHTS_FILE, folder / CONFIG_FILE


def model_from(config: Mapping) -> Checkpoint:
    """A checkpoint with fresh weights from a configuration: plain values, as in ``config.json``.

    Raises:
        ValueError: a name or a size is none that is possible, or ``mel_convention`` is not what ``audio`` can give.
    """
    name = _named(config)
    kind = config.get("architecture", name)
    if name not in MODELS_OF_COQUI or kind not in MODELS_OF_COQUI[name][2]:
        raise ValueError(
            f"model {name!r}, architecture {kind!r}: wanted model 'melglow' with architecture melglow or waveglow, or "
            "model 'lvcnet'"
        )
    audio = MelConvention.coqui(config.get("audio"))
    exact = config.get("mel_convention")
    convention = MelConvention.from_dict(exact) if exact else audio
    if differences := convention.differences(audio):
        raise ValueError(f"mel_convention is not what audio says (mel_convention -> audio): {'; '.join(differences)}")
    # Coqui's configuration holds the sizes of every architecture.
    others = {name for model in MODELS.values() for name in inspect.signature(model).parameters}
    others -= set(inspect.signature(MODELS[kind]).parameters)
    sizes = {name: value for name, value in (config.get(MODELS_OF_COQUI[name][0]) or {}).items() if name not in others}
    flow = build(kind, {**sizes, "n_mels": convention.n_mels, "hop_length": convention.hop_length})
    flow.set_mel_bands(*convention.band_powers())
    refine, sharpen = config.get("refine", default_refine(convention)), config.get("sharpen", 1.0)
    return Checkpoint(flow, convention, dict(config.get("training") or {}), refine, sharpen)


def config_of(checkpoint: Checkpoint) -> dict:
    """``config.json`` of a checkpoint; ValueError names what Coqui's ``AudioProcessor`` cannot do of its mel."""
    convention, facts = checkpoint.convention, checkpoint.facts()
    kind = facts["architecture"]
    model = next(name for name, (_, _, kinds) in MODELS_OF_COQUI.items() if kind in kinds)
    config = {
        "model": model,
        **({"architecture": kind} if model == "melglow" else {"generator_model": "lvcnet_generator"}),
        MODELS_OF_COQUI[model][0]: {k: v for k, v in facts["model"].items() if k not in ("n_mels", "hop_length")},
        "audio": {
            **{theirs: getattr(convention, ours) for theirs, ours in COQUI_NAMES.items()},
            "log_func": "np.log10",
            "spec_gain": 1,
            "signal_norm": False,
            "do_trim_silence": False,
        },
        "mel_convention": facts["convention"],
        "training": facts["training"],
        "refine": facts["refine"],
        "sharpen": facts["sharpen"],
    }
    if differences := convention.differences(MelConvention.coqui(config["audio"])):
        raise ValueError(f"Coqui TTS has no such mel (this model -> Coqui): {'; '.join(differences)}")
    return config
