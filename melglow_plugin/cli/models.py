"""``melglow info``, ``convert``, ``export`` and ``postfilter``."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from melglow_plugin.checkpoint.pretrained import pretrained_model
from melglow_plugin.cli.shared import (
    RESAMPLE,
    WAVS,
    Faults,
    count,
    load_vocoder,
    named_convention,
    note_inputs,
    recordings,
    refinement,
)
from melglow_plugin.files import check_output

EXPORTED = {
    "espnet": ("checkpoint.pkl", "config.yml"),
    "coqui": ("model.pth", "config.json"),
    "onnx": ("model.onnx",),
    "torch": ("model.pt2",),
}
PART_SECONDS = 20  # of a longer recording, to train a postfilter on
CLIPS = f"recordings, or parts of {PART_SECONDS} s of longer ones; drawn where there are more (default: 500)"
OTHER_MEL = "the mel it shall take, a name or any system's configuration file: adapted without training"


def add_commands(command) -> None:
    """``info``, ``convert``, ``export`` and ``postfilter``."""
    sub = command(info, "info", "melglow info")
    sub.add_argument("checkpoint", nargs="?", default=None, help="model folder (default: a pretrained one)")
    sub.add_argument("--json", action="store_true", help="as JSON")
    example = "melglow convert pretrained/melglow_ljspeech --weights float16 -o model"
    sub = command(convert, "convert", example, out="model folder to write")
    sub.add_argument("old", type=Path, metavar="MODEL", help="folder, .pth of a trainer, or exported .pkl")
    sub.add_argument("--training", action="append", default=[], metavar="KEY=VALUE", help="a fact for the model card")
    sub.add_argument("--weights", choices=("float32", "float16"), default="float32", help="in the file (float16: half)")
    sub.add_argument(
        "--refine", type=refinement, help="rounds of refinement, or resynthesis (default: the model's own)"
    )
    sub.add_argument("--sharpen", type=float, default=None, help="strength of sharpening (default: the model's)")
    sub.add_argument("--convention", default=None, help=OTHER_MEL)
    sub.add_argument(
        "--rate-adapt",
        action="store_true",
        help="that mel may be of another sample rate: a start for training, because what the model "
        "has learned shifts in pitch and time by the ratio",
    )
    sub = command(export, "export", "melglow export --format espnet -o exported", out="folder to write")
    sub.add_argument("checkpoint", nargs="?", default=None, help="model folder (default: a pretrained one)")
    sub.add_argument("--format", choices=[*EXPORTED], required=True, help="who reads the files")
    sub.add_argument("--convention", default=None, help=OTHER_MEL)
    example = "melglow postfilter egs/ljspeech/voc1/corpus/wavs --steps 100 -o model"
    sub = command(postfilter, "postfilter", example, model=True, out="model folder to write")
    sub.add_argument("wavs", nargs="+", type=Path, metavar="WAV", help=WAVS)
    sub.add_argument("--resample", action="store_true", help=RESAMPLE)
    sub.add_argument("--clips", type=count, default=500, help=CLIPS)
    sub.add_argument("--steps", type=count, default=6000, help="(default: 6000, ten minutes of one CPU core)")
    sub.add_argument("--channels", type=count, default=8, help="width of the postfilter (default: 8)")
    sub.add_argument("--seed", type=int, default=0, help="(default: 0)")


def info(args: argparse.Namespace) -> None:
    """Architecture, parameters, mel convention, training history and hash of a model."""
    import hashlib

    from melglow_plugin.checkpoint.any_file import load
    from melglow_plugin.checkpoint.folder import WEIGHTS_FILE
    from melglow_plugin.inference.chunks import look_ahead

    model = pretrained_model() if args.checkpoint is None else Path(args.checkpoint)
    checkpoint = load(model)
    folder = model if model.is_dir() else model.parent
    weights = model if model.suffix in (".pth", ".pkl") else folder / WEIGHTS_FILE
    flow, facts = checkpoint.flow, checkpoint.facts()
    ahead = look_ahead(flow, checkpoint.convention, checkpoint.refine)
    seconds = ahead * flow.hop_length / checkpoint.convention.sample_rate
    facts = {
        "architecture": facts.pop("architecture"),
        "parameters": sum(p.numel() for p in flow.parameters()),
        "look-ahead": f"{ahead} frames, {seconds:.3f} s",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "refine": facts.pop("refine"),
        "sharpen": facts.pop("sharpen"),
        **facts,
    }
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    _print_facts(facts)


def _print_facts(facts: dict, indent: int = 0) -> None:
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            print(f"{'':{indent}}{name}:")
            _print_facts(value, indent + 2)
        else:
            shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and not indent else value
            print(f"{'':{indent}}{name:{22 - indent}} {shown}")


def convert(args: argparse.Namespace) -> None:
    """A model of ESPnet's or Coqui's trainer, an exported one, or an older folder to a model folder (safetensors)."""
    import torch

    from melglow_plugin.checkpoint.any_file import load
    from melglow_plugin.inference.resynthesis import check_refine
    from melglow_plugin.inference.sharpening import check_strength
    from melglow_plugin.vocoder import Vocoder

    note_inputs(args.old)
    for name in ("model.safetensors", "config.json"):
        check_output(args.out / name)
    vocoder = Vocoder.from_checkpoint(load(args.old))
    for fact in args.training:
        key, separator, value = fact.partition("=")
        if not separator:
            raise ValueError(f"--training {fact!r}: wanted KEY=VALUE")
        vocoder.training_facts[key] = value
    if args.refine is not None:
        vocoder.refine = check_refine(args.refine, vocoder.convention)
    if args.sharpen is not None:
        vocoder.sharpen = check_strength(args.sharpen)
    _save(_for_mel(vocoder, args.convention, args.rate_adapt), args.out, getattr(torch, args.weights))


def export(args: argparse.Namespace) -> None:
    """For ESPnet checkpoint.pkl and config.yml, for Coqui TTS model.pth and config.json; ONNX; torch.export's .pt2."""
    from melglow_plugin.checkpoint.coqui import to_coqui
    from melglow_plugin.checkpoint.espnet import to_espnet
    from melglow_plugin.checkpoint.onnx import to_onnx, to_program
    from melglow_plugin.mel.convention import MelConvention

    note_inputs(args.checkpoint)
    for name in EXPORTED[args.format]:
        check_output(args.out / name)
    write = {"espnet": to_espnet, "coqui": to_coqui, "onnx": to_onnx, "torch": to_program}[args.format]
    # The pretrained model for ESPnet is the one that takes the mel of ESPnet's LJSpeech recipe.
    wanted = MelConvention.espnet() if args.format == "espnet" else None
    vocoder = _for_mel(
        load_vocoder(pretrained_model(wanted) if args.checkpoint is None else args.checkpoint, "cpu"), args.convention
    )
    written = write(vocoder.checkpoint, args.out)
    print(", ".join(map(str, written)))
    around = {"sharpen": f"{vocoder.sharpen:g}", "refine": vocoder.refine}
    if (vocoder.sharpen or vocoder.refine) and args.format in ("onnx", "torch"):
        left_out = " and ".join(f"{name} {value}" for name, value in around.items())
        print(f"the graph is the model alone: {left_out} come before and after it (docs/speed.md)", file=sys.stderr)


