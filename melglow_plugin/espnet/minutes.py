"""``python -m melglow_plugin.espnet.minutes``: train a pretrained model for some minutes on a GPU.

It needs torch, numpy, safetensors, pyyaml, soundfile and tqdm, and of ESPnet's wheel the discriminators
(:mod:`melglow_plugin.espnet.adversarial`), but no installation, so it runs from a checkout.
"""

import argparse
import hashlib
import logging
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from melglow_plugin.processor import prepare

prepare()  # before torch is imported

import torch

from melglow_plugin.checkpoint import folder
from melglow_plugin.checkpoint.adapt import adapted
from melglow_plugin.checkpoint.checkpoint import Checkpoint
from melglow_plugin.checkpoint.pretrained import pretrained_model
from melglow_plugin.checks import from_dict, plain
from melglow_plugin.espnet.adversarial import AdversarialConfig, Adversary
from melglow_plugin.files import atomic_write, read_mapping, write_bytes, write_json
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.melglow import architecture
from melglow_plugin.training.corpus_voices import read_source
from melglow_plugin.training.crops import segment_samples
from melglow_plugin.training.device_corpus import DeviceCorpus
from melglow_plugin.training.graph_step import Capture
from melglow_plugin.training.minutes import Clock, MinutesConfig, Run, train
from melglow_plugin.training.objective import LossConfig
from melglow_plugin.training.saving import save_whole
from melglow_plugin.training.variation import VariationConfig

STATE, DISCRIMINATOR = "state.pt", "discriminator.safetensors"
CLOSING_SECONDS = 15  # of the time given, for what is written at the end

logger = logging.getLogger("melglow")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    what = "Train a pretrained model for some minutes on a GPU; the same command goes on with a run that was stopped."
    parse = argparse.ArgumentParser(prog="python -m melglow_plugin.espnet.minutes", description=what)
    add = parse.add_argument
    add("--corpus", nargs="+", type=Path, required=True, help="folders of recordings, or lists: path|speaker a line")
    add("--config", type=Path, required=True, help="conf/melglow_gpu.yaml or another in ESPnet's format")
    add("--pretrained", type=Path, default=None, help="model folder to start from (default: a pretrained one)")
    add("--keep-mel", action="store_true", help="that of the pretrained model, not the configuration's")
    add("--discriminator", type=Path, default=None, help=f"a run's {DISCRIMINATOR}; default: it learns from nothing")
    length = parse.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="from the start of the command to its end, resumed runs together")
    length.add_argument("--steps", type=int, help="train so many steps, in place of minutes")
    add("-o", "--out", type=Path, required=True, help="folder of the results; a run that stands there is resumed")
    add("--speaker-cap", type=float, default=1.0, help="largest share of the crops from one speaker (default: 1)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: cuda if there is one")
    add("--no-graph", action="store_true", help="run every kernel of a step by itself")
    add("--log-interval", type=int, default=200, help="steps from one line to the next (default: 200)")
    add("--save-seconds", type=float, default=120, help="seconds from one saving to the next (default: 120)")
    return parse


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after one line about bad input."""
    began = time.monotonic()
    args = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        minutes(args, began)
    except (ValueError, OSError, ImportError) as error:
        print(f"melglow: {error}", file=sys.stderr)
        return 2
    return 0


def minutes(args: argparse.Namespace, began: float) -> None:
    """Build the run, resume it, train it, write its results."""
    if (args.steps or args.minutes) <= 0:
        raise ValueError(f"--{'steps' if args.steps is not None else 'minutes'} is not above 0")
    device = training_device(args.device)
    config, loss, adversarial, variation = read_config(args.config)
    path = args.pretrained or pretrained_model()
    start = folder.load(path)
    wanted, found = read_mapping(args.config).get("vocoder"), architecture(start.flow)
    if wanted not in (None, found):
        raise ValueError(f"vocoder {wanted} in {args.config}, {found} in {path}: name a --pretrained model of {wanted}")
    began_from = f"{Path(path).resolve().name} (weights {digest(start)})"
    if not args.keep_mel:
        start = for_mel(start, args.config)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(config.seed)
    critic = Adversary(adversarial)
    if args.discriminator:
        load_discriminator(critic, args.discriminator)
    recordings = [each for source in args.corpus for each in read_source(source)]
    size = segment_samples(start.convention, config.segment_frames)
    corpus = DeviceCorpus(
        recordings, start.convention.sample_rate, size, variation, args.speaker_cap, device, config.seed
    )
    capture = Capture(device) if device.type == "cuda" and not args.no_graph else None
    run = Run(start.flow, start.convention, loss, critic, config, corpus, capture)
    facts = plain({
        **asdict(config), **asdict(loss), **asdict(adversarial), **asdict(variation),
        "samples": len(corpus.samples), "speakers": len(corpus.seconds), "speaker_cap": args.speaker_cap,
        "pretrained": began_from, **{f"mel {name}": value for name, value in start.convention.to_dict().items()},
    })  # fmt: skip
    resume(run, args.out / STATE, facts)
    clock = Clock(run, args.steps, args.minutes and args.minutes * 60 - CLOSING_SECONDS, began)
    if not args.steps and clock.left <= 0 and not run.step:
        raise ValueError(f"--minutes {args.minutes:g}: reading the corpus took {clock.first - began:.0f} s of them")

    def save() -> None:
        of_run = run.mean.flow, run.convention, training_facts(run)
        write_results(args.out, run, Checkpoint(*of_run, start.refine, start.sharpen), facts)

    train(run, clock, args.log_interval, args.save_seconds, save, tell)
    logger.info("%d steps, %.0f s: %s", run.step, run.seconds, args.out / "model")


def training_device(name: str) -> torch.device:
    """The device of that name; ValueError where torch has none here."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]} (--device cpu trains on the CPU)") from error


