"""``melglow eval`` and ``bench``."""

import argparse
import sys
import warnings
from pathlib import Path

from melglow_plugin.checkpoint.pretrained import pretrained_model
from melglow_plugin.cli.shared import CORES, count, natural, seconds
from melglow_plugin.cli.synthesis import CLIP
from melglow_plugin.files import check_output, read_csv

CLIPS_A_JOB = 8  # fewer are scored sooner than a process starts


def add_commands(command) -> None:
    """``eval`` and ``bench``."""
    example = f"melglow copy {CLIP} -o out\nmelglow eval {CLIP} out -o scores"
    sub = command(evaluate, "eval", example, out="folder for scores.csv, summary.json and the page, index.html")
    sub.add_argument("reference", type=Path, metavar="REF_DIR", help="recordings: a folder, a wav.scp, or one file")
    sub.add_argument("generated", type=Path, metavar="GEN_DIR", help="folder of copies with the same names")
    sub.add_argument("--jobs", type=count, default=None, help="processes (default: the free cores)")
    sub.add_argument("--log", type=Path, default=None, help="CSV that melglow copy wrote: its columns join the scores")
    sub.add_argument("--clips", type=natural, default=20, help="on the page, 0: no page (default: 20)")
    sub.add_argument("--scores", nargs="+", default=None, metavar="NAME", help="columns of scores.csv (default: all)")
    blind = "no scores: blind.html, a listening test of GEN_DIR against this folder of copies, names hidden to the end"
    sub.add_argument("--blind", type=Path, default=None, metavar="DIR", help=blind)
    sub = command(bench, "bench", "melglow bench --lengths 1 --batches 1 --repeats 2", model=True)
    sub.add_argument("-o", "--out", type=Path, default=None, help="folder for bench.json and bench.png")
    sub.add_argument("--overwrite", action="store_true", help="replace files that are there")
    sub.add_argument("--lengths", type=seconds, nargs="+", default=[1, 3, 10, 30], help="seconds (default: 1 3 10 30)")
    sub.add_argument("--batches", type=count, nargs="+", default=[1, 8], help="(default: 1 8)")
    sub.add_argument("--threads", type=count, default=None, help="CPU threads (default: torch's)")
    sub.add_argument("--repeats", type=count, default=5, help="timed rounds (default: 5)")
    sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the conditioners")
    others = "in the same rounds: hifigan-v1, hifigan-v2 (Coqui's), waveglow-64, waveglow-256, onnx (this model)"
    sub.add_argument("--against", nargs="+", default=[], metavar="NAME", help=others)