def postfilter(args: argparse.Namespace) -> None:
    """Train a model's postfilter on recordings: resynthesis then has clearer harmonics. The model itself stays."""
    import itertools
    import random

    import torch

    from melglow_plugin.files import AUDIO_SUFFIXES, listed
    from melglow_plugin.inference.resynthesis import RESYNTHESIS, check_window
    from melglow_plugin.training.postfilter import crop_frames, examples, fit, with_postfilter
    from melglow_plugin.vocoder import Vocoder

    note_inputs(args.checkpoint)
    for name in ("model.safetensors", "config.json"):
        check_output(args.out / name)
    entries = listed(args.wavs, AUDIO_SUFFIXES)
    if len(entries) > args.clips:
        entries = random.Random(args.seed).sample(entries, args.clips)
    vocoder = load_vocoder(args.checkpoint, args.device)
    check_window(vocoder.convention)
    torch.manual_seed(args.seed)
    flow = with_postfilter(vocoder.flow, args.channels).cpu()
    faults = Faults(len(entries))
    wavs = recordings(entries, faults, vocoder.sample_rate, args.resample)
    frames, short = crop_frames(vocoder.convention), 0

    def parts() -> Iterator:
        nonlocal short
        for wav in wavs:
            short += vocoder.convention.n_frames(len(wav)) < frames
            yield from (part.clone() for part in wav.split(PART_SECONDS * vocoder.sample_rate))  # bounds the memory

    taken = itertools.islice(parts(), args.clips)
    data = examples(lambda mel, seed: vocoder(mel, seed=seed, refine=0, sharpen=0).cpu(), taken, vocoder.convention)
    if not data:
        faults.close("read")
    elif short:
        print(f"{short} of {len(entries)} have fewer than {frames} frames of the mel: left out", file=sys.stderr)
    ratio = fit(flow.postfilter, data, vocoder.convention, args.steps, args.seed)
    facts = {"steps": args.steps, "recordings": len(data), "error": round(ratio, 4)}  # to that without it
    training = vocoder.training_facts | {"postfilter": facts}
    _save(Vocoder(flow, vocoder.convention, training, refine=RESYNTHESIS, sharpen=vocoder.sharpen), args.out)
    if vocoder.refine != RESYNTHESIS:
        print(f"its refine is {RESYNTHESIS}, which alone has a postfilter, and was {vocoder.refine}", file=sys.stderr)
    faults.close("trained on")


# What the commands share


def _save(vocoder, folder: Path, *dtype) -> None:
    """A model folder; its name is printed, and that a card stays which tells of what was there before."""
    from melglow_plugin.checkpoint.folder import CARD_FILE

    card = folder / CARD_FILE
    stays = card.exists()
    vocoder.save_pretrained(folder, *dtype)
    print(f"{folder}")
    if stays:
        print(f"{card} stays as it was: without it, one of this model is written", file=sys.stderr)


def _for_mel(vocoder, name: str | None, other_rate: bool = False):
    """The vocoder, or another that takes the mel named."""
    convention, _ = named_convention(name)
    if convention is None or convention == vocoder.convention:
        return vocoder
    adapted = vocoder.adapted(convention, other_rate)
    print(f"adapted without training: {'; '.join(vocoder.convention.differences(convention)) or 'other units'}")
    if offset := convention.frame_offset(vocoder.convention):
        side = "later" if offset > 0 else "earlier"
        print(f"its frames lie {abs(offset)} samples {side}: the audio starts that much {side}")
    ratio = convention.sample_rate / vocoder.sample_rate
    if other_rate and ratio != 1:
        print(
            f"its pitch and tempo are {ratio:.4f} times as high as in training: train it on recordings of the new rate"
        )
    return adapted
