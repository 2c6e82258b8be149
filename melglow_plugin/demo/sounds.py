"""What the page asks for: a sentence or a recording through a vocoder, with readings, and HiFi-GAN beside it."""

import importlib.util
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import melglow_plugin
from melglow_plugin.checkpoint.pretrained import pretrained_model, pretrained_models
from melglow_plugin.evaluation import hifigan
from melglow_plugin.files import read_any_wav
from melglow_plugin.inference.resynthesis import RESYNTHESIS
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.loss import bits_per_sample
from melglow_plugin.training.resample import resample
from melglow_plugin.vocoder import Vocoder

ROOT = Path(melglow_plugin.__file__).parents[1]
VOICE_SCRIPT = ROOT / "egs" / "ljspeech" / "tts1" / "voice.py"  # it is in the repository, not in the package
VOICE = ROOT / "pretrained" / "fastspeech2_ljspeech"
LONGEST = 60  # seconds


@dataclass(frozen=True)
class Settings:
    """Of one press of the button.

    Args:
        vocoder: a model folder or Hub id.
        with_hifigan: synthesize with trained HiFi-GAN V1, too.
    """

    vocoder: str
    sigma: float = 0.6
    refine: int | str = RESYNTHESIS
    sharpen: float = 1.0
    seed: int = 0
    device: str = "cpu"
    with_hifigan: bool = False


@dataclass
class Sounds:
    """What the page shows.

    Args:
        mel: the vocoder's input in dB, (M, F).
        wavs: system -> (T,), a recording before what was made of it.
        seconds: system -> time of computing.
        readings: what was measured, in words: of ``mel``, or of a system's wav.
        notes: what was changed on the way.
    """

    sample_rate: int  # Hz
    mel: np.ndarray
    wavs: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    readings: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def models() -> dict[str, str]:
    """name -> folder of the released vocoders, the default one first; ValueError: none is here."""
    return {folder.name: str(folder) for folder in pretrained_models() or [pretrained_model()]}


@cache
def vocoder(name: str, device: str) -> Vocoder:
    """The vocoder of a folder or Hub name, on ``device``; once loaded, it is kept."""
    return Vocoder.from_pretrained(name, device)


def copy(path: str | Path | None, settings: Settings) -> Sounds:
    """Copy-synthesis of a recording at any sample rate.

    Raises:
        ValueError: there is no file, or it is too short or cannot be read, as
            :func:`melglow_plugin.files.read_any_wav` says; the message names it without the folder of uploads.
    """
    chosen = vocoder(settings.vocoder, settings.device)
    if path is None:
        raise ValueError("no recording: drop one, choose a file, or record one")
    name = Path(path).name
    try:
        return _copied(Path(path), chosen, settings)
    except ValueError as error:
        message = str(error).replace(str(path), name)
        raise ValueError(message if name in message else f"{name}: {message}") from error


def _copied(path: Path, chosen: Vocoder, settings: Settings) -> Sounds:
    rate, notes = chosen.sample_rate, []
    wav, source_rate = read_any_wav(path)
    if len(wav) > LONGEST * source_rate:
        wav = wav[: LONGEST * source_rate]
        notes.append(f"the first {LONGEST} seconds")
    if source_rate != rate:
        wav = resample(wav, source_rate, rate)
        notes.append(f"resampled from {source_rate} Hz to the model's {rate} Hz")
    mel = chosen.convention.extract(wav)
    sounds = _synthesized(chosen, mel, settings)
    sounds.wavs = {"recording": wav.numpy()} | {name: made[: len(wav)] for name, made in sounds.wavs.items()}
    sounds.notes[:0] = notes
    sounds.readings |= _likelihood("recording", chosen, wav, mel)
    if settings.with_hifigan and rate == hifigan.CONVENTION.sample_rate:
        _add_hifigan(sounds, lambda: hifigan.copy(wav)[: len(wav)])
    elif settings.with_hifigan:
        sounds.notes.append(f"HiFi-GAN makes {hifigan.CONVENTION.sample_rate} Hz, not {rate} Hz")
    return sounds


def speak(text: str, settings: Settings) -> Sounds:
    """A sentence through the released ESPnet voice.

    Raises:
        ValueError: there is no text, or the vocoder's mel cannot be made of the voice's.
    """
    if not text.strip():
        raise ValueError("no text: type a sentence")
    if fault := voice_fault():
        raise ValueError(fault)
    chosen = vocoder(settings.vocoder, settings.device)
    start = time.perf_counter()
    feats, convention = _acoustic_model(text)
    spent = time.perf_counter() - start
    approximate = bool(convention.differences(chosen.convention))
    sounds = _synthesized(chosen, convention.convert(feats, chosen.convention, approximate), settings)
    sounds.seconds["acoustic model"] = spent
    if approximate:
        sounds.notes.append(f"the mel was converted: {convention.approximation(chosen.convention)}")
    if settings.with_hifigan:
        _add_hifigan(sounds, lambda: hifigan.synthesize(feats, convention))
    return sounds


def _synthesized(chosen: Vocoder, mel: Tensor, settings: Settings) -> Sounds:
    """A mel (M, F) through the vocoder."""
    start = time.perf_counter()
    wav = chosen(mel, sigma=settings.sigma, seed=settings.seed, refine=settings.refine, sharpen=settings.sharpen).cpu()
    spent, name = time.perf_counter() - start, type(chosen.flow).__name__
    found = chosen.mel_mismatch(mel)
    unknown, known = "mel too short to compare", f"mel mismatch {found:.2f}; up to 1 in the right convention"
    decibels = mel * (chosen.convention.nats_per_unit * 20 / np.log(10))
    readings = {"mel": unknown if np.isnan(found) else known, **_likelihood(name, chosen, wav, mel)}
    return Sounds(chosen.sample_rate, decibels.numpy(), {name: wav.numpy()}, {name: spent}, readings)


def _likelihood(name: str, chosen: Vocoder, wav: Tensor, mel: Tensor) -> dict[str, str]:
    """The reading of a wav under the model, if the model has a likelihood."""
    if not chosen.flow.has_likelihood:
        return {}
    return {name: f"{float(bits_per_sample(chosen.score(wav, mel))[0]):.2f} bits per sample under the model"}


def _add_hifigan(sounds: Sounds, synthesize) -> None:
    hifigan.generator()  # loading does not count
    start = time.perf_counter()
    sounds.wavs["HiFi-GAN V1"] = synthesize().numpy()
    sounds.seconds["HiFi-GAN V1"] = time.perf_counter() - start


# The voice


def voice_fault() -> str:
    """Why sentences cannot be synthesized here, in a line; empty: they can."""
    if not (VOICE_SCRIPT.is_file() and VOICE.is_dir()):
        return "Sentences need a checkout of the repository: the voice is in its egs and pretrained folders."
    missing = [name for name in ("espnet2", "phonemizer", "espeakng_loader") if not importlib.util.find_spec(name)]
    return f'Sentences need {", ".join(missing)}: pip install "melglow-plugin[speak]"' if missing else ""


def _acoustic_model(text: str) -> tuple[Tensor, MelConvention]:
    """The mel (M, F) of a sentence, and its convention."""
    with torch.inference_mode():
        feats = _text2speech()(text)["feat_gen_denorm"].T.clone()
    return feats.cpu(), MelConvention.from_file(VOICE / "config.yaml")


@cache
def _text2speech():
    specification = importlib.util.spec_from_file_location("melglow_voice", VOICE_SCRIPT)
    voice = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(voice)
    found = voice.text2speech(VOICE)
    found.vocoder = None  # the page's own is applied to the mel
    return found
