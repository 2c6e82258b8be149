"""MelGlow as the vocoder of ESPnet2's inference: tts, tts2, svs and s2st, through ``--vocoder_file``."""

import copy
import inspect
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from melglow_plugin.checkpoint import any_file
from melglow_plugin.checkpoint.espnet import ESPNET_TYPE, from_espnet_pack
from melglow_plugin.checkpoint.pretrained import check_fits
from melglow_plugin.espnet.names import INFERENCE, PWG_MODULE, TASKS
from melglow_plugin.files import read_mapping
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.vocoder import Vocoder
from melglow_plugin.watch import wrapping


class EspnetVocoder(nn.Module):
    """A vocoder for ESPnet2's inference: one utterance a call, ``fs`` in Hz.

    ESPnet's mel is frame-major and un-normalised; its convention is :attr:`convention`: the vocoder's own until
    :meth:`set_acoustic_model` is called.
    """

    def __init__(self, vocoder: Vocoder, convention: MelConvention | None = None, sigma: float = 0.6, seed: int = 0):
        super().__init__()
        self.vocoder = vocoder
        self.fs = vocoder.sample_rate
        self.convention = convention or vocoder.convention
        self.sigma, self.seed = sigma, seed

    def forward(self, feats: Tensor, f0: Tensor | None = None) -> Tensor:
        """``feats`` (F, M) -> wav (F * hop_length,); ``f0``, which ESPnet's singing tasks pass, is not used."""
        return self.batch([feats])[0]

    @torch.no_grad()
    def batch(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Utterances (F_i, M) in one padded batch -> their wavs (F_i * hop_length,), as single calls give them."""
        if self.vocoder.flow.mel_mean.dtype != torch.float32:
            self.vocoder.float()  # ESPnet casts all it holds to --dtype; a flow inverts in float32
        lengths = [len(one) for one in feats]
        padded = nn.utils.rnn.pad_sequence([one.detach().float() for one in feats], batch_first=True)
        mel = self.convention.convert(padded.mT, self.vocoder.convention)
        wavs = self.vocoder(mel, lengths, sigma=self.sigma, seed=self.seed)
        return [wav[: n * self.vocoder.hop_length] for wav, n in zip(wavs, lengths, strict=True)]

    def set_acoustic_model(self, feats_extract: nn.Module | None) -> None:
        """Expect an acoustic model's mel from now on; ValueError names every field that no conversion can change."""
        if feats_extract is None:
            return
        convention = convention_of_extractor(feats_extract)
        check_fits(convention, self.vocoder.convention, "the acoustic model")
        self.convention = convention


def convention_of_extractor(feats_extract: nn.Module) -> MelConvention:
    """The convention of an ESPnet feature extractor; ValueError unless it is a ``LogMelFbank``."""
    if not (hasattr(feats_extract, "logmel") and hasattr(feats_extract, "stft")):
        raise ValueError(f"feats_extract is {type(feats_extract).__name__}, this vocoder needs LogMelFbank (fbank)")
    stft, logmel = feats_extract.stft, feats_extract.logmel
    return MelConvention.espnet(
        fs=feats_extract.fs, n_fft=stft.n_fft, hop_length=stft.hop_length, win_length=stft.win_length,
        window=stft.window, center=stft.center, normalized=stft.normalized, onesided=stft.onesided,
        n_mels=feats_extract.n_mels, fmin=logmel.mel_options["fmin"], fmax=logmel.mel_options["fmax"],
        htk=logmel.mel_options["htk"], log_base=logmel.log_base,
    )  # fmt: skip


def names_melglow(model_file: str | Path, config_file: str | Path | None = None) -> bool:
    """Whether ``config.yml`` beside a ``*.pkl`` is that of an exported MelGlow, not of a vocoder of ESPnet's own."""
    config_file = Path(config_file) if config_file else Path(model_file).parent / "config.yml"
    if not config_file.is_file():
        return False
    try:
        return read_mapping(config_file).get("generator_type") == ESPNET_TYPE
    except ValueError:  # Python objects of another vocoder; or our file, damaged, which our reader then refuses
        return ESPNET_TYPE.encode() in config_file.read_bytes()


# Changes of ESPnet's modules, made once they are imported


def patch(module) -> None:
    """Make MelGlow known to one of ESPnet's modules; doing it again changes nothing."""
    if module.__name__ == PWG_MODULE:
        _patch_vocoder_class(module.ParallelWaveGANPretrainedVocoder)
    elif module.__name__ in TASKS:
        _patch_task(getattr(module, TASKS[module.__name__]))
    elif module.__name__ in INFERENCE:
        _patch_inference(getattr(module, INFERENCE[module.__name__]))
        if hasattr(module, "Text2Speech"):
            _patch_batches(module.Text2Speech)


def _patch_vocoder_class(vocoder_class) -> None:
    """ESPnet's class gives a vocoder of ours where the files are those of an exported MelGlow."""

    def new(cls, model_file=None, config_file=None):
        if model_file is not None:
            config_file = Path(config_file or Path(model_file).parent / "config.yml")
            if not config_file.is_file() or not config_file.stat().st_size:
                raise ValueError(
                    f"{config_file} is missing or empty: {model_file} needs it, melglow export writes both"
                )
            if names_melglow(model_file, config_file):
                return EspnetVocoder(Vocoder.from_checkpoint(from_espnet_pack(model_file, config_file)))
        return nn.Module.__new__(cls)

    vocoder_class.__new__ = staticmethod(new)  # of the class itself, which other modules have imported by name


def _patch_task(task) -> None:
    @wrapping(task, "build_vocoder_from_file")
    def build_vocoder_from_file(original, cls, *args, **kwargs):
        given = inspect.signature(original).bind(cls, *args, **kwargs).arguments
        file, model = given.get("vocoder_file"), given.get("model")
        if file and not Path(file).exists():  # ESPnet would look for another package, or for another format
            raise ValueError(f"vocoder_file {file}: no such file")
        if file and is_model(file):
            vocoder = _load(file, given.get("vocoder_config_file")).to(given.get("device", "cpu"))
        else:
            vocoder = original(cls, *args, **kwargs)
        if isinstance(vocoder, EspnetVocoder) and model is not None:
            vocoder.set_acoustic_model(getattr(model, "feats_extract", None))
        return vocoder


def is_model(vocoder_file: str | Path) -> bool:
    """Whether it is a folder, or a file that :mod:`melglow_plugin.checkpoint.any_file` reads and ESPnet does not."""
    return Path(vocoder_file).is_dir() or Path(vocoder_file).suffix in (".safetensors", ".json", ".pth")


def _load(vocoder_file: str | Path, config_file: str | Path | None) -> EspnetVocoder:
    """The model of a folder or a file; ValueError where it is none, or where a configuration is given, too."""
    if config_file:
        raise ValueError(f"vocoder_config {config_file}: leave it out, {vocoder_file} is read with its own")
    exported = Path(vocoder_file) / "checkpoint.pkl"
    return EspnetVocoder(Vocoder.from_checkpoint(any_file.load(exported if exported.is_file() else vocoder_file)))


def _patch_inference(inference) -> None:
    @wrapping(inference, "__init__")
    def init(original, self, *args, **kwargs) -> None:
        original(self, *args, **kwargs)
        if isinstance(self.vocoder, EspnetVocoder) and self.prefer_normalized_feats:
            raise ValueError("prefer_normalized_feats True: this vocoder takes de-normalised mels, leave it out")
        vocoder_file, config_file = kwargs.get("vocoder_file"), kwargs.get("vocoder_config")
        if not vocoder_file or not hasattr(self, "tts") or self.tts.require_vocoder:
            return
        if is_model(vocoder_file) or names_melglow(vocoder_file, config_file):
            logging.warning(
                f"{type(self.tts).__name__} makes its wav itself: --vocoder_file {vocoder_file} is not used by ESPnet"
            )


def _patch_batches(text2speech) -> None:
    @wrapping(text2speech, "batch_call")
    def batch_call(original, self, *args, **kwargs):
        if not isinstance(self.vocoder, EspnetVocoder):
            return original(self, *args, **kwargs)
        silent = copy.copy(self)  # ESPnet makes the mels; its own loop would call the vocoder for one after the other
        silent.vocoder = None
        output = original(silent, *args, **kwargs)
        feats = output.get("feat_gen_denorm")
        feats = output.get("feat_gen") if feats is None else feats
        if feats is not None:
            output["wav"] = self.vocoder.batch(feats)
        return output
