#!/usr/bin/env python3
"""Whether the configurations of each sample rate learn, and what squeeze, LPC order and hop do in the first steps.

    OMP_NUM_THREADS=1 python benchmarks/rates.py RECORDINGS... -o benchmarks/results/rates.json --plot rates.png

RECORDINGS: folders or lists. Each configuration takes 200 steps, with 8 channels, two crops of 0.2 s, without
discriminators and without refinement, which hides what a flow has learned; then its variants take 60. Every run begins
from nothing and sees the same crops. Recordings of a lower rate than a configuration's are left out, of a higher one
converted. A run that was stopped goes on, one that is done is not run again; ``--minutes`` ends between two runs.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from melglow_plugin.checks import run_main
from melglow_plugin.files import audio_info, read_mapping
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.melglow import build
from melglow_plugin.training.corpus_voices import Recording, read_source
from melglow_plugin.training.crops import segment_samples, wav_and_mel
from melglow_plugin.training.device_corpus import DeviceCorpus
from melglow_plugin.training.objective import FlowObjective, LossConfig
from melglow_plugin.training.variation import VariationConfig

CONF = Path(__file__).parents[1] / "conf"
SECONDS = 0.2  # of a crop
DEV_CROPS, DEV_EVERY = 12, 20  # of recordings that are not trained on; steps between two looks at them
BATCH = 2  # crops
CONF_STEPS, VARIANT_STEPS, SMALL = 200, 60, {"channels": 8}
VARIANTS = {  # of each configuration: changes of vocoder_conf or feats_extract_conf
    "melglow_16k": ["squeeze_factor=4", "squeeze_factor=16", "lpc_order=16", "hop_length=128"],
    "melglow_24k": ["squeeze_factor=6", "squeeze_factor=10", "squeeze_factor=20", "lpc_order=50", "lpc_order=0"],
    "melglow_44k": ["squeeze_factor=8", "lpc_order=32", "hop_length=256"],
    "melglow_48k": ["squeeze_factor=8", "lpc_order=32", "hop_length=512"],
}


@dataclass
class Setting:
    """A configuration of ``conf/``, and changes of it."""

    name: str
    changes: dict[str, int] = field(default_factory=dict)

    def read(self) -> tuple[MelConvention, dict, LossConfig, dict]:
        """The mel, the model's sizes, the loss and everything that the file holds."""
        values = read_mapping(CONF / f"{self.name}.yaml")
        mel, sizes = values["feats_extract_conf"], values["vocoder_conf"] | SMALL
        for key, value in self.changes.items():
            (mel if key in mel else sizes)[key] = value
        loss = {**values["loss_conf"], "spectral_start": 0, "refine": 0}
        return MelConvention.espnet(**mel), sizes, LossConfig(**loss), values

    @property
    def key(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.changes.items())])


def settings() -> Iterator[tuple[Setting, int]]:
    """All runs and their steps: the configurations, then their variants."""
    for name in VARIANTS:
        yield Setting(name), CONF_STEPS
    for name in ("melglow_24k", "melglow_44k", "melglow_16k", "melglow_48k"):
        for variant in VARIANTS[name]:
            key, _, value = variant.partition("=")
            yield Setting(name, {key: int(value)}), VARIANT_STEPS


class Training:
    """A model from nothing, its optimizer, and the crops of both sets."""

    def __init__(self, setting: Setting, recordings: list[Recording]) -> None:
        self.convention, sizes, loss, values = setting.read()
        rate = self.convention.sample_rate
        self.frames = round(SECONDS * rate / self.convention.hop_length)
        usable = [each for each in recordings if audio_info(each.path).samplerate >= rate]
        parts = usable[8:], usable[:8]
        size = segment_samples(self.convention, self.frames)
        cpu = torch.device("cpu")
        level = VariationConfig(level=12.0)
        self.train, self.dev = (DeviceCorpus(part, rate, size, level, 1.0, cpu, 0) for part in parts)
        self.recordings = len(parts[0])
        torch.manual_seed(0)
        mel = {"n_mels": self.convention.n_mels, "hop_length": self.convention.hop_length}
        self.flow = build(values["vocoder"], {**mel, **sizes})
        self.flow.set_mel_bands(*self.convention.band_powers())
        mels = torch.cat([wav_and_mel(self.train.crops(n, 8), self.convention, self.frames)[1] for n in range(8)])
        self.flow.set_mel_statistics(mels.mean((0, 2)), mels.std((0, 2)))
        self.objective = FlowObjective(self.convention, loss)
        lr, ratio = values["optim_conf"]["lr"], values["kernel_lr_ratio"]
        self.optimizer = torch.optim.Adam(self.flow.parameter_groups(lr, ratio), betas=(0.8, 0.99))
        self.grad_clip = values["grad_clip"]

    def loss(self, corpus: DeviceCorpus, step: int, batch: int) -> tuple[torch.Tensor, dict]:
        torch.manual_seed(step)
        return self.objective(self.flow, *wav_and_mel(corpus.crops(step, batch), self.convention, self.frames))

    def step(self, number: int) -> dict[str, float]:
        """One update; the terms of its loss."""
        loss, stats = self.loss(self.train, number, BATCH)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.flow.parameters(), self.grad_clip)
        self.optimizer.step()
        return _terms(stats)

    @torch.no_grad()
    def score(self) -> dict[str, float]:
        """The terms on crops that are not trained on."""
        self.flow.eval()
        _, stats = self.loss(self.dev, 0, DEV_CROPS)
        self.flow.train()
        return _terms(stats)


