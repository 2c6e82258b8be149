"""``melglow``: parse, call, exit. Status 0 on success, 2 on bad input with one line on stderr."""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from melglow_plugin import __version__
from melglow_plugin.bundled import bundled_model, bundled_models
from melglow_plugin.files import append_csv, listed, read_any_wav, read_array, read_csv, read_mel, read_wav, write_wav


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"melglow {args.command}: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"melglow {args.command}: interrupted", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    """Mistakes of usage, too, are one line."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {_one_line(message)} (see --help)\n")


def _count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="melglow", description="MelGlow, a flow vocoder: mel in, speech out.")
    parser.add_argument("--version", action="version", version=f"melglow {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(run: Callable, name: str, *, model: bool = False, sample: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=run.__doc__.splitlines()[0], description=run.__doc__)
        sub.set_defaults(run=run)
        if model:
            sub.add_argument("--checkpoint", default=None, help="model folder or Hub id (default: the bundled model)")
            sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: cpu)")
        if sample:
            sub.add_argument("-o", "--out", type=Path, required=True, help="folder for the wavs")
            sub.add_argument("--sigma", type=float, default=0.6, help="std of the noise (default: 0.6)")
            sub.add_argument("--seed", type=int, default=0, help="same seed, same samples (default: 0)")
            rounds = "rounds that bring the audio nearer to the mel; 0: the flow's own sample (default: the model's)"
            sub.add_argument("--refine", type=int, default=None, help=rounds)
            sub.add_argument("--skip-existing", action="store_true", help="leave wavs alone that are there")
        return sub

    sub = command(synthesize, "synthesize", model=True, sample=True)
    sub.add_argument("mels", nargs="+", type=Path, metavar="MEL.npy", help=".npy files, or a feats.scp of them")
    sub.add_argument(
        "--convention", default=None, help="what the mels are: espnet, coqui, vocos ... or a configuration file"
    )
    sub.add_argument("--approximate", action="store_true", help="accept mels that no exact conversion makes fit")
    sub.add_argument("--batch-size", type=_count, default=1, help="mels spoken at once (default: 1)")
    sub = command(copy, "copy", model=True, sample=True)
    sub.add_argument("wavs", nargs="+", type=Path, metavar="WAV", help="recordings, or a wav.scp of them")
    sub.add_argument("--log", type=Path, default=None, help="CSV of seconds, real-time factor and bits per sample")
    sub = command(score, "score", model=True)
    sub.add_argument("wavs", nargs="+", type=Path, metavar="WAV", help="recordings, or a wav.scp of them")
    sub = command(info, "info")
    sub.add_argument("checkpoint", nargs="?", default=None, help="model folder (default: the bundled model)")
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub = command(evaluate, "eval")
    sub.add_argument("reference", type=Path, metavar="REF_DIR", help="recordings: a folder, or a wav.scp")
    sub.add_argument("generated", type=Path, metavar="GEN_DIR", help="folder of copies with the same names")
    sub.add_argument("-o", "--out", type=Path, required=True, help="folder for scores.csv and summary.json")
    sub.add_argument("--jobs", type=_count, default=1, help="processes (default: 1)")
    sub.add_argument("--log", type=Path, default=None, help="CSV that melglow copy wrote: its columns join the scores")
    sub = command(convert, "convert")
    sub.add_argument("old", type=Path, metavar="MODEL", help=".pth of ESPnet's or Coqui's trainer, or exported .pkl")
    sub.add_argument("-o", "--out", type=Path, required=True, help="model folder to write")
    sub.add_argument("--training", action="append", default=[], metavar="KEY=VALUE", help="a fact for the model card")
    sub.add_argument("--weights", choices=("float32", "float16"), default="float32", help="in the file (float16: half)")
    sub.add_argument("--refine", type=int, default=None, help="rounds it shall speak with (default: as it says, or 1)")
    other_mel = "the mel it shall take, a name or any system's configuration file: adapted without training"
    sub.add_argument("--convention", default=None, help=other_mel)
    sub = command(doctor, "doctor")
    sub.add_argument("mel", nargs="?", type=Path, metavar="MEL.npy", help="the mel to look at")
    sub.add_argument("--wav", type=Path, default=None, help="the recording it was made of: a surer answer, and frames")
    sub.add_argument("--model", default=None, help="vocoder: model folder or any configuration (default: the bundled)")
    sub.add_argument("--sample-rate", type=int, default=None, help="Hz, if known")
    sub.add_argument("--plot", type=Path, default=None, metavar="PNG", help="draw the mel beside its reference")
    sub.add_argument("--espnet", type=Path, default=None, metavar="MODEL_DIR", help="acoustic model to compare with")
    sub.add_argument("--coqui", type=Path, default=None, metavar="config.json", help="acoustic model to compare with")
    sub = command(bench, "bench", model=True)
    sub.add_argument("-o", "--out", type=Path, default=None, help="folder for bench.json and bench.png")
    sub.add_argument("--lengths", type=float, nargs="+", default=[1, 3, 10, 30], help="seconds (default: 1 3 10 30)")
    sub.add_argument("--batches", type=_count, nargs="+", default=[1, 8], help="(default: 1 8)")
    sub.add_argument("--threads", type=_count, default=None, help="CPU threads (default: torch's)")
    sub.add_argument("--repeats", type=_count, default=5, help="timed rounds (default: 5)")
    sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the conditioners")
    others = "in the same rounds: hifigan-v1, hifigan-v2 (Coqui's), waveglow-64, waveglow-256, onnx (this model)"
    sub.add_argument("--against", nargs="+", default=[], metavar="NAME", help=others)
    sub = command(hook, "hook")
    sub.add_argument("action", choices=("enable", "disable", "status"), help="write the file, remove it, or look")
    sub = command(export, "export")
    sub.add_argument("checkpoint", nargs="?", default=None, help="model folder (default: the bundled model)")
    sub.add_argument(
        "--format", choices=("espnet", "coqui", "onnx", "torch"), required=True, help="what is to be written"
    )
    sub.add_argument("--convention", default=None, help=other_mel)
    sub.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    return parser


