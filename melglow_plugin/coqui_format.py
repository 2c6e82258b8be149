"""How Coqui TTS keeps a MelGlow: ``config.json`` and the weights' names. To read or write them needs no Coqui."""

import inspect
from collections.abc import Mapping

from melglow_plugin.checkpoint import architecture, build
from melglow_plugin.mel import MelConvention
from melglow_plugin.models import MODELS, MelFlow
from melglow_plugin.vocoder import Vocoder

MODEL = "melglow"  # "model" in config.json
PREFIX = "vocoder.flow."  # of the flow's weights in model.pth
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.pth"
# Coqui's Synthesizer undoes the acoustic model's normalisation and applies the vocoder's: these fields decide it.
NORMALISATION = (
    "signal_norm", "min_level_db", "ref_level_db", "symmetric_norm", "max_norm", "clip_norm", "stats_path",
)  # fmt: skip


def model_from(config: Mapping) -> tuple[MelFlow, MelConvention]:
    """A fresh flow and its mel from a configuration: plain values, as in ``config.json``.

    Raises:
        ValueError: a name or a size is none that is possible, or ``mel_convention`` is not what ``audio`` can give.
    """
    kind = config.get("architecture", MODEL)
    if config.get("model") != MODEL or not isinstance(kind, str) or kind not in MODELS:
        raise ValueError(
            f"model {config.get('model')!r}, architecture {kind!r}: wanted model {MODEL!r} with architecture "
            f"{' or '.join(MODELS)}"
        )
    audio = MelConvention.coqui(config.get("audio"))
    exact = config.get("mel_convention")
    convention = MelConvention.from_dict(exact) if exact else audio
    if differences := convention.differences(audio):
        raise ValueError(f"mel_convention is not what audio says (mel_convention -> audio): {'; '.join(differences)}")
    known = inspect.signature(MODELS[kind]).parameters
    sizes = {name: value for name, value in (config.get("model_params") or {}).items() if name in known}
    flow = build(kind, {**sizes, "n_mels": convention.n_mels, "hop_length": convention.hop_length})
    flow.set_mel_bands(*convention.band_powers())
    return flow, convention


def config_of(vocoder: Vocoder) -> dict:
    """``config.json`` of a vocoder; ValueError names what Coqui's ``AudioProcessor`` cannot be told about its mel."""
    convention = vocoder.convention
    config = {
        "model": MODEL,
        "architecture": architecture(vocoder.flow),
        "model_params": {k: v for k, v in vocoder.flow.hyperparameters.items() if k not in ("n_mels", "hop_length")},
        "audio": {
            "sample_rate": convention.sample_rate,
            "fft_size": convention.n_fft,
            "win_length": convention.win_length,
            "hop_length": convention.hop_length,
            "stft_pad_mode": convention.pad_mode,
            "preemphasis": convention.preemphasis,
            "num_mels": convention.n_mels,
            "mel_fmin": convention.fmin,
            "mel_fmax": convention.fmax,
            "log_func": "np.log10",
            "spec_gain": 1,
            "signal_norm": False,
            "do_trim_silence": False,
        },
        "mel_convention": convention.to_dict(),
        "training": vocoder.training_facts,
        "refine": vocoder.refine,
    }
    if differences := convention.differences(MelConvention.coqui(config["audio"])):
        raise ValueError(f"Coqui TTS has no such mel (this vocoder -> Coqui): {'; '.join(differences)}")
    return config
