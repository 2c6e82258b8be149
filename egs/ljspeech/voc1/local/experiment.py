#!/usr/bin/env python3
"""What run_experiment.sh shows: dev nats over steps and over compute, scores of the copies; CSV, a table, a picture."""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import yaml
from report import training_curve
from torch.utils.flop_counter import FlopCounterMode

from melglow_plugin.checks import from_dict, run_main
from melglow_plugin.espnet.model import ESPnetVocoderModel
from melglow_plugin.evaluation.evaluate import SCORES
from melglow_plugin.files import read_csv, write_csv
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.melglow import MODELS
from melglow_plugin.training.crops import segment_samples
from melglow_plugin.training.objective import LossConfig

SIZES = ("small", "base", "large")
NAMES = {"melglow": "MelGlow", "waveglow": "WaveGlow"}
SHOWN = ("mcd_dtw", "estoi", "mel_l1", "pesq", "distill_mos", "dnsmos", "bits_per_sample")

NOT_NUMBERS = ("model", "size", "seed", "score")


class Step:
    """One training step of a run's configuration on noise, to count and to time."""

    def __init__(self, config: dict) -> None:
        convention = MelConvention.espnet(**config["feats_extract_conf"])
        flow = MODELS[config["vocoder"]](**config["vocoder_conf"])
        flow.set_mel_bands(*convention.band_powers())
        loss = from_dict(LossConfig, config["loss_conf"] | {"spectral_start": 0}, "loss_conf")
        self.model = ESPnetVocoderModel(flow, convention, loss, **config["model_conf"])
        self.optimizer = torch.optim.Adam(flow.parameters(), lr=1e-6)
        self.speech = 0.1 * torch.randn(config["batch_size"], segment_samples(convention, config["segment_frames"]))
        self.parameters = sum(p.numel() for p in flow.parameters())

    def __call__(self) -> float:
        """Seconds that it took."""
        start = time.perf_counter()
        self.model(speech=self.speech)[0].sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start

    def gmac(self) -> float:
        """Multiply-accumulates of products and convolutions, forward and backward, in thousands of millions."""
        with FlopCounterMode(display=False) as counter:
            self()
        return counter.get_total_flops() / 2e9


def runs(expdir: Path) -> list[dict]:
    """The experiments below ``expdir`` that have a checkpoint: ``MODEL_SIZE_seedN``."""
    found = []
    for folder in expdir.glob("*_seed*"):
        model, size, seed = folder.name.split("_")
        if (folder / "checkpoint.pth").is_file():
            config = yaml.safe_load((folder / "config.yaml").read_text())
            found.append({"model": model, "size": size, "seed": seed[4:], "folder": folder, "config": config})
    if not found:
        raise ValueError(f"{expdir} holds no MODEL_SIZE_seedN with a checkpoint.pth: run run_experiment.sh")
    return sorted(found, key=lambda run: (SIZES.index(run["size"]), run["model"], run["seed"]))


def measure(found: list[dict], rounds: int) -> dict[tuple[str, str], dict]:
    """Parameters, GMAC and median seconds of a step of each model and size, timed in turns."""
    steps = {(run["model"], run["size"]): Step(run["config"]) for run in found}
    costs = {key: {"parameters": step.parameters, "gmac": step.gmac()} for key, step in steps.items()}
    times = {key: [] for key in steps}
    for _ in range(rounds):
        for key, step in steps.items():
            times[key].append(step())
    for key, values in times.items():
        costs[key]["seconds"] = statistics.median(values)
    return costs


def curves(found: list[dict], costs: dict, steps: int | None) -> list[dict]:
    """Dev nats at every validation up to ``steps``."""
    rows = []
    for run in found:
        cost = costs[run["model"], run["size"]]
        for row in training_curve(run["folder"]):
            step = int(row["epoch"]) * run["config"]["num_iters_per_epoch"]
            if steps is not None and step > steps:
                continue
            rows.append({
                "model": run["model"], "size": run["size"], "parameters": cost["parameters"], "seed": run["seed"],
                "step": step, **_after(step, cost),
                "dev_nll": round(row["dev/nll"], 4),
            })  # fmt: skip
    return rows


def scores(found: list[dict]) -> list[dict]:
    """Mean and 95 % interval of every score of eval1, where stages 3 and 4 were run."""
    rows = []
    for run in found:
        for path in run["folder"].glob("decode_*/scores/eval1/summary.json"):
            for name, entry in json.loads(path.read_text()).items():
                if name in SCORES and entry["mean"] is not None:
                    rows.append({key: run[key] for key in ("model", "size", "seed")} | {"score": name} | entry)
    return rows