def synthesize(args: argparse.Namespace) -> None:
    """Turn mels into wavs."""
    import torch
    from tqdm import tqdm

    convention, frames_first = named_convention(args.convention)
    vocoder = load_vocoder(args.checkpoint or bundled_model(convention), args.device)
    convention = convention or vocoder.convention
    said = _accepted(convention, vocoder.convention, args.approximate)
    todo = [(key, path) for key, path in listed(args.mels) if not _done(args, key)]
    for first in tqdm(range(0, len(todo), args.batch_size), desc="synthesize", unit="batch", disable=None):
        batch = todo[first : first + args.batch_size]
        with warnings.catch_warnings(action="ignore" if said else "default", category=UserWarning):
            mels = [
                convention.convert(read_mel(path, frames_first), vocoder.convention, args.approximate)
                for _, path in batch
            ]
        lengths = [mel.shape[-1] for mel in mels]
        padded = torch.nn.utils.rnn.pad_sequence([mel.T for mel in mels], batch_first=True).transpose(1, 2)
        wavs = vocoder(padded, lengths, sigma=args.sigma, seed=args.seed, refine=args.refine)
        for (key, _), wav, length in zip(batch, wavs, lengths, strict=True):
            write_wav(args.out / f"{key}.wav", wav[: length * vocoder.hop_length], vocoder.sample_rate)
    print(f"{len(todo)} wavs in {args.out}")


def _accepted(convention, target, approximate: bool) -> str:
    """Say what an approximation gets wrong, if there is one and it is wanted; ValueError where it is not."""
    differences = convention.differences(target)
    if not differences or convention.unbridgeable(target):
        return ""  # nothing to say, or nothing that helps: convert() names what cannot be bridged
    said = convention.approximation(target)
    if not approximate:
        raise ValueError(
            f"no exact conversion between these mels: {'; '.join(differences)}. --approximate accepts this: {said}"
        )
    print(f"approximate: {said}", file=sys.stderr)
    return said


def copy(args: argparse.Namespace) -> None:
    """Copy-synthesis: recordings to mels to wavs of the same length."""
    from tqdm import tqdm

    from melglow_plugin.loss import bits_per_sample

    vocoder = load_vocoder(args.checkpoint, args.device)
    todo = [(key, path) for key, path in listed(args.wavs) if not _done(args, key)]
    for key, path in tqdm(todo, desc="copy", unit="clip", disable=None):
        wav = read_wav(path, vocoder.sample_rate)
        mel = vocoder.convention.extract(wav)
        start = time.perf_counter()
        generated = vocoder(mel, sigma=args.sigma, seed=args.seed, refine=args.refine).cpu()  # waits for the device
        seconds, length = time.perf_counter() - start, len(wav) / vocoder.sample_rate
        write_wav(args.out / f"{key}.wav", generated[: len(wav)], vocoder.sample_rate)
        if args.log:  # line by line: a run that stops and goes on has them all
            bits = float(bits_per_sample(vocoder.score(wav))[0])
            row = {"id": key, "seconds": length, "rtf": seconds / length, "bits_per_sample": bits}
            append_csv(args.log, row)
    print(f"{len(todo)} wavs in {args.out}")