def _terms(stats: dict) -> dict[str, float]:
    return {name: round(float(stats[name]), 4) for name in ("nll", "stft", "mel", "loss")}


def run(setting: Setting, steps: int, recordings: list[Recording], state: Path) -> dict:
    """The curve of one run, and what it cost; ``state`` keeps a run that was stopped."""
    training, curve = Training(setting, recordings), {"train": [], "dev": [], "seconds": 0.0}
    saved = torch.load(state) if state.exists() else {}
    if saved.get("key") == setting.key:
        training.flow.load_state_dict(saved["flow"])
        training.optimizer.load_state_dict(saved["optimizer"])
        curve = saved["curve"]
    train, dev, began = curve["train"], curve["dev"], time.perf_counter() - curve["seconds"]
    for number in range(len(train), steps + 1):
        if number % DEV_EVERY == 0:
            curve["seconds"] = time.perf_counter() - began
            parts = {"flow": training.flow.state_dict(), "optimizer": training.optimizer.state_dict()}
            torch.save({"key": setting.key, "curve": curve, **parts}, state)
            dev.append({"step": number, **training.score()})
        if number < steps:
            train.append(training.step(number))
    state.unlink()
    convention, flow, seconds = training.convention, training.flow, time.perf_counter() - began
    return {
        "sample_rate": convention.sample_rate, "hop_length": convention.hop_length,
        "squeeze_factor": flow.squeeze_factor, "lpc_order": flow.hyperparameters["lpc_order"],
        "parameters": sum(p.numel() for p in flow.parameters()), "recordings": training.recordings,
        "crop": training.frames * convention.hop_length, "seconds_per_step": round(seconds / steps, 3),
        "train": train, "dev": dev,
    }  # fmt: skip


def table(runs: dict[str, dict]) -> str:
    """Markdown: each run's terms on dev before its first step, after 60, and after its last."""
    lines = [
        "| run | Hz | hop | squeeze | LPC | steps | nats per sample | STFT distance | mel L1, nats | s a step |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key in sorted(runs):
        found, facts = runs[key], [str(runs[key][name]) for name in ("sample_rate", "hop_length", "squeeze_factor")]
        looks = [each for each in found["dev"] if each["step"] in (0, VARIANT_STEPS) or each is found["dev"][-1]]
        terms = [" → ".join(f"{each[name]:.3f}" for each in looks) for name in ("nll", "stft", "mel")]
        steps = ", ".join(str(each["step"]) for each in looks)
        cells = [key, *facts, str(found["lpc_order"]), steps, *terms, str(found["seconds_per_step"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(runs: dict[str, dict], path: Path) -> None:
    """The configurations' terms on dev over their steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    names = {"nll": "nats per sample", "stft": "STFT distance", "mel": "mel L1, nats"}
    for axes, (name, label) in zip(figure.subplots(1, len(names)), names.items(), strict=True):
        for key in filter(runs.__contains__, VARIANTS):
            looks = [(each["step"], each[name]) for each in runs[key]["dev"]]
            axes.plot(*zip(*looks, strict=True), label=key)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="*", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON, added to")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many")
    parser.add_argument("--plot", type=Path, help="PNG of the configurations' curves")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recordings = [each for source in args.recordings for each in read_source(source)]
    runs, end = json.loads(args.out.read_text()) if args.out.exists() else {}, time.monotonic() + 60 * args.minutes
    for setting, steps in settings() if recordings else ():
        if setting.key not in runs and time.monotonic() < end:
            runs[setting.key] = run(setting, steps, recordings, args.out.with_suffix(".pt"))
            args.out.write_text(json.dumps(runs, indent=None, separators=(",", ":")).replace('},"', '},\n"') + "\n")
            print(setting.key, runs[setting.key]["dev"][0], runs[setting.key]["dev"][-1], flush=True)
    print(table(runs))
    if args.plot:
        plot(runs, args.plot)


if __name__ == "__main__":
    run_main(main)
