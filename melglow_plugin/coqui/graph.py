"""The training step of Coqui's Trainer as a CUDA graph, on one GPU."""

import logging

import torch
from torch import Tensor

from melglow_plugin.training.graph_step import Capture, GraphStep, Update, set_capturable

logger = logging.getLogger(__name__)


def obstacle(trainer) -> str:
    """The name of a setting that rules out a CUDA graph, or ""."""
    config, optimizers = trainer.config, trainer.optimizer
    given = {
        "mixed_precision": config.mixed_precision, "scheduler_after_epoch": config.scheduler_after_epoch,
        "use_accelerate": trainer.use_accelerate, "grad_accum_steps": trainer.grad_accum_steps > 1,
    }  # fmt: skip
    if forbidding := [name for name, value in given.items() if value]:
        return forbidding[0]
    if config.grad_clip <= 0:
        return f"grad_clip {config.grad_clip}"
    if trainer.num_gpus > 1:
        return f"{trainer.num_gpus} GPUs"
    if type(optimizers[0]) not in (torch.optim.Adam, torch.optim.AdamW):
        return f"optimizer {type(optimizers[0]).__name__}"
    return ""


def step_for(model, trainer) -> GraphStep | None:
    """The step of a run on one GPU; None, with a line that says why, where the Trainer's own is taken."""
    if model.device.type != "cuda":
        return None
    if reason := obstacle(trainer):
        logger.warning("no CUDA graph of the training step with %s: the GPU gets its kernels one by one", reason)
        return None
    return make_step(model, trainer, Capture(model.device))


def make_step(model, trainer, capture: Capture | None) -> GraphStep:
    """The step as one function of a batch; its noise comes from torch's default generator."""
    (criterion,), (optimizer,) = trainer.criterion, trainer.optimizer

    def loss(spectral: bool, waveform: Tensor, mel: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return criterion(model.flow, waveform, mel, spectral)

    set_capturable(optimizer)
    model.flow.joint_inverses = True
    return GraphStep(loss, [Update(optimizer, model.config.grad_clip)], capture)


def optimize(step: GraphStep, batch: dict[str, Tensor], trainer, noise_seed: int, spectral: bool) -> dict[str, float]:
    """One step, and the scheduler's, unless it was skipped; the stats."""
    torch.manual_seed(noise_seed)
    results = step(spectral, waveform=batch["waveform"], mel=batch["input"])
    stats = {name: float(value) for name, value in results.items()}
    (scheduler,) = trainer.scheduler
    if scheduler is not None and not stats["skipped"]:
        scheduler.step()
    return stats
