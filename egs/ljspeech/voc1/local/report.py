#!/usr/bin/env python3
"""Stage 5: the page to listen to, and the model's card, from what the earlier stages wrote."""

import argparse
import csv
import json
import sys
from pathlib import Path

import torch

from melglow_plugin.checkpoint import folder as checkpoint
from melglow_plugin.evaluation.evaluate import read_scores, summarise
from melglow_plugin.evaluation.report import Clip, Scatter, System, write_report
from melglow_plugin.files import files_in, read_scp, read_table

SPOKEN = "text to speech"


def training_curve(exp: Path) -> list[dict[str, float]]:
    """One row an epoch, from the reporter in the trainer's checkpoint; none of a run of minutes, which has no dev."""
    if not (exp / "checkpoint.pth").is_file():
        return []
    stats = torch.load(exp / "checkpoint.pth", map_location="cpu", weights_only=True)["reporter"]["stats"]
    rows = []
    for epoch, parts in sorted(stats.items()):
        row = {"epoch": float(epoch)}
        for part, name in (("train", "train"), ("valid", "dev")):
            for key in ("nll", "stft", "mel", "bits"):
                if key in parts.get(part, {}):
                    row[f"{name}/{key}"] = float(parts[part][key])
        rows.append(row)
    return rows


def best_epoch(curve: list[dict[str, float]]) -> dict[str, str]:
    """The page's line of it, where epochs were validated."""
    if not curve:
        return {}
    best = min(curve, key=lambda row: sum(v for k, v in row.items() if k in ("dev/nll", "dev/stft", "dev/mel")))
    bits, nats = best["dev/bits"], best["dev/nll"]
    return {"Dev, best epoch": f"epoch {best['epoch']:.0f}, {bits:.3f} bits per sample ({nats:.3f} nats)"}


def training_seconds(exp: Path) -> float:
    """Time spent in training epochs, which the trainer keeps with its statistics, or in a run of minutes."""
    if not (exp / "checkpoint.pth").is_file():
        return json.loads((exp / "log.json").read_text())["log"][-1]["seconds"]
    stats = torch.load(exp / "checkpoint.pth", map_location="cpu", weights_only=True)["reporter"]["stats"]
    return sum(parts["train"]["time"]["__timedelta_seconds__"] for parts in stats.values())


def history(training: dict) -> str:
    """What a model continued from, as that model's own folder tells it."""
    folder = training.get("continued_from")
    if not folder:
        others = training.get("initialised_from")
        return f"continued from {', '.join(others)}" if others else "from scratch"
    before = checkpoint.read_config(Path(folder) / checkpoint.CONFIG_FILE)["training"]
    facts = [f"{before[key]} {unit}" for key, unit in (("steps", "steps"), ("hours", "hours")) if key in before]
    facts += [f"on {before[key]}" for key in ("data", "device") if key in before]
    return f"it continues from {Path(folder).name}: {', '.join(facts)}; {history(before)}"


def read_texts(path: Path) -> dict[str, str]:
    return read_table(path) if path.is_file() else {}


def spoken_clips(folder: Path, lists: Path, data: Path) -> list[Clip]:
    """An acoustic model's sentences through the vocoder, beside the recordings of the same sentences."""
    recordings, texts = {}, {}
    for part in ("tr_no_dev", "dev", "eval1"):
        recordings |= read_scp(lists / part / "wav.scp") if (lists / part / "wav.scp").is_file() else {}
        texts |= read_texts(data / part / "text")
    found = files_in(folder, (".wav",))
    if unknown := [key for key in found if key not in recordings]:
        raise ValueError(f"{folder}: {', '.join(unknown)} are recordings of no list in {lists}")
    return [
        Clip(key, texts.get(key, ""), {"recording": Path(recordings[key]), SPOKEN: wav}) for key, wav in found.items()
    ]


def title(decode: Path, model: checkpoint.Checkpoint | None = None) -> str:
    """What a decoding folder's copies are called: the model's class, the experiment, the rounds of refinement."""
    model = model or checkpoint.load(decode / "model")
    return f"{type(model.flow).__name__} ({decode.parent.name}, refine {model.refine})"