def read_config(path: Path) -> tuple[MinutesConfig, LossConfig, AdversarialConfig, VariationConfig]:
    """What a run takes of a configuration of ESPnet's trainer; ValueError names the file."""
    values = read_mapping(path)
    adversarial = from_dict(AdversarialConfig, values.get("adversarial_conf") or {}, f"{path}: adversarial_conf")
    optimizer = values.get("optim_conf") or {}
    fields = {
        "lr": optimizer.get("lr"), "betas": optimizer.get("betas"),
        "kernel_lr_ratio": values.get("kernel_lr_ratio"), "grad_clip": values.get("grad_clip"),
        "critic_lr_ratio": adversarial.lr_ratio, "critic_start": adversarial.start,
        "ema_decay": (values.get("model_conf") or {}).get("ema_decay"),
        "segment_frames": values.get("segment_frames"), "batch_size": values.get("batch_size"),
        "seed": values.get("seed"),
    }  # fmt: skip
    given = {name: value for name, value in fields.items() if value is not None}
    return (
        from_dict(MinutesConfig, given, str(path)),
        from_dict(LossConfig, values.get("loss_conf") or {}, f"{path}: loss_conf"),
        adversarial,
        from_dict(VariationConfig, values.get("variation_conf") or {}, f"{path}: variation_conf"),
    )


def for_mel(start: Checkpoint, path: Path) -> Checkpoint:
    """The model, adapted to the mel of a configuration if that names one; ValueError where nothing adapts it."""
    named = read_mapping(path).get("feats_extract_conf")
    convention = MelConvention.espnet(**named) if named else start.convention
    if convention == start.convention:
        return start
    differences = "; ".join(start.convention.differences(convention)) or "other units"
    try:
        flow = adapted(start.flow, start.convention, convention)
    except ValueError as error:
        raise ValueError(f"{path}: {error} (--keep-mel trains it with its own)") from error
    logger.info("the pretrained model is adapted to the configuration's mel: %s", differences)
    return replace(start, flow=flow, convention=convention)


def digest(start: Checkpoint) -> str:
    """Tells a model's weights from those of another."""
    found = hashlib.sha256()
    for name, value in sorted(start.flow.state_dict().items()):
        found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:8]


def resume(run: Run, path: Path, facts: dict) -> None:
    """Go on from the state in ``path`` if there is one; ValueError where it is of another run."""
    if not path.is_file():
        return
    state = torch.load(path, map_location=run.corpus.device, weights_only=True)
    for name, value in facts.items():
        there = state["facts"].get(name, value)  # a version before may not have had the setting
        if there != value:
            raise ValueError(f"{path}: {name} {there} there, {value} here: give another --out")
    run.load(state)
    logger.info("resumed at step %d after %.0f s", run.step, run.seconds)


def training_facts(run: Run) -> dict:
    """For the model card."""
    return {
        "trainer": "melglow_plugin.espnet.minutes",
        "steps": run.step,
        "seconds": round(run.seconds),
        "speakers": len(run.corpus.seconds),
        "minutes_of_audio": round(sum(run.corpus.seconds.values()) / 60, 1),
        "device": torch.cuda.get_device_name(run.corpus.device) if run.corpus.device.type == "cuda" else "CPU",
    }


def tell(report: dict[str, float]) -> None:
    """A line of a report."""
    values = " ".join(f"{k} {v:.4g}" for k, v in report.items() if k not in ("step", "seconds"))
    logger.info("step %d, %.0f s: %s", report["step"], report["seconds"], values)


def write_results(out: Path, run: Run, checkpoint: Checkpoint, facts: dict) -> None:
    """``model/`` and the discriminators in 16 bits, ``log.json``, ``curve.png``, and the state to resume from."""
    (out / "model").mkdir(parents=True, exist_ok=True)
    (out / "model" / folder.CARD_FILE).unlink(missing_ok=True)  # of the model that stood there
    folder.save(out / "model", checkpoint, torch.float16)
    save_discriminator(run.critic, out / DISCRIMINATOR)
    write_json(out / "log.json", {"settings": facts, "log": run.log})
    draw_curve(run.log, out / "curve.png")
    save_whole({**run.state(), "facts": facts}, out / STATE)


def save_discriminator(critic: Adversary, path: Path) -> None:
    """Its weights in 16 bits, without anything that can execute."""
    from safetensors.torch import save

    write_bytes(path, save({k: v.detach().half().cpu().contiguous() for k, v in critic.named_parameters()}))


def load_discriminator(critic: Adversary, path: Path) -> None:
    """The inverse of :func:`save_discriminator`; ValueError where it is of other sizes."""
    weights = folder.read_safetensors(path)
    for name, parameter in critic.named_parameters():
        found = tuple(weights[name].shape) if name in weights else None
        if found != tuple(parameter.shape):
            raise ValueError(f"{path}: {name} has shape {found}, adversarial_conf asks for {tuple(parameter.shape)}")
        parameter.data.copy_(weights[name])


def draw_curve(log: list[dict], path: Path) -> None:
    """Likelihood, spectral distances and the discriminators' terms over steps; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    panels = (("nll",), ("stft", "mel"), ("real", "fake", "adversarial"))
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axis, names in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name in names:
            axis.plot([each["step"] for each in log], [each.get(name) for each in log], label=name)
        axis.set(xlabel="step", ylabel="nats per sample" if names == ("nll",) else "")
        axis.legend()
    with atomic_write(path) as file:
        figure.savefig(file, dpi=100, format="png")


if __name__ == "__main__":
    sys.exit(main())
