"""How other systems spell their mels -> fields of :class:`melglow_plugin.mel.convention.MelConvention`."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# (n_fft, hop_length) in samples where a system names none for that rate: about 10 ms, windows of four hops.
SIZES = {16_000: (1024, 256), 22_050: (1024, 256), 24_000: (1024, 256), 44_100: (2048, 512), 48_000: (2048, 512)}
FULL_BAND = 44_100  # Hz; from here on the mel reaches half the rate


def espnet(**conf) -> dict:
    """Keywords of ESPnet's ``LogMelFbank``: log10 of the amplitude mel; amplitudes are clamped before the mel."""
    names = {"fs": "sample_rate", "n_shift": "hop_length"}
    same = {"n_fft", "hop_length", "win_length", "window", "center", "n_mels", "fmin", "fmax", "log_base"}
    fields: dict[str, Any] = {"spectrum_floor": 1e-5, "floor": 1e-10}
    for key, value in conf.items():
        if key in ("normalized", "onesided"):
            if value != (key == "onesided"):
                raise ValueError(f"ESPnet's {key} = {value} is not supported, only {key == 'onesided'}")
        elif key == "htk":
            fields["mel_scale"] = "htk" if value else "slaney"
        elif key in names or key in same:
            fields[names.get(key, key)] = value
        else:
            raise ValueError(f"{key!r} is no keyword of ESPnet's LogMelFbank")
    if isinstance(fields.get("sample_rate"), str):  # ESPnet allows "22050" and "24k"
        text = fields["sample_rate"].strip().lower()
        fields["sample_rate"] = round(float(text[:-1]) * 1000) if text.endswith("k") else int(text)
    for key, none_means in (("log_base", math.e), ("fmin", 0.0), ("window", "none")):
        if key in fields and fields[key] is None:
            fields[key] = none_means
    return fields


def parallel_wavegan(
    sampling_rate=22_050, fft_size=1024, hop_size=256, win_length=None, window="hann", num_mels=80, fmin=80, fmax=7600
) -> dict:
    """Keywords of parallel_wavegan's ``config.yml``: log10 of the amplitude mel, clamped after it; un-normalised."""
    return {
        "sample_rate": sampling_rate, "n_fft": fft_size, "hop_length": hop_size, "win_length": win_length,
        "window": window or "none", "n_mels": num_mels, "fmin": fmin or 0.0, "fmax": fmax, "floor": 1e-10,
    }  # fmt: skip


def hifigan(sampling_rate=22_050, n_fft=1024, hop_size=256, win_size=1024, num_mels=80, fmin=0, fmax=8000) -> dict:
    """Keywords of the ``config.json`` of HiFi-GAN and BigVGAN; UnivNet's mel is the same."""
    return {
        "sample_rate": sampling_rate, "n_fft": n_fft, "hop_length": hop_size, "win_length": win_size, "center": False,
        "pad": (n_fft - hop_size) // 2, "n_mels": num_mels, "fmin": fmin, "fmax": fmax, "spectrum_eps": 1e-9,
        "log_base": math.e, "floor": 1e-5,
    }  # fmt: skip


def waveglow(**fields) -> dict:
    """NVIDIA's Tacotron 2 and WaveGlow; ``fields`` replace its own."""
    return {"fmin": 0, "fmax": 8000, "log_base": math.e, "floor": 1e-5, **fields}


