"""The ESPnet2 task: ``python -m melglow_plugin.espnet.train --config conf/melglow.yaml ...``."""

import argparse
import logging
import random
import zlib
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from espnet2.tasks.abs_task import AbsTask, optim_classes
from espnet2.train.class_choices import ClassChoices
from espnet2.train.collate_fn import CommonCollateFn
from espnet2.tts.feats_extract.log_mel_fbank import LogMelFbank
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str2bool, str_or_none

from melglow_plugin.checkpoint import folder as checkpoint
from melglow_plugin.checkpoint.adapt import adapted, without_early_outputs
from melglow_plugin.checks import from_dict, plain
from melglow_plugin.espnet.adversarial import AdversarialConfig
from melglow_plugin.espnet.model import ESPnetVocoderModel, LossConfig
from melglow_plugin.espnet.trainer import VocoderTrainer
from melglow_plugin.files import audio_info, read_scp
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.model.melglow import MODELS
from melglow_plugin.training.crops import cut, segment_samples
from melglow_plugin.training.variation import VariationConfig, varied_crop

vocoder_choices = ClassChoices("vocoder", MODELS, type_check=MelModel, default="melglow")
# Only its arguments are used: ESPnet checks them, MelConvention computes the same numbers with the crop's context.
feats_extract_choices = ClassChoices("feats_extract", {"fbank": LogMelFbank}, default="fbank")


class Crop:
    """Cut one crop from a recording; in validation the same one in every epoch.

    Args:
        convention: gives hop and context.
        frames: frames of a crop.
        train: a random place; otherwise one that follows from the utterance's key.
        variation: of level, pitch and band, in training.
    """

    def __init__(
        self, convention: MelConvention, frames: int, train: bool, variation: VariationConfig | None = None
    ) -> None:
        self.convention, self.frames, self.train = convention, frames, train
        self.variation = (variation if train else None) or VariationConfig()

    def __call__(self, key: str, speech: np.ndarray, feats: np.ndarray | None = None) -> dict[str, torch.Tensor]:
        """``speech`` (T,), and ``feats`` (F, M) where an acoustic model made some for it -> crops of the same names.

        Raises:
            ValueError: the recording is too short or not mono, or ``feats`` has other frames or bins, or is of
                a recording that is varied.
        """
        wav = torch.as_tensor(np.asarray(speech, dtype=np.float32))
        available = self.convention.n_frames(len(wav))
        if wav.dim() != 1 or available < self.frames:
            raise ValueError(
                f"{key}: a recording of shape {tuple(wav.shape)} has {available} frames, a crop needs {self.frames}; "
                "it must be mono and long enough (stage 1 of the recipe leaves others out)"
            )
        wanted = (available, self.convention.n_mels)
        if feats is not None and feats.shape != wanted:
            raise ValueError(f"{key}: feats of shape {feats.shape}, frames and bins of its recording are {wanted}")
        if feats is not None and self.variation != VariationConfig():
            raise ValueError(f"{key}: feats of an acoustic model belong to the recording as it is: no variation_conf")
        place = random if self.train else random.Random(zlib.crc32(key.encode()))
        crop = varied_crop(wav, segment_samples(self.convention, self.frames), self.variation, place)
        if crop is None:
            start = place.randint(0, available - self.frames)
            crop = cut(wav, self.convention, self.frames, start)
        crop = {"speech": self.variation.levelled(self.variation.limited(crop, place), place)}
        if feats is not None:
            crop["feats"] = torch.as_tensor(np.asarray(feats[start : start + self.frames], dtype=np.float32))
        return crop


class CropCollate:
    """One crop of each recording, stacked; arguments as of :class:`Crop`.

    No preprocessor of ESPnet's: its cache of recordings would keep the first epoch's crops for all others.
    """

    def __init__(self, *args, **kwargs) -> None:
        self.crop = Crop(*args, **kwargs)

    def __call__(self, data):
        keys = [key for key, _ in data]
        crops = [self.crop(key, **values) for key, values in data]
        batch = {name: torch.stack([crop[name] for crop in crops]) for name in crops[0]}
        batch["speech_lengths"] = torch.full((len(keys),), batch["speech"].shape[1])
        return keys, batch


