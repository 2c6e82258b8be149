"""The configuration of MelGlow in Coqui TTS: ``"model": "melglow"`` in ``config.json``."""

# Coqui calls a configuration whose import fails "not found": nothing optional is imported here.
import dataclasses
import inspect
import warnings
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from coqpit import Coqpit
from TTS.config.shared_configs import BaseAudioConfig, ModelArgs
from TTS.vocoder.configs.shared_configs import BaseVocoderConfig

from melglow_plugin.checks import plain, under_new_names
from melglow_plugin.inference.noise import check_sigma, checked_seed
from melglow_plugin.inference.resynthesis import RESYNTHESIS, check_kind
from melglow_plugin.inference.sharpening import check_strength
from melglow_plugin.model.lvcnet_generator import LVCNetGenerator
from melglow_plugin.model.melglow import MelGlow
from melglow_plugin.training.objective import LossConfig

ADDED_BY_THE_TRAINER = {"restore_path", "github_branch"}
# Fields of Coqui's vocoders that mean nothing here, and why.
NOT_READ = {
    "use_noise_augment": "16-bit dequantisation noise is always added",
    "pad_short": "short recordings are padded to a crop as they are",
    "conv_pad": "crops carry the context that their mels need",
    "use_cache": "reading a recording costs little",
    "wd": "weight decay belongs in optimizer_params",
    "scheduler_after_epoch": "Coqui's Trainer 0.4 steps the scheduler of a single optimizer after every step only",
}


def args_of(name: str, make: Callable, **defaults) -> type[ModelArgs]:
    """A section of a configuration: the arguments of ``make`` but for those of the mel, which follow from ``audio``.

    Args:
        name: of the class.
        make: a class; its docstring says what its arguments mean.
        defaults: those of the section where they differ from those of ``make``.
    """
    values = plain({each: p.default for each, p in inspect.signature(make).parameters.items()} | defaults)
    fields = [
        (each, list[int] if isinstance(value, list) else type(value), field(default_factory=partial(copy, value)))
        for each, value in values.items()
        if each not in ("n_mels", "hop_length")
    ]
    return dataclasses.make_dataclass(name, fields, bases=(ModelArgs,), namespace={"__module__": __name__})


MelglowArgs = args_of("MelglowArgs", MelGlow, early_every=12, lpc_order=32)  # WaveGlow's are among them
LVCnetArgs = args_of("LVCnetArgs", LVCNetGenerator)
# The spectral terms begin at step 400: likelihood alone is cheaper.
MelglowLossArgs = args_of("MelglowLossArgs", LossConfig, spectral_start=400, activation_penalty=1.0)


@dataclass
class MelglowAudioConfig(BaseAudioConfig):
    """The mel: log10 of the amplitude, not normalised, so that no output of an acoustic model is clipped."""

    mel_fmin: float = 80.0  # Hz
    mel_fmax: float = 7600.0  # Hz
    spec_gain: int = 1
    signal_norm: bool = False
    do_trim_silence: bool = False


@dataclass
class CommonConfig:
    """What the configurations of MelGlow and LVCNet share; they refuse what Coqpit drops or replaces."""

    audio: MelglowAudioConfig = field(default_factory=MelglowAudioConfig)
    mel_convention: dict[str, Any] = field(default_factory=dict)  # of a model trained elsewhere; empty: as in audio
    training: dict[str, Any] = field(default_factory=dict)  # facts about such a model's training

    # data
    seq_len: int = 8192  # samples of a training crop
    batch_size: int = 8  # crops
    num_loader_workers: int = 2
    num_eval_loader_workers: int = 1

    # synthesis; LVCNet is trained with sigma, too
    sigma: float = 0.6  # std of the noise
    seed: int = 0  # same seed, same samples
    refine: int | str = RESYNTHESIS  # rounds of refinement after the flow or network, or "resynthesis"
    sharpen: float = 1.0  # strength of sharpening of an acoustic model's mel; 0: none

    scheduler_after_epoch: bool = False

    CROPS = ("seq_len",)  # fields that hold the samples of a crop

    def check_values(self) -> None:
        """ValueError naming the field and both values where a setting cannot work."""
        super().check_values()
        hop = self.audio.hop_length
        for name in self.CROPS:
            length = getattr(self, name)
            if hop and (length < hop or length % hop):
                raise ValueError(f"{name} {length} is no multiple of audio.hop_length {hop}")
        check_sigma(self.sigma)
        checked_seed(self.seed)
        check_kind(self.refine)
        check_strength(self.sharpen)

    def deserialize(self, data: dict[str, Any]) -> "CommonConfig":
        """As Coqpit does, but ValueError for an unknown key (Coqpit drops it) and a wrong type (it warns)."""
        refuse_unknown(self, {k: v for k, v in data.items() if k not in ADDED_BY_THE_TRAINER})
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            try:
                return super().deserialize(data)
            except UserWarning as warning:
                raise ValueError(" ".join(str(warning).split())) from None

    def parse_known_args(self, args=None, arg_prefix: str = "coqpit", *, relaxed_parser: bool = False) -> list[str]:
        """As Coqpit does, but ValueError for a ``--coqpit.`` option that is none."""
        rest = super().parse_known_args(args, arg_prefix, relaxed_parser=relaxed_parser)
        if unknown := [text for text in rest if text.startswith(f"--{arg_prefix}.")]:
            raise ValueError(f"{', '.join(unknown)}: no field of {type(self).__name__}")
        return rest