def score(args: argparse.Namespace) -> None:
    """Bits per sample of recordings under the model: how likely it finds them."""
    from melglow_plugin.loss import bits_per_sample

    vocoder = load_vocoder(args.checkpoint, args.device)
    bits = {}
    for key, path in listed(args.wavs):
        bits[key] = float(bits_per_sample(vocoder.score(read_wav(path, vocoder.sample_rate)))[0])
        print(f"{bits[key]:8.3f}  {key}")
    print(f"{sum(bits.values()) / len(bits):8.3f}  mean of {len(bits)}, bits per sample")


def info(args: argparse.Namespace) -> None:
    """Architecture, parameters, mel convention, training history and hash of a model."""
    import hashlib

    from melglow_plugin import checkpoint

    folder = Path(args.checkpoint) if args.checkpoint else bundled_model()
    loaded = checkpoint.load(folder)
    parameters = sum(p.numel() for p in loaded.flow.parameters())
    context = loaded.flow.context_frames * loaded.flow.hop_length / loaded.convention.sample_rate
    facts = {
        "architecture": checkpoint.architecture(loaded.flow),
        "parameters": parameters,
        "look-ahead": f"{loaded.flow.context_frames} frames, {context:.3f} s",
        "sha256": hashlib.sha256((folder / checkpoint.WEIGHTS_FILE).read_bytes()).hexdigest(),
        "refine": loaded.refine,
        "model": loaded.flow.hyperparameters,
        "convention": loaded.convention.to_dict(),
        "training": loaded.training,
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


def evaluate(args: argparse.Namespace) -> None:
    """Scores of copies against recordings: per clip as CSV, means with 95 % intervals as JSON."""
    from melglow_plugin import metrics

    extra = {}
    for row in read_csv(args.log) if args.log else ():
        extra[row["id"]] = {key: float(row[key]) for key in ("bits_per_sample", "rtf")}
    summary = metrics.evaluate(args.reference, args.generated, args.out, n_jobs=args.jobs, extra=extra)
    for name, value in summary.items():
        if isinstance(value, dict) and "mean" in value:
            print(f"{name:18} {value['mean']:9.3f}  ({value['low']:.3f} to {value['high']:.3f}, n {value['n']})")
    print(f"{args.out / 'scores.csv'}, {args.out / 'summary.json'}")


def convert(args: argparse.Namespace) -> None:
    """A model of ESPnet's or Coqui's trainer, an exported one, or an older folder to a model folder (safetensors)."""
    import torch

    from melglow_plugin.convert import load
    from melglow_plugin.refine import check_rounds

    vocoder = load(args.old)
    for fact in args.training:
        key, separator, value = fact.partition("=")
        if not separator:
            raise ValueError(f"--training {fact!r}: wanted KEY=VALUE")
        vocoder.training_facts[key] = value
    if args.refine is not None:
        vocoder.refine = check_rounds(args.refine)
    vocoder = _for_mel(vocoder, args.convention)
    vocoder.save_pretrained(args.out, getattr(torch, args.weights))
    print(f"{args.out}")


def doctor(args: argparse.Namespace) -> None:
    """Which convention a mel follows, whether a vocoder can speak it, and how; or whether two models fit."""
    from melglow_plugin import doctor as mel_doctor

    acoustic = args.espnet or args.coqui
    if args.mel is None and acoustic is None:
        raise ValueError("nothing to look at: name a MEL.npy, --espnet MODEL_DIR or --coqui config.json")
    refusals = []
    if acoustic is not None:
        source = mel_doctor.acoustic_convention(acoustic)
        name, target = _vocoder_convention(args.model, source)
        fits, table = mel_doctor.compare(source, target)
        print(table)
        print(
            f"they fit: mels are converted exactly for {name}"
            if fits
            else f"they do NOT fit: train or export another vocoder than {name}"
            + (f" (melglow export --convention {acoustic} adapts one)" if not source.unbridgeable(target) else "")
        )
        refusals += [] if fits else [f"{acoustic}: {'; '.join(source.differences(target))}"]
    if args.mel is not None:
        wav, rate = (None, args.sample_rate) if args.wav is None else read_any_wav(args.wav)
        mel = read_array(args.mel)
        found = mel_doctor.diagnose(mel, wav, rate)
        print(found.text())
        if args.model or bundled_models():
            name, target = _vocoder_convention(args.model, found.convention)
            accepted, advice = found.advice(target)
            print(f"vocoder     {name}: {advice}")
            refusals += [] if accepted else [f"{args.mel}: {advice}"]
        if args.plot is not None:
            mel_doctor.plot(mel, found, args.plot, wav)
            print(f"plot        {args.plot}")
    if refusals and (args.model or acoustic):
        raise ValueError(" | ".join(refusals))


def bench(args: argparse.Namespace) -> None:
    """Honest speed: warm-up, interleaved rounds, percentiles; others at random weights in the same rounds."""
    import torch

    from melglow_plugin import bench as benchmark
    from melglow_plugin.vocoder import Vocoder

    channels = {"hifigan-v1": 512, "hifigan-v2": 128, "waveglow-64": 64, "waveglow-256": 256}
    if unknown := sorted(set(args.against) - {*channels, "onnx"}):
        raise ValueError(f"--against {', '.join(unknown)}: none of {', '.join(channels)}, onnx")
    if args.threads:
        torch.set_num_threads(args.threads)
    vocoder = Vocoder.from_pretrained(args.checkpoint or bundled_model(), args.device, getattr(torch, args.dtype))
    against = {}
    for name in args.against:
        if name == "onnx":
            against[name] = benchmark.onnx(vocoder)
            continue
        if name.startswith("hifigan"):
            from melglow_plugin.coqui.rivals import hifigan as make
        else:
            make = benchmark.waveglow
        against[name] = make(vocoder, channels[name])
    timings = benchmark.run(vocoder, args.lengths, args.batches, against, args.repeats)
    print(f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads, {args.repeats} rounds")
    print(benchmark.table(timings))
    if args.out:
        benchmark.write(timings, args.out, vocoder.device)
        print(f"{args.out / 'bench.json'}, {args.out / 'bench.png'}")


def hook(args: argparse.Namespace) -> None:
    """A start-up file in this environment, so that ESPnet's and Coqui's own commands know MelGlow."""
    from melglow_plugin import hook_file

    if args.action == "status":
        print("enabled" if hook_file.enabled() else "disabled")
        print(*hook_file.files(), sep="\n")
        return
    changed = {"enable": hook_file.enable, "disable": hook_file.disable}[args.action]()
    print(*[f"{'wrote' if args.action == 'enable' else 'removed'} {path}" for path in changed], sep="\n")


def export(args: argparse.Namespace) -> None:
    """For ESPnet checkpoint.pkl and config.yml, for Coqui TTS model.pth and config.json; ONNX; torch.export's .pt2."""
    from melglow_plugin.export import to_coqui, to_espnet
    from melglow_plugin.export_onnx import to_onnx, to_program

    write = {"espnet": to_espnet, "coqui": to_coqui, "onnx": to_onnx, "torch": to_program}[args.format]
    vocoder = _for_mel(load_vocoder(args.checkpoint, "cpu"), args.convention)
    written = write(vocoder, args.out)
    print(", ".join(map(str, written)))
    if vocoder.refine and args.format in ("onnx", "torch"):
        print(f"the graph is the flow: refine {vocoder.refine} is a step of its own (docs/speed.md)", file=sys.stderr)


# What the commands share


def _for_mel(vocoder, name: str | None):
    """The vocoder, or another that takes the mel named."""
    convention, _ = named_convention(name)
    if convention is None or convention == vocoder.convention:
        return vocoder
    print(f"adapted without training: {'; '.join(vocoder.convention.differences(convention)) or 'other units'}")
    if lag := convention.lag(vocoder.convention):
        side = "later" if lag > 0 else "earlier"
        print(f"its frames lie {abs(lag)} samples {side}: what is spoken starts that much {side} in the recording")
    return vocoder.adapted(convention)


def load_vocoder(name: str | None, device: str):
    """The named model, or the bundled one."""
    from melglow_plugin.vocoder import Vocoder

    vocoder = Vocoder.from_pretrained(name or bundled_model())
    try:
        return vocoder.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device}: {str(error).splitlines()[0]}") from error


def _vocoder_convention(model: str | None, source):
    """A vocoder's name and convention, by folder, configuration file or preset; None: the nearest bundled model's."""
    from melglow_plugin.mel import MelConvention

    model = bundled_model(source) if model is None else model
    if Path(model).exists():
        return Path(model).name, MelConvention.from_file(model)
    return str(model), MelConvention.preset(str(model))


def named_convention(name: str | None):
    """The convention of that name, and whether its system keeps mels frame-major; None: the vocoder's own."""
    from melglow_plugin.conventions import PRESETS
    from melglow_plugin.mel import MelConvention

    if name is None:
        return None, False
    if name in PRESETS:
        return MelConvention.preset(name), name in ("espnet", "parallel_wavegan")
    if not Path(name).exists():
        raise ValueError(f"--convention {name}: none of {', '.join(PRESETS)}, and no file")
    return MelConvention.from_file(name), False


def _done(args: argparse.Namespace, key: str) -> bool:
    return args.skip_existing and (args.out / f"{key}.wav").exists()


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