class VocoderTask(AbsTask):
    """Train a vocoder with ESPnet2's own trainer, checkpoints, averaging and launchers."""

    trainer = VocoderTrainer
    class_choices_list = [vocoder_choices, feats_extract_choices]

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        group = parser.add_argument_group("MelGlow")
        add, nested = group.add_argument, partial(group.add_argument, action=NestedDictAction)
        add("--segment_frames", type=int, default=32, help="mel frames of a training crop")
        add("--valid_segment_frames", type=int, default=128, help="mel frames of a validation crop")
        nested("--variation_conf", default={}, help="fields of VariationConfig")
        add("--mel_stats", type=str_or_none, default=None, help="feats_stats.npz of the training mels")
        add("--pretrained", type=str_or_none, default=None, help="model folder to continue from")
        rates = "learning rate of kernel-predicting layers, in optim_conf lr"
        add("--kernel_lr_ratio", type=float, default=1.0, help=rates)
        nested("--loss_conf", default={}, help="fields of LossConfig")
        nested("--adversarial_conf", default={}, help="fields of AdversarialConfig; empty: no discriminators")
        add("--use_graph", type=str2bool, default=True, help="with one GPU, replay each step as one CUDA graph")
        nested("--model_conf", default={}, help="ema_decay, conditioner_dtype")
        for choices in cls.class_choices_list:
            choices.add_arguments(group)
        # ESPnet's defaults want an accuracy, keep ten checkpoints and sort by length.
        parser.set_defaults(
            best_model_criterion=[("valid", "loss", "min")], keep_nbest_models=2, batch_type="unsorted", num_att_plot=3
        )

    @classmethod
    def build_collate_fn(cls, args: argparse.Namespace, train: bool):
        if args.collect_stats:
            return CommonCollateFn()  # whole recordings, padded with zeros
        frames = args.segment_frames if train else args.valid_segment_frames
        variation = from_dict(VariationConfig, args.variation_conf, "variation_conf")
        return CropCollate(cls.convention(args), frames, train, variation)

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool):
        return None

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        return ("speech",)

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        return ("feats",)  # of an acoustic model, frame-major, un-normalised: training on them instead of the true mel

    @classmethod
    def convention(cls, args: argparse.Namespace) -> MelConvention:
        return MelConvention.espnet(**args.feats_extract_conf)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> ESPnetVocoderModel:
        convention = cls.convention(args)
        loss = from_dict(LossConfig, args.loss_conf, "loss_conf")
        args.loss_conf = plain(asdict(loss))
        # n_mels and hop_length follow from the mel.
        conf = {"n_mels": convention.n_mels, "hop_length": convention.hop_length, **args.vocoder_conf}
        for name in ("n_mels", "hop_length"):
            if conf[name] != getattr(convention, name):
                raise ValueError(f"vocoder_conf: {name} {conf[name]} is not the mel's {getattr(convention, name)}")
        resumed = resumed_postfilter(args)
        if resumed is not None:
            conf.setdefault("postfilter_channels", resumed)
        elif args.pretrained is not None:  # its postfilter goes with it and stays as it is
            sizes = checkpoint.read_config(Path(args.pretrained) / checkpoint.CONFIG_FILE)["model"]
            conf.setdefault("postfilter_channels", sizes.get("postfilter_channels", 0))
        args.vocoder_conf = conf
        flow = vocoder_choices.get_class(args.vocoder)(**conf)
        flow.set_mel_bands(*convention.band_powers())
        statistics = None if args.mel_stats is None else read_mel_stats(args.mel_stats)
        if statistics is not None:
            flow.set_mel_statistics(*statistics)
        if args.pretrained is not None and resumed is None:
            start_from(flow, convention, args.pretrained, statistics)
        adversarial = None
        if args.adversarial_conf:
            adversarial = from_dict(AdversarialConfig, args.adversarial_conf, "adversarial_conf")
            args.adversarial_conf = plain(asdict(adversarial))
        return ESPnetVocoderModel(flow, convention, loss, **args.model_conf, adversarial=adversarial)

    @classmethod
    def build_optimizers(cls, args: argparse.Namespace, model: ESPnetVocoderModel) -> list[torch.optim.Optimizer]:
        if isinstance(lr := args.optim_conf.get("lr"), str):  # 2e-4, which to YAML is text: it wants 2.0e-4
            try:
                lr = args.optim_conf["lr"] = float(lr)
            except ValueError as error:
                raise ValueError(f"optim_conf lr {lr!r} is no number") from error
        if args.kernel_lr_ratio == 1.0 and model.adversary is None:
            return super().build_optimizers(args, model)
        if lr is None:
            raise ValueError(
                "optim_conf lr is not given: kernel_lr_ratio and adversarial_conf lr_ratio are multiples of it"
            )
        groups = model.flow.parameter_groups(lr, args.kernel_lr_ratio)
        if model.adversary is not None:
            # One optimizer, one step: the flow and its discriminators learn from the same sample.
            rate = lr * model.adversary.config.lr_ratio
            groups.append({"params": list(model.adversary.parameters()), "lr": rate})
        return [optim_classes[args.optim](groups, **args.optim_conf)]

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        check_rates(args, cls.convention(args).sample_rate)
        super().main_worker(args)