def vocos(sample_rate=24_000, n_fft=1024, hop_length=256, n_mels=100, padding="center") -> dict:
    """Keywords of ``vocos.feature_extractors.MelSpectrogramFeatures``: torchaudio's HTK filters of equal height."""
    if padding not in ("center", "same"):
        raise ValueError(f"Vocos' padding {padding!r} is neither center nor same")
    frames = {"center": True} if padding == "center" else {"center": False, "pad": (n_fft - hop_length) // 2}
    return {
        "sample_rate": sample_rate, "n_fft": n_fft, "hop_length": hop_length, "n_mels": n_mels, "fmin": 0.0,
        "fmax": None, "mel_scale": "htk", "mel_norm": "none", "log_base": math.e, "floor": 1e-7, **frames,
    }  # fmt: skip


def constant_memory(sr=22_050, n_fft=1024, hop_length=256, n_mels=80, f_min=60, f_max=7600) -> dict:
    """Keywords of ``MelSpec`` in constant-memory-waveglow, whose MelGlow is this paper's first implementation.

    ln of the power mel plus 1e-7. It pads hop_length samples more behind than before: it has one last frame more.
    """
    return {
        "sample_rate": sr, "n_fft": n_fft, "hop_length": hop_length, "center": False,
        "pad": n_fft // 2 - hop_length // 2, "n_mels": n_mels, "fmin": f_min, "fmax": f_max, "mel_scale": "htk",
        "mel_norm": "none", "power": 2.0, "log_base": math.e, "eps": 1e-7, "floor": 1e-10,
    }  # fmt: skip


# 20 log10 - 20 dB, from -100 dB on, as a share of 100 dB: the [0, 1] of the Tacotron of K. Ito and its descendants.
_UNIT_RANGE = {"log_base": 10.0, "gain": 20.0, "floor": 1e-5, "scale": 0.01, "shift": 0.8, "clip": (0.0, 1.0)}


def lvcnet(**fields) -> dict:
    """LVCNet's ``TacotronSTFT``; ``fields`` replace its own."""
    return {"fmin": 70, "fmax": 8000, **_UNIT_RANGE, **fields}


def wg_wavenet(**fields) -> dict:
    """WG-WaveNet's ``utils/audio.py``, with pre-emphasis; ``fields`` replace its own.

    It scales recordings to a peak of 1 first. Padding as librosa's default was in 2020.
    """
    own = {"hop_length": 200, "win_length": 800, "fmin": 0, "fmax": 8000, "preemphasis": 0.97}
    return {**own, **_UNIT_RANGE, **fields}


def coqui(audio=None, mean=None, std=None) -> dict:
    """``BaseAudioConfig`` of Coqui's ``AudioProcessor``, its dict, or None for its defaults."""
    given = {} if audio is None else audio if isinstance(audio, Mapping) else audio.to_dict()
    conf: dict[str, Any] = {**_COQUI_DEFAULTS, **given}
    unknown = sorted(set(conf) - set(_COQUI_DEFAULTS) - _COQUI_UNUSED)
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no field of Coqui's audio configuration")
    if conf["hop_length"] is None:  # as AudioProcessor does: milliseconds count only then
        if not conf["frame_shift_ms"] or not conf["frame_length_ms"]:
            raise ValueError("hop_length None needs frame_shift_ms and frame_length_ms")
        conf["win_length"] = int(conf["frame_length_ms"] / 1000 * conf["sample_rate"])
        conf["hop_length"] = int(conf["win_length"] / (conf["frame_length_ms"] / conf["frame_shift_ms"]))
    if not conf["do_amp_to_db_mel"]:
        raise ValueError("do_amp_to_db_mel = False: a mel without a logarithm is not supported")
    if conf["log_func"] not in ("np.log10", "np.log"):
        raise ValueError(f"log_func {conf['log_func']!r} is neither np.log10 nor np.log")
    for key in ("do_sound_norm", "do_rms_norm"):
        if conf[key]:
            raise ValueError(f"{key} = True changes the level of every recording before its mel: not supported")
    if conf["stats_path"] and conf["signal_norm"] and mean is None:
        mean, std = _read_coqui_stats(conf["stats_path"])
    return {
        **{ours: conf[theirs] for theirs, ours in COQUI_NAMES.items()},
        "log_base": 10.0 if conf["log_func"] == "np.log10" else math.e, "gain": float(conf["spec_gain"]),
        "floor": 1e-8, "mean": mean, "std": std, **({} if mean is not None else _coqui_range(conf)),
    }  # fmt: skip


# Presets


def preset(name: str, sample_rate: int | None = None, **fields) -> dict:
    """The mel of a system by its name, at its own rate or another.

    Args:
        name: one of ``PRESETS``.
        sample_rate: Hz; None: the system's own.
        **fields: of MelConvention, replacing the preset's.

    Raises:
        ValueError: the name is unknown, or the rate is none of ``SIZES`` and ``fields`` hold no n_fft and hop_length.
    """
    if name not in PRESETS:
        raise ValueError(f"{name!r} is none of the presets {', '.join(PRESETS)}")
    own_rate, make = PRESETS[name]
    rate = own_rate if sample_rate is None else sample_rate
    if rate not in SIZES and not {"n_fft", "hop_length"} <= set(fields):
        raise ValueError(f"sample_rate {rate} is none of {', '.join(map(str, SIZES))}: give n_fft and hop_length, too")
    sizes = {**dict(zip(("n_fft", "hop_length"), SIZES.get(rate, ()), strict=False)), **fields}
    return {**make(rate, sizes["n_fft"], sizes["hop_length"]), **fields}


def _up_to(fmax: float, rate: int) -> float | None:
    return None if rate >= FULL_BAND or 2 * fmax > rate else fmax


def _at_espnet(rate: int, n_fft: int, hop: int) -> dict:
    # The 24 kHz recipes of ESPnet and parallel_wavegan (LibriTTS, JSUT, CSMSC).
    n_fft, hop, win = (2048, 300, 1200) if (rate, n_fft, hop) == (24_000, 1024, 256) else (n_fft, hop, None)
    return espnet(fs=rate, n_fft=n_fft, hop_length=hop, win_length=win, fmax=_up_to(7600, rate))


def _at_bigvgan(rate: int, n_fft: int, hop: int) -> dict:
    bins = 128 if rate >= FULL_BAND else 100 if rate == 24_000 else 80
    return hifigan(rate, n_fft, hop, n_fft, bins, fmax=None if rate == 24_000 else _up_to(8000, rate))


def _at_wg_wavenet(rate: int, n_fft: int, hop: int) -> dict:
    hop = {256: 200, 512: 400}.get(hop, hop)
    return wg_wavenet(sample_rate=rate, n_fft=n_fft, hop_length=hop, win_length=4 * hop, fmax=_up_to(8000, rate))


# name: (its own rate in Hz, fields at a rate with n_fft and hop_length)
PRESETS: dict[str, tuple[int, Callable[[int, int, int], dict]]] = {
    "espnet": (22_050, _at_espnet),
    "parallel_wavegan": (22_050, lambda rate, n, hop: {**_at_espnet(rate, n, hop), "spectrum_floor": 0.0}),
    "coqui": (22_050, lambda rate, n, hop: coqui(
        {"sample_rate": rate, "fft_size": n, "win_length": n, "hop_length": hop}
    )),
    "waveglow": (22_050, lambda rate, n, hop: waveglow(
        sample_rate=rate, n_fft=n, hop_length=hop, fmax=_up_to(8000, rate)
    )),
    "hifigan": (22_050, lambda rate, n, hop: hifigan(rate, n, hop, n, fmax=_up_to(8000, rate))),
    "bigvgan": (24_000, _at_bigvgan),
    "univnet": (24_000, lambda rate, n, hop: hifigan(rate, n, hop, n, 100, fmax=_up_to(12_000, rate))),
    "vocos": (24_000, vocos),
    "constant_memory": (22_050, lambda rate, n, hop: constant_memory(rate, n, hop, f_max=_up_to(7600, rate))),
    "lvcnet": (22_050, lambda rate, n, hop: lvcnet(
        sample_rate=rate, n_fft=n, hop_length=hop, fmax=_up_to(8000, rate)
    )),
    "wg_wavenet": (22_050, _at_wg_wavenet),
}  # fmt: skip

COQUI_NAMES = {  # fields of BaseAudioConfig that are those of MelConvention under another name
    "sample_rate": "sample_rate", "fft_size": "n_fft", "win_length": "win_length", "hop_length": "hop_length",
    "stft_pad_mode": "pad_mode", "preemphasis": "preemphasis", "num_mels": "n_mels", "mel_fmin": "fmin",
    "mel_fmax": "fmax",
}  # fmt: skip
_COQUI_DEFAULTS = {
    "fft_size": 1024, "win_length": 1024, "hop_length": 256, "frame_shift_ms": None, "frame_length_ms": None,
    "stft_pad_mode": "reflect", "sample_rate": 22_050, "preemphasis": 0.0, "ref_level_db": 20, "do_sound_norm": False,
    "log_func": "np.log10", "do_rms_norm": False, "num_mels": 80, "mel_fmin": 0.0, "mel_fmax": None, "spec_gain": 20,
    "do_amp_to_db_mel": True, "signal_norm": True, "min_level_db": -100, "symmetric_norm": True, "max_norm": 4.0,
    "clip_norm": True, "stats_path": None,
}  # fmt: skip
_COQUI_UNUSED = {  # num_freq: of Mozilla TTS; Coqui TTS reads fft_size alone
    "num_freq", "resample", "do_trim_silence", "trim_db", "db_level", "power", "griffin_lim_iters",
    "do_amp_to_db_linear", "pitch_fmax", "pitch_fmin",
}  # fmt: skip


def _coqui_range(conf: Mapping) -> dict:
    if not conf["signal_norm"]:
        return {}
    top, lowest, reference = conf["max_norm"], conf["min_level_db"], conf["ref_level_db"]
    span = (2 if conf["symmetric_norm"] else 1) * top
    bottom = -top if conf["symmetric_norm"] else 0.0
    return {
        "scale": span / -lowest,
        "shift": span * (-reference - lowest) / -lowest + bottom,
        "clip": (bottom, top) if conf["clip_norm"] else None,
    }


def _read_coqui_stats(path) -> tuple[list[float], list[float]]:
    import pickle

    class NumpyOnly(pickle.Unpickler):
        def find_class(self, module: str, name: str):
            if module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype", "scalar"):
                return super().find_class(module, name)
            raise ValueError(f"it must hold numbers only, and names {module}.{name}")

    if not Path(path).is_file():
        raise ValueError(f"stats_path {path}: no such file")
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
            stats = NumpyOnly(file).load().item()
        return [float(v) for v in stats["mel_mean"]], [float(v) for v in stats["mel_std"]]
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"stats_path {path} holds no statistics: {error}") from error