def among_others(decodes: dict[str, Path], summaries: dict, bench: Path | None) -> list[Scatter]:
    """Distill-MOS over parameters, and over computing time where ``melglow bench --against hifigan-v2`` measured it."""
    known = {name: summaries[name].get("distill_mos") for name in decodes}
    means = {name: entry["mean"] for name, entry in known.items() if entry and entry["mean"] is not None}
    if not means:
        return []
    with open(Path(__file__).with_name("anchors.csv"), newline="", encoding="utf-8") as file:
        anchors = list(csv.DictReader(file))
    source = (
        "Blue points: other people's models, trained on 24 hours for about a million steps. Distill-MOS of the copies "
        "on their public demonstration pages (4 to 10 clips each, so differences below 0.25 say little), time beside "
        "HiFi-GAN V2 in one run on one thread; design notes of this project."
    )
    sizes = {n: sum(p.numel() for p in checkpoint.load(decodes[n] / "model").flow.parameters()) / 1e6 for n in means}
    points = [(sizes[name], mean, name, True) for name, mean in means.items()]
    points += [(float(a["parameters_m"]), float(a["distill_mos"]), a["system"], False) for a in anchors]
    charts = [Scatter("Quality and size", "million parameters", "Distill-MOS", points, source)]
    if bench is not None:
        timings = json.loads(bench.read_text())["timings"]
        rtf = {t["system"]: t["rtf"] for t in timings if t["batch"] == 1 and t["seconds"] == 1.0}
        if not {"MelGlow", "hifigan-v2"} <= set(rtf):
            raise ValueError(f"{bench} has no MelGlow and hifigan-v2 at 1 s: melglow bench --against hifigan-v2")
        # Timed is the model of this page; the other experiments are not drawn here.
        mine = next(iter(means))
        points = [(rtf["MelGlow"] / rtf["hifigan-v2"], means[mine], mine, True)]
        points += [
            (float(a["times_hifigan_v2"]), float(a["distill_mos"]), a["system"], False)
            for a in anchors if a["times_hifigan_v2"]
        ]  # fmt: skip
        charts.append(Scatter("Quality and speed", "times HiFi-GAN V2's time", "Distill-MOS", points, source))
    return charts


def main() -> None:
    if sys.argv[1:2] == ["--hours"]:  # of training, for the model's card
        print(f"{training_seconds(Path(sys.argv[2])) / 3600:.2f}")
        return
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("exp", "decode", "expdir", "lists", "text", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--corpus", default="LJSpeech", help="its name, for the title")
    parser.add_argument(
        "--spoken", type=Path, help="wavs of an acoustic model with this vocoder, KEY.wav of training clips"
    )
    parser.add_argument(
        "--compare", type=Path, nargs="*", default=[], help="decoding folders of other experiments, on the same eval"
    )
    parser.add_argument("--bench", type=Path, help="JSON of melglow bench --against hifigan-v2, for the chart of speed")
    parser.add_argument("--clips", type=int, default=12, help="clips on the page")
    args = parser.parse_args()
    curve, hours = training_curve(args.exp), training_seconds(args.exp) / 3600
    model = checkpoint.load(args.decode / "model")
    name = title(args.decode, model)
    decodes = {name: args.decode} | {title(folder): folder for folder in args.compare}
    recordings = read_scp(args.lists / "eval1" / "wav.scp")
    scores = {each: read_scores(folder / "scores" / "eval1" / "scores.csv") for each, folder in decodes.items()}
    scores["Griffin-Lim"] = read_scores(args.expdir / "griffin_lim" / "scores" / "eval1" / "scores.csv")
    wavs = {each: folder / "wav" / "eval1" for each, folder in decodes.items()}
    wavs["Griffin-Lim"] = args.expdir / "griffin_lim" / "eval1"
    texts = read_texts(args.text)
    summaries = {system: summarise(rows.values()) for system, rows in scores.items()}
    clips = [
        Clip(
            key,
            texts.get(key, ""),
            {"recording": Path(recordings[key]), **{system: folder / f"{key}.wav" for system, folder in wavs.items()}},
            {system: rows[key] for system, rows in scores.items()},
        )
        for key in sorted(recordings)[: args.clips]
    ]
    systems = [
        System("recording"),
        *(System(each, "from its mel", everywhere=False) for each in decodes),
        System("Griffin-Lim", "from the same mel, 60 iterations", everywhere=False),
    ]
    if args.spoken:
        systems.append(System(SPOKEN, "no recording's mel: an acoustic model made it from the text", everywhere=False))
        clips = spoken_clips(args.spoken, args.lists, args.text.parents[1]) + clips
    where = ", ".join(str(model.training[name]) for name in ("data", "device") if name in model.training)
    facts = {
        "Model": f"{name}, {sum(p.numel() for p in model.flow.parameters()):,} parameters",
        "Trained": f"{model.training.get('steps', '?')} steps"
        f"{f' in {len(curve)} epochs' if curve else ''}, {hours:.2f} hours"
        f"{where and ', on '}{where}; {history(model.training)}",
        **best_epoch(curve),
        "Copies": f"{len(recordings)} recordings of eval, never trained on; sampled as {args.decode.name}",
    }
    page = write_report(
        args.out, f"{name}: copies of {args.corpus}", facts, clips, systems, summaries, curve,
        "Copy-synthesis: a waveform is made from the mel of a recording.", among_others(decodes, summaries, args.bench),
    )  # fmt: skip
    print(page)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"report.py: {error}")