def resumed_postfilter(args: argparse.Namespace) -> int | None:
    """Channels of the postfilter of the training that is resumed, 0 without one; None: the training begins."""
    path = Path(getattr(args, "output_dir", None) or ".") / "checkpoint.pth"
    if not getattr(args, "resume", False) or not path.is_file():
        return None
    weights = torch.load(path, map_location="cpu", mmap=True, weights_only=True)["model"]
    output = weights.get("flow.postfilter.output.weight")
    return 0 if output is None else output.shape[1]


def start_from(
    flow: MelModel,
    convention: MelConvention,
    folder: str,
    statistics: tuple[torch.Tensor, torch.Tensor] | None,
) -> None:
    """Fill ``flow`` with a released model's weights.

    The released model's statistics of mels, which are part of its weights, stay where the mel is the same. To another
    mel, with ``statistics`` of its own, it is adapted, and to a flow without early outputs, too; warnings say so.

    Raises:
        ValueError: the models differ, or the mels do in fields that no adaptation changes; each field is named.
    """
    loaded = checkpoint.load(folder)
    start = loaded.flow
    sizes, wanted = start.hyperparameters, flow.hyperparameters
    if "early_every" in sizes and sizes["early_every"] < sizes["n_flows"] == wanted.get("early_every"):
        logging.warning(f"pretrained {folder} has early outputs: they pass unchanged through the flows after them")
        start = without_early_outputs(start)
    found = {**start.hyperparameters, "n_mels": flow.n_mels}
    if differences := [f"{k} {found.get(k)} -> {v}" for k, v in wanted.items() if found.get(k) != v]:
        raise ValueError(f"vocoder_conf differs from that of {folder}: {', '.join(differences)}")
    if convention != loaded.convention:
        logging.warning(
            f"pretrained {folder} was trained on another mel and is adapted to this one: "
            f"{'; '.join(loaded.convention.differences(convention)) or 'other units'}"
        )
        start = adapted(start, loaded.convention, convention, statistics)
    flow.load_state_dict(start.state_dict())


def read_mel_stats(path: str | Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation per bin from the ``feats_stats.npz`` that ``--collect_stats true`` writes."""
    stats = np.load(path)
    mean = stats["sum"].astype(np.float64) / stats["count"]
    variance = stats["sum_square"].astype(np.float64) / stats["count"] - mean**2
    return torch.from_numpy(mean).float(), torch.from_numpy(np.sqrt(np.maximum(variance, 0))).float()


def check_rates(args: argparse.Namespace, sample_rate: int) -> None:
    """ValueError for a recording at another sample rate: ESPnet's reader ignores the rate and would train on it."""
    lists = [*args.train_data_path_and_name_and_type, *args.valid_data_path_and_name_and_type]
    for scp in {path for path, name, kind in lists if name == "speech" and kind == "sound"}:
        for key, path in read_scp(scp).items():
            rate = audio_info(path).samplerate
            if rate != sample_rate:
                raise ValueError(f"{scp}: {key} has {rate} Hz, feats_extract_conf fs is {sample_rate} Hz")
