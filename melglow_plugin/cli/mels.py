"""``melglow doctor``."""

import argparse
from pathlib import Path

from melglow_plugin.checkpoint.pretrained import pretrained_model, pretrained_models
from melglow_plugin.cli.synthesis import CLIP, MEL
from melglow_plugin.files import check_output, read_any_wav, read_array

PICTURES = (".png", ".pdf", ".svg")


def add_commands(command) -> None:
    """``doctor``."""
    sub = command(doctor, "doctor", f"melglow doctor {MEL} --wav {CLIP}")
    sub.add_argument("mel", nargs="?", type=Path, metavar="MEL.npy", help="the mel to look at")
    sub.add_argument("--wav", type=Path, default=None, help="the recording it was made of: a surer answer, and frames")
    sub.add_argument(
        "--model", default=None, help="vocoder: model folder or any configuration (default: a pretrained one)"
    )
    sub.add_argument("--sample-rate", type=int, default=None, help="Hz, if known")
    sub.add_argument("--plot", type=Path, default=None, metavar="PNG", help="draw the mel beside its reference")
    sub.add_argument("--overwrite", action="store_true", help="replace the picture that is there")
    sub.add_argument("--espnet", type=Path, default=None, metavar="MODEL_DIR", help="acoustic model to compare with")
    sub.add_argument("--coqui", type=Path, default=None, metavar="config.json", help="acoustic model to compare with")


def doctor(args: argparse.Namespace) -> None:
    """Which convention a mel follows, and how a vocoder takes it; or whether an acoustic model fits a vocoder."""
    from melglow_plugin.mel import doctor as mel_doctor

    acoustic = args.espnet or args.coqui
    if args.plot is not None:
        check_output(args.plot)
        if args.plot.suffix.lower() not in PICTURES:
            raise ValueError(f"--plot {args.plot}: wanted {', '.join(PICTURES)}")
    if args.mel is None and acoustic is None:
        raise ValueError("nothing to look at: name a MEL.npy, --espnet MODEL_DIR or --coqui config.json")
    refusals = []
    if acoustic is not None:
        source = mel_doctor.convention_of_config(acoustic)
        name, target = _vocoder_convention(args.model, source)
        fits, table = mel_doctor.compare(source, target)
        print(table)
        if fits:
            print(f"they fit: mels are converted exactly for {name}")
        else:
            adapts = f" (melglow export --convention {acoustic} adapts one)"
            how = "" if source.incompatible_fields(target) else adapts
            print(f"they do NOT fit: train or export another vocoder than {name}{how}")
        refusals += [] if fits else [f"{acoustic}: {'; '.join(source.differences(target))}"]
    if args.mel is not None:
        wav, rate = (None, args.sample_rate) if args.wav is None else read_any_wav(args.wav)
        if args.sample_rate not in (None, rate):
            raise ValueError(f"--sample-rate {args.sample_rate}, but {args.wav} has {rate} Hz")
        mel = read_array(args.mel)
        found = mel_doctor.diagnose(mel, wav, rate)
        print(found.text())
        if args.model or pretrained_models():
            name, target = _vocoder_convention(args.model, found.convention)
            accepted, advice = found.advice(target)
            print(f"vocoder     {name}: {advice}")
            refusals += [] if accepted else [f"{args.mel}: {advice}"]
        if args.plot is not None:
            mel_doctor.plot(mel, found, args.plot, wav)
            print(f"plot        {args.plot}")
    if refusals and (args.model or acoustic):
        raise ValueError(" | ".join(refusals))


def _vocoder_convention(model: str | None, source):
    """Name and convention of a vocoder: a folder, configuration file or preset; None: the nearest pretrained model."""
    from melglow_plugin.mel.convention import MelConvention

    model = pretrained_model(source) if model is None else model
    if Path(model).exists():
        return Path(model).name, MelConvention.from_file(model)
    return str(model), MelConvention.preset(str(model))
