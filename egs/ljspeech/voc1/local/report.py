#!/usr/bin/env python3
"""Stage 5: the page to listen to, and the model's card, from what the earlier stages wrote."""

import argparse
import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from melglow_plugin.checkpoint import folder as checkpoint
from melglow_plugin.checks import run_main
from melglow_plugin.evaluation.evaluate import read_scores, summarise
from melglow_plugin.evaluation.report import Clip, Scatter, System, write_report
from melglow_plugin.files import files_in, read_scp, read_table
from melglow_plugin.inference.resynthesis import RESYNTHESIS

SPOKEN = "text to speech"
BASELINES = {  # of local/baseline.py: title, what it is, million parameters
    "hifigan": ("HiFi-GAN V1", "trained by its authors on LJSpeech, 13.9 M parameters, from its own mel", 13.9),
    "griffin_lim": ("Griffin-Lim", "from the same mel, 60 iterations", None),
}
TIMED = (
    "Time: what a second of audio took to compute while these copies were made, with as many threads for each system."
)
ANCHORS = (
    "Blue points: other people's models, trained on 24 hours for about a million steps. Distill-MOS of the copies "
    "on their public demonstration pages (4 to 10 clips each, so differences below 0.25 say little), time beside "
    "HiFi-GAN V2 in one run on one thread; design notes of this project."
)


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
    shown = f"epoch {best['epoch']:.0f}"
    if "dev/bits" in best:  # of a flow
        shown += f", {best['dev/bits']:.3f} bits per sample ({best['dev/nll']:.3f} nats)"
    return {"Dev, best epoch": shown}


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


@dataclass
class Copies:
    """One system's copies of eval.

    Args:
        wavs: folder of KEY.wav.
        scores: folder of scores.csv.
        parameters: in millions; None: it has none.
        own: trained by this recipe.
    """

    name: str
    about: str
    wavs: Path
    scores: Path
    parameters: float | None
    own: bool = False

    def rows(self) -> dict[str, dict[str, float]]:
        return read_scores(self.scores / "scores.csv")


def decoded(folder: Path) -> Copies:
    """Of a decoding folder: named by the model's class, the experiment and the rounds of refinement, if it has any."""
    model = checkpoint.load(folder / "model")
    rounds = "" if model.refine == RESYNTHESIS else f", refine {model.refine}"
    name = f"{type(model.flow).__name__} ({folder.parent.name}{rounds})"
    return Copies(name, "from its mel", folder / "wav/eval1", folder / "scores/eval1", parameters(model) / 1e6, True)


def parameters(model: checkpoint.Checkpoint) -> int:
    return sum(p.numel() for p in model.flow.parameters())


def baseline(name: str, expdir: Path) -> Copies:
    """What local/baseline.py made."""
    if name not in BASELINES:
        raise ValueError(f"--baselines {name} is none of {', '.join(BASELINES)}")
    title, about, size = BASELINES[name]
    return Copies(title, about, expdir / name / "eval1", expdir / name / "scores/eval1", size)


def charts(systems: list[Copies], summaries: dict[str, dict], bench: Path | None) -> list[Scatter]:
    """Quality over time as measured in this run, over parameters beside other people's models, and over the time of
    ``melglow bench --against hifigan-v2`` where that was measured."""

    def mean(system: Copies, score: str) -> float | None:
        return (summaries[system.name].get(score) or {}).get("mean")

    found = []
    for score, label in (("distill_mos", "Distill-MOS"), ("pesq", "PESQ")):
        points = [(mean(s, "rtf"), mean(s, score), s.name, s.own) for s in systems if mean(s, "rtf") and mean(s, score)]
        if len(points) > 1:
            found.append(Scatter(f"{label} and time", "real-time factor of these copies", label, points, TIMED))
    means = {system.name: mean(system, "distill_mos") for system in systems if system.own}
    if not all(means.values()):
        return found
    with open(Path(__file__).with_name("anchors.csv"), newline="", encoding="utf-8") as file:
        anchors = list(csv.DictReader(file))
    points = [(s.parameters, means[s.name], s.name, True) for s in systems if s.own]
    points += [(float(a["parameters_m"]), float(a["distill_mos"]), a["system"], False) for a in anchors]
    found.append(Scatter("Quality and size", "million parameters", "Distill-MOS", points, ANCHORS))
    if bench is not None:
        # Timed is the model of this page; the other experiments are not drawn here.
        name = next(iter(means))
        points = [(times_hifigan_v2(bench), means[name], name, True)]
        points += [(float(a["times_hifigan_v2"]), float(a["distill_mos"]), a["system"], False)
                   for a in anchors if a["times_hifigan_v2"]]  # fmt: skip
        found.append(Scatter("Quality and speed", "times HiFi-GAN V2's time", "Distill-MOS", points, ANCHORS))
    return found