def evaluate(args: argparse.Namespace) -> None:
    """Scores of copies against recordings: CSV of clips, JSON of means with 95 % intervals, a page to listen to."""
    from melglow_plugin.evaluation import evaluate as metrics

    if args.blind:
        return _blind(args)
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)  # pysptk's
    if args.clips:
        check_output(args.out / "index.html")
    for folder in (args.reference, args.generated):
        if args.out.resolve() == folder.resolve():
            raise ValueError(f"-o {args.out} is a folder that is compared: write somewhere else")
    extra = _logged(args.log) if args.log else {}
    pairs, _ = metrics.pairs_of(args.reference, args.generated, args.out)
    jobs = args.jobs or min(CORES.free(), -(-len(pairs) // CLIPS_A_JOB))
    summary = metrics.evaluate(args.reference, args.generated, args.out, args.scores, jobs, extra=extra)
    for name, value in summary.items():
        if isinstance(value, dict) and "mean" in value:
            interval = f"{value['low']:.3f} to {value['high']:.3f}, " if value["n"] > 1 else ""
            mean = f"{value['mean']:9.3f}" if value["n"] else f"{'none':>9}"  # of silence, some scores do not exist
            print(f"{name:18} {mean}  ({interval}n {value['n']})")
    print(f"{args.out / 'scores.csv'}, {args.out / 'summary.json'}")
    faults = summary.get("faults", {})
    if args.clips:
        from melglow_plugin.evaluation.comparison import write_comparison

        sound = {key: pair for key, pair in pairs.items() if key not in faults}
        print(f"listen: {write_comparison(args.out, sound, summary, args.clips).resolve()}")
    for message in faults.values():
        print(message, file=sys.stderr)
    if faults:
        total = len(faults) + summary["utterances"]
        raise ValueError(f"{len(faults)} of {total} not scored: {', '.join([*faults][:5])}")


def _logged(log: Path) -> dict[str, dict]:
    """The rows of ``melglow copy --log`` by id."""
    rows = read_csv(log)
    if rows and "id" not in rows[0]:
        raise ValueError(
            f"--log {log} is none of melglow copy: it has no column id, but {', '.join(map(str, rows[0]))}"
        )
    return {row["id"]: _extra(row, log) for row in rows}


def _blind(args: argparse.Namespace) -> None:
    from melglow_plugin.evaluation.blind import write_blind
    from melglow_plugin.evaluation.evaluate import pairs_of

    page = args.out / "blind.html"
    check_output(page)
    folders = (args.generated, args.blind)
    if len({folder.resolve() for folder in folders}) < 2:
        raise ValueError(f"--blind {args.blind} is the folder it would be compared with")
    found = [pairs_of(args.reference, folder, args.out) for folder in folders]
    for _, alone in found:
        if alone:
            raise ValueError(next(iter(alone.values())))
    pairs = [pairs for pairs, _ in found]
    recordings = {key: recording for key, (recording, _) in pairs[0].items()}
    copies = [{key: copy for key, (_, copy) in found.items()} for found in pairs]
    systems = dict(zip(_told_apart(*folders), copies, strict=True))
    print(f"listen: {write_blind(page, recordings, systems, args.clips or len(recordings)).resolve()}")


def _told_apart(one: Path, two: Path) -> tuple[str, str]:
    """Names of two folders: the parts of their paths that differ, or the whole paths."""
    a, b = one.resolve().parts, two.resolve().parts
    while a and b and a[0] == b[0]:
        a, b = a[1:], b[1:]
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    return ("/".join(a), "/".join(b)) if a and b else (str(one), str(two))


def _extra(row: dict[str, str], log: Path) -> dict[str, float]:
    try:
        return {key: float(row[key]) for key in ("rtf", "bits_per_sample") if key == "rtf" or key in row}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{log}: {error} is no number of a log that melglow copy wrote") from error


def bench(args: argparse.Namespace) -> None:
    """Speed: warm-up, interleaved rounds, percentiles; others at random weights in the same rounds."""
    import torch

    from melglow_plugin.evaluation import bench as benchmark
    from melglow_plugin.vocoder import Vocoder

    channels = {"hifigan-v1": 512, "hifigan-v2": 128, "waveglow-64": 64, "waveglow-256": 256}
    if unknown := sorted(set(args.against) - {*channels, "onnx"}):
        raise ValueError(f"--against {', '.join(unknown)}: none of {', '.join(channels)}, onnx")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.out:
        for name in ("bench.json", "bench.png"):
            check_output(args.out / name)
    model = pretrained_model() if args.checkpoint is None else args.checkpoint
    vocoder = Vocoder.from_pretrained(model, args.device, getattr(torch, args.dtype))
    against = {}
    for name in args.against:
        if name == "onnx":
            against[name] = benchmark.onnx(vocoder)
            continue
        if name.startswith("hifigan"):
            from melglow_plugin.coqui.baselines import hifigan as make
        else:
            make = benchmark.waveglow
        against[name] = make(vocoder, channels[name])
    timings = benchmark.run(vocoder, args.lengths, args.batches, against, args.repeats)
    print(f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads, {args.repeats} rounds")
    print(benchmark.table(timings))
    if args.out:
        benchmark.write(timings, args.out, vocoder.device)
        print(f"{args.out / 'bench.json'}, {args.out / 'bench.png'}")