def earlier(path: Path, rows: list[dict]) -> list[dict]:
    """The rows of a CSV of an earlier call, perhaps on another machine, and then ``rows``, whose runs replace its."""
    mine = {_key(row) for row in rows}
    read = [{k: v if k in NOT_NUMBERS else _number(v) for k, v in row.items()} for row in read_csv(path)]
    return [row for row in read if _key(row) not in mine] + rows


def earlier_curves(folder: Path, points: list[dict], costs: dict) -> list[dict]:
    """The same of curves.csv, operations and seconds as this code and this machine take them."""
    rows = earlier(folder / "curves.csv", points)
    if unknown := {_key(row)[:2] for row in rows} - costs.keys():
        raise ValueError(f"{folder}: {unknown} was not run here, so its step was not timed beside the others'")
    return [row | _after(row["step"], costs[_key(row)[:2]]) for row in rows]


def _after(steps: int, cost: dict) -> dict:
    return {"gmac": round(steps * cost["gmac"], 1), "seconds": round(steps * cost["seconds"], 2)}


def _key(row: dict) -> tuple[str, str, str]:
    return row["model"], row["size"], row["seed"]


def _number(text: str) -> int | float | None:
    if not text:
        return None
    return int(text) if text.isdigit() else float(text)


def table(points: list[dict], scored: list[dict], costs: dict) -> str:
    """One row a model and size; several seeds are averaged, their number of runs stands beside them."""
    names = [name for name in SHOWN if any(row["score"] == name for row in scored)]
    heads = ["model", "parameters", "GMAC a step", "s a step", "steps", "dev nats"]
    heads += [f"{SCORES[n].label}{f' [{SCORES[n].unit}]' if SCORES[n].unit else ''}" for n in names]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for (model, size), cost in costs.items():
        mine = [row for row in points if (row["model"], row["size"]) == (model, size)]
        last = max(row["step"] for row in mine)
        ends = [row["dev_nll"] for row in mine if row["step"] == last]
        cells = [f"{NAMES[model]} {size}", f"{cost['parameters']:,}", f"{cost['gmac']:.1f}", f"{cost['seconds']:.2f}"]
        cells += [f"{last:,}", f"{statistics.mean(ends):.3f}" + (f" ({len(ends)} runs)" if len(ends) > 1 else "")]
        for name in names:
            these = [r for r in scored if (r["model"], r["size"], r["score"]) == (model, size, name)]
            half = [r["high"] - r["mean"] for r in these if r["high"] is not None]
            cells.append(
                (f"{statistics.mean(r['mean'] for r in these):.3f}" + (f" ± {max(half):.3f}" if half else ""))
                if these else ""
            )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(points: list[dict], path: Path) -> None:
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    colours, styles = {"melglow": "C0", "waveglow": "C3"}, dict(zip(SIZES, (":", "--", "-"), strict=True))
    axes_of = {
        "step": "steps",
        "gmac": "multiply-accumulates, 10⁹",
        "seconds": "seconds on one core, side by side",
    }
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.5), layout="constrained", sharey=True)
    for axis, (x, label) in zip(axes, axes_of.items(), strict=True):
        for key in dict.fromkeys(_key(r) for r in points):
            mine = [r for r in points if _key(r) == key]
            model, size, _ = key
            axis.plot(
                [r[x] for r in mine], [r["dev_nll"] for r in mine], styles[size], color=colours[model],
                label=f"{NAMES[model]} {size}, {mine[0]['parameters'] / 1e6:.1f} M",
            )  # fmt: skip
        axis.set(xlabel=label, xscale="linear" if x == "step" else "log")
        axis.grid(alpha=0.3)
        if x != "step":
            axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("nats per sample on dev, lower is better")
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    axes[0].legend(handles.values(), handles.keys())
    lowest = min(r["dev_nll"] for r in points)
    axes[0].set_ylim(lowest - 0.05, min(lowest + 2.5, max(r["dev_nll"] for r in points) + 0.05))
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("expdir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="leave out what runs did after so many")
    parser.add_argument("--rounds", type=int, default=7, help="of timing, the models in turns")
    parser.add_argument("--also", type=Path, help="folder of an earlier call: its runs, of other seeds, are shown, too")
    args = parser.parse_args()
    found = runs(args.expdir)
    costs = measure(found, args.rounds)
    points, scored = curves(found, costs, args.steps), scores(found)
    if args.also:
        points = earlier_curves(args.also, points, costs)
        if (args.also / "scores.csv").is_file():
            scored = earlier(args.also / "scores.csv", scored)
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / "curves.csv", points)
    if scored:
        write_csv(args.out / "scores.csv", scored)
    (args.out / "table.md").write_text(table(points, scored, costs) + "\n")
    draw(points, args.out / "curves.png")
    print((args.out / "table.md").read_text())


if __name__ == "__main__":
    run_main(main)
