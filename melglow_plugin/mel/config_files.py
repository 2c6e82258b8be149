"""Fields of a mel convention from the configuration files of other systems."""

import inspect
from collections.abc import Callable
from pathlib import Path

from melglow_plugin.checks import naming
from melglow_plugin.files import read_mapping
from melglow_plugin.mel.systems import constant_memory, coqui, espnet, hifigan, parallel_wavegan, vocos, waveglow

NAMES = ("config.json", "config.yaml", "config.yml")  # of a configuration in a folder, the first that is there

# Files


def from_file(path: str | Path) -> dict:
    """Fields from a configuration file, or from a folder that holds one.

    Read are: a MelConvention in YAML or JSON; our own ``config.json`` and ``config.yml``; ESPnet's ``config.yaml``
    (its mel before GlobalMVN); Coqui's, HiFi-GAN's, BigVGAN's and NVIDIA WaveGlow's ``config.json``;
    parallel_wavegan's ``config.yml`` (before its stats.h5); UnivNet's and Vocos' YAML; constant-memory-waveglow's JSON.

    Raises:
        ValueError: the file is missing, or none of these; the message names it.
    """
    path = _configuration(Path(path))
    values = read_mapping(path)
    with naming(path):
        _find_statistics(values, path.parent)
        return _fields_of(values)


def is_frame_major(path: str | Path) -> bool:
    """Whether the system of a configuration file keeps its mels as (F, M): ESPnet and parallel_wavegan do.

    Raises:
        ValueError: as :func:`from_file`.
    """
    shape = _shape_of(read_mapping(_configuration(Path(path))))
    return shape is not None and _SHAPES[shape] in (_from_espnet, _from_parallel_wavegan)


def _configuration(path: Path) -> Path:
    if path.is_dir():
        found = [path / name for name in NAMES if (path / name).is_file()]
        if not found:
            raise ValueError(f"{path} holds no {', '.join(NAMES)}")
        path = found[0]
    return path


def _find_statistics(values: dict, folder: Path) -> None:
    """Coqui's ``audio.stats_path``: as it is written, or beside the configuration; ValueError names all places."""
    audio = values.get("audio")
    if not isinstance(audio, dict) or "mel_convention" in values or not audio.get("signal_norm", True):
        return
    stated = audio.get("stats_path")
    if not isinstance(stated, str) or not stated:
        return
    places = [Path(stated), folder / stated, folder / Path(stated.replace("\\", "/")).name]
    if (found := next((place for place in places if place.is_file()), None)) is None:
        raise ValueError(f"stats_path: no such file, neither {', nor '.join(map(str, dict.fromkeys(places)))}")
    audio["stats_path"] = str(found)


def _shape_of(values: dict) -> tuple[str, ...] | None:
    return next((shape for shape in _SHAPES if all(_holds(values, key) for key in shape)), None)


def _fields_of(values: dict) -> dict:
    if (shape := _shape_of(values)) is not None:
        return _SHAPES[shape](values)
    if "sample_rate" in values and {"n_fft", "hop_length", "n_mels"} & set(values):
        return values  # a MelConvention itself
    raise ValueError(
        "no mel configuration: it is none of a MelConvention (sample_rate, n_fft, ...), ESPnet (feats_extract_conf), "
        "Coqui (audio.num_mels, audio.fft_size), HiFi-GAN (n_fft, hop_size), parallel_wavegan (fft_size, hop_size), "
        "WaveGlow (data_config), UnivNet (audio.n_mel_channels), Vocos (feature_extractor), MelSpec (conditioner)"
    )


def _holds(values: dict, dotted: str) -> bool:
    for key in dotted.split("."):
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def _from_espnet(values: dict) -> dict:
    kind = values.get("feats_extract", "fbank")
    if kind != "fbank":
        raise ValueError(f"feats_extract {kind!r} hands no mel to a vocoder, only fbank does")
    return espnet(**(values["feats_extract_conf"] or {}))


def _from_coqui(values: dict) -> dict:
    if str(values.get("model", "")).lower() in ("vits", "xtts", "bark", "tortoise"):
        raise ValueError(f"model {values['model']!r} of Coqui makes its wav itself and gives no mel to a vocoder")
    return values.get("mel_convention") or coqui(values["audio"])  # the former in our own configuration there


def _from_parallel_wavegan(values: dict) -> dict:
    if values.get("sampling_rate_for_feats") not in (None, values["sampling_rate"]):
        raise ValueError(
            f"sampling_rate_for_feats {values['sampling_rate_for_feats']} is not sampling_rate "
            f"{values['sampling_rate']}: mels of resampled recordings are not supported"
        )
    return _by_keywords(parallel_wavegan, {"fmin": None, "fmax": None, **values})


def _by_keywords(system: Callable[..., dict], values: dict) -> dict:
    """Fields of a system that takes the names of its file as keywords; what else the file holds says nothing here."""
    return system(**{name: values[name] for name in inspect.signature(system).parameters if name in values})


def _nvidia(audio: dict) -> dict:
    names = {
        "sampling_rate": "sample_rate", "filter_length": "n_fft", "hop_length": "hop_length",
        "win_length": "win_length", "mel_fmin": "fmin", "mel_fmax": "fmax", "n_mel_channels": "n_mels",
    }  # fmt: skip
    return {ours: audio[theirs] for theirs, ours in names.items() if theirs in audio}


def _from_univnet(values: dict) -> dict:
    f = _nvidia(values["audio"])
    return hifigan(
        f["sample_rate"], f["n_fft"], f["hop_length"], f["win_length"], f["n_mels"], f.get("fmin", 0), f.get("fmax")
    )


def _from_vocos(values: dict) -> dict:
    extractor = values["feature_extractor"]
    if not str(extractor.get("class_path", "")).endswith("MelSpectrogramFeatures"):
        raise ValueError(f"feature_extractor {extractor.get('class_path')!r} is no mel")
    return vocos(**extractor.get("init_args", {}))


_SHAPES = {  # keys that a file of that system holds: its reader
    ("format", "convention"): lambda v: v["convention"],
    ("melglow.convention",): lambda v: v["melglow"]["convention"],
    ("feats_extract_conf",): _from_espnet,
    ("audio.n_mel_channels", "audio.filter_length"): _from_univnet,
    ("audio.num_mels", "audio.fft_size"): _from_coqui,
    ("audio.num_mels", "audio.num_freq"): _from_coqui,
    ("data_config.filter_length",): lambda v: waveglow(**_nvidia(v["data_config"])),
    ("feature_extractor.class_path",): _from_vocos,
    ("conditioner.args.n_fft",): lambda v: constant_memory(**v["conditioner"]["args"]),
    ("sampling_rate", "fft_size", "hop_size"): _from_parallel_wavegan,
    ("sampling_rate", "n_fft", "hop_size"): lambda v: _by_keywords(hifigan, v),
}