def times_hifigan_v2(bench: Path) -> float:
    timings = json.loads(bench.read_text())["timings"]
    rtf = {t["system"]: t["rtf"] for t in timings if t["batch"] == 1 and t["seconds"] == 1.0}
    if not {"MelGlow", "hifigan-v2"} <= set(rtf):
        raise ValueError(f"{bench} has no MelGlow and hifigan-v2 at 1 s: melglow bench --against hifigan-v2")
    return rtf["MelGlow"] / rtf["hifigan-v2"]


def facts(exp: Path, decode: Path, name: str, copies: int, curve: list[dict[str, float]]) -> dict[str, str]:
    """The lines about the model."""
    model = checkpoint.load(decode / "model")
    where = ", ".join(str(model.training[key]) for key in ("data", "device") if key in model.training)
    epochs = f" in {len(curve)} epochs" if curve else ""
    trained = f"{model.training.get('steps', '?')} steps{epochs}, {training_seconds(exp) / 3600:.2f} hours"
    return {
        "Model": f"{name}, {parameters(model):,} parameters",
        "Trained": f"{trained}{where and ', on '}{where}; {history(model.training)}",
        **best_epoch(curve),
        "Copies": f"{copies} recordings of eval, never trained on; sampled as {decode.name}",
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("exp", "decode", "expdir", "lists", "text", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--corpus", default="LJSpeech", help="its name, for the title")
    parser.add_argument(
        "--spoken", type=Path, help="wavs of an acoustic model with this vocoder, KEY.wav of training clips"
    )
    parser.add_argument("--baselines", nargs="*", default=["griffin_lim"], help=f"copied by: {', '.join(BASELINES)}")
    parser.add_argument(
        "--compare", type=Path, nargs="*", default=[], help="decoding folders of other experiments, on the same eval"
    )
    parser.add_argument("--bench", type=Path, help="JSON of melglow bench --against hifigan-v2, for the chart of speed")
    parser.add_argument("--clips", type=int, default=12, help="clips on the page")
    return parser.parse_args()


def main() -> None:
    if sys.argv[1:2] == ["--hours"]:  # of training, for the model's card
        print(f"{training_seconds(Path(sys.argv[2])) / 3600:.2f}")
        return
    args = parse()
    own = [decoded(folder) for folder in (args.decode, *args.compare)]
    systems = own + [baseline(name, args.expdir) for name in args.baselines]
    scores = {system.name: system.rows() for system in systems}
    summaries = {name: summarise(rows.values()) for name, rows in scores.items()}
    recordings, texts = read_scp(args.lists / "eval1" / "wav.scp"), read_texts(args.text)
    clips = [
        Clip(
            key,
            texts.get(key, ""),
            {"recording": Path(recordings[key]), **{system.name: system.wavs / f"{key}.wav" for system in systems}},
            {name: rows[key] for name, rows in scores.items()},
        )
        for key in sorted(recordings)[: args.clips]
    ]
    shown = [System("recording"), *(System(system.name, system.about, everywhere=False) for system in systems)]
    if args.spoken:
        shown.append(System(SPOKEN, "no recording's mel: an acoustic model made it from the text", everywhere=False))
        clips = spoken_clips(args.spoken, args.lists, args.text.parents[1]) + clips
    curve, name = training_curve(args.exp), own[0].name
    page = write_report(
        args.out, f"{name}: copies of {args.corpus}", facts(args.exp, args.decode, name, len(recordings), curve),
        clips, shown, summaries, curve, "Copy-synthesis: a waveform is made from the mel of a recording.",
        charts(systems, summaries, args.bench),
    )  # fmt: skip
    print(page)


if __name__ == "__main__":
    run_main(main)