@dataclass
class MelglowConfig(CommonConfig, BaseVocoderConfig):
    """MelGlow, or WaveGlow, as a vocoder of Coqui TTS. What is not explained here is Coqui's.

    The defaults are those of ``conf/melglow.yaml``, as far as Coqui's trainer can follow. Unknown keys, values of a
    wrong type and fields that nothing reads are refused.
    """

    model: str = "melglow"
    architecture: str = "melglow"  # melglow or waveglow
    model_params: MelglowArgs = field(default_factory=MelglowArgs)
    loss_params: MelglowLossArgs = field(default_factory=MelglowLossArgs)
    target_loss: str = "loss"

    # data
    eval_seq_len: int = 32_768  # samples of an evaluation crop
    feature_config: str = ""  # config.json of the acoustic model that made feature_path; empty: units as in audio
    eval_batch_size: int = 8  # crops

    # training
    optimizer: str = "Adam"
    optimizer_params: dict[str, Any] = field(default_factory=lambda: {"betas": [0.9, 0.999]})
    lr: float = 4e-4
    kernel_lr_ratio: float = 2.0  # learning rate of the layers that predict kernels, as a multiple of lr
    lr_scheduler: str = "ExponentialLR"
    lr_scheduler_params: dict[str, Any] = field(default_factory=lambda: {"gamma": 0.9998})  # a step: 0.96 after 200
    grad_clip: float = 20.0  # norm
    ema_decay: float = 0.995  # of the averaged weights, which are evaluated and saved as the model; 0 for none
    precision: str = "bf16"  # of the conditioners, with mixed_precision
    test_delay_epochs: int = -1  # copies of evaluation recordings from the first epoch on

    CROPS = ("seq_len", "eval_seq_len")

    def check_values(self) -> None:
        """ValueError naming the field and both values where a setting cannot work or would be ignored."""
        super().check_values()
        for name, reason in NOT_READ.items():
            if getattr(self, name):
                raise ValueError(f"{name} {getattr(self, name)!r} has no effect on {self.model}: {reason}")
        for name in self.CROPS:
            length = getattr(self, name)
            if length <= max(self.loss_params.windows) // 2:
                raise ValueError(f"{name} {length} is too short for loss_params.windows {self.loss_params.windows}")
            if self.loss_params.refine and length < 2 * (fft := self.audio.fft_size):
                raise ValueError(f"{name} {length} is too short for loss_params.refine: audio.fft_size is {fft}")
        if isinstance(self.grad_clip, list):
            raise ValueError(f"grad_clip {self.grad_clip}: there is one optimizer, wanted one number")
        for name in ("eval_split_size", "batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is below 1")
        if self.kernel_lr_ratio <= 0:
            raise ValueError(f"kernel_lr_ratio {self.kernel_lr_ratio} is not above 0")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay {self.ema_decay} is not in [0, 1)")

    def deserialize(self, data: dict[str, Any]) -> "MelglowConfig":
        """Also of version 0.1."""
        return super().deserialize(_of_this_version(data))


def _of_this_version(data: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` of version 0.1 in the names of this one."""
    data = dict(data)
    if isinstance(loss := data.get("loss_params"), dict):
        data["loss_params"] = under_new_names(loss, LossConfig.RENAMED, "loss_params")
    if isinstance(sizes := data.get("model_params"), dict) and "mel_gain" in sizes:
        if sizes["mel_gain"]:
            raise ValueError(f"model_params: mel_gain {sizes['mel_gain']}, which version 0.2 does not have")
        data["model_params"] = {name: value for name, value in sizes.items() if name != "mel_gain"}
    return data


def refuse_unknown(config: Coqpit, data: dict[str, Any], where: str = "") -> None:
    """ValueError naming the keys of ``data``, however deep, that are no fields of ``config``."""
    names = {f.name for f in dataclasses.fields(config)}
    if unknown := sorted(set(data) - names):
        raise ValueError(f"{', '.join(where + name for name in unknown)}: no field of {type(config).__name__}")
    for name, value in data.items():
        if isinstance(value, dict) and isinstance(config[name], Coqpit):
            refuse_unknown(config[name], value, f"{where}{name}.")
