#!/usr/bin/env python3
"""Print the scores of one experiment as Markdown, draw its dev curve, write both into a model's card."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "local"))
from report import training_curve

from melglow_plugin.checkpoint import folder as checkpoint
from melglow_plugin.checks import run_main
from melglow_plugin.evaluation.evaluate import SCORES


def table(summaries: dict[str, dict]) -> str:
    """A row a score, a column a system: mean and half of the 95 % interval."""
    names = [name for name in SCORES if any(name in summary for summary in summaries.values())]
    lines = [f"| score | {' | '.join(summaries)} |", f"| --- |{' --- |' * len(summaries)}"]
    for name in names:
        cells = []
        for summary in summaries.values():
            entry = summary.get(name)
            known = entry and entry["mean"] is not None
            half = (entry["high"] - entry["mean"]) if known and entry["high"] is not None else None
            cells.append("" if not known else f"{entry['mean']:.3f}" + ("" if half is None else f" ± {half:.3f}"))
        unit = f" [{SCORES[name].unit}]" if SCORES[name].unit else ""
        lines.append(f"| {SCORES[name].label}{unit} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(curve: list[dict[str, float]], path: Path) -> None:
    """Dev and train values of each term over epochs."""
    import matplotlib.pyplot as plt

    terms = {"nll": "nats per sample", "stft": "multi-resolution STFT distance", "mel": "log-mel L1, nats"}
    figure, axes = plt.subplots(1, len(terms), figsize=(12, 3.5), layout="constrained")
    for axis, (term, label) in zip(axes, terms.items(), strict=True):
        for part in ("train", "dev"):
            points = [(row["epoch"], row[f"{part}/{term}"]) for row in curve if f"{part}/{term}" in row]
            if points:
                axis.plot(*zip(*points, strict=True), label=part)
        axis.set(xlabel="epoch", title=label)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=90)


def joined_curve(experiments: list[Path]) -> list[dict[str, float]]:
    """The epochs of experiments that continued one from the other, counted on."""
    rows = []
    for exp in experiments:
        before = rows[-1]["epoch"] if rows else 0
        rows += [row | {"epoch": before + row["epoch"]} for row in training_curve(exp)]
    return rows


def tell(folder: Path, summary: dict, curve: list[dict[str, float]], text: str) -> None:
    """Put scores, dev bits and ``text`` into ``config.json`` of a model folder, and write its card anew."""
    loaded = checkpoint.load(folder)
    metrics = {f"dev, {n}": f"{curve[-1][k]:.3f}" for n, k in (("bits per sample", "dev/bits"), ("nats", "dev/nll"))}
    for name, entry in ((name, summary[name]) for name in SCORES if name in summary and name != "rtf"):
        if entry["mean"] is not None:
            half = "" if entry["high"] is None else f" ± {entry['high'] - entry['mean']:.3f}"
            unit = f", {SCORES[name].unit}" if SCORES[name].unit else ""
            metrics[f"eval, {SCORES[name].label}{unit}"] = f"{entry['mean']:.3f}{half}"
    loaded.training["metrics"] = metrics
    if text:
        loaded.training["artefacts"] = text
    (folder / checkpoint.CARD_FILE).unlink(missing_ok=True)
    stored = checkpoint.read_safetensors(folder / checkpoint.WEIGHTS_FILE)
    checkpoint.save(folder, loaded, stored[next(name for name, _ in loaded.flow.named_parameters())].dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp", type=Path, nargs="+", required=True, help="experiments that followed each other")
    parser.add_argument("--decode", type=Path, required=True)
    parser.add_argument("--also", nargs=2, action="append", default=[], metavar=("NAME", "DECODE"), help="more columns")
    parser.add_argument("--expdir", type=Path, required=True)
    parser.add_argument("--curve", type=Path, help="PNG to draw")
    parser.add_argument("--model", type=Path, help="model folder whose card shall show them")
    parser.add_argument("--artefacts", default="", help="defects of the output, for the card")
    args = parser.parse_args()
    folders = {
        "MelGlow": args.decode / "scores" / "eval1",
        **{name: Path(folder) / "scores" / "eval1" for name, folder in args.also},
        "Griffin-Lim": args.expdir / "griffin_lim" / "scores" / "eval1",
    }
    summaries = {name: json.loads((folder / "summary.json").read_text()) for name, folder in folders.items()}
    print(table(summaries))
    if args.curve:
        draw(joined_curve(args.exp), args.curve)
    if args.model:
        tell(args.model, summaries["MelGlow"], training_curve(args.exp[-1]), args.artefacts)


if __name__ == "__main__":
    run_main(main)
