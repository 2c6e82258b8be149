"""An epoch of ESPnet2's trainer, each step one CUDA graph: same losses, clipping, skips, schedules, reports.

Where a graph cannot be used, ESPnet's own loop runs (:func:`obstacle`).
"""

import logging
import time
from collections.abc import Iterable

import torch
from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler
from espnet2.torch_utils.device_funcs import to_device
from espnet2.train.reporter import SubReporter

from melglow_plugin.espnet.model import ESPnetVocoderModel
from melglow_plugin.training.graph_step import Capture, GraphStep, Update, set_capturable


def obstacle(options, optimizers, distributed: bool) -> str:
    """An option that rules out a CUDA graph, with its value, or ""."""
    wanted = {
        "ngpu": 1, "use_amp": False, "accum_grad": 1, "grad_noise": False, "grad_clip_type": 2.0,
        "no_forward_run": False, "use_wandb": False, "use_adapter": False, "sharded_ddp": False,
    }  # fmt: skip
    for name, value in wanted.items():
        if (found := getattr(options, name, value)) != value:
            return f"{name} {found}"
    if distributed:
        return "distributed training"
    if len(optimizers) != 1 or type(optimizers[0]) not in (torch.optim.Adam, torch.optim.AdamW):
        return f"optim {', '.join(type(each).__name__.lower() for each in optimizers)}"
    return ""


def train_one_epoch(
    model: ESPnetVocoderModel,
    optimizers: list[torch.optim.Optimizer],
    schedulers: list,
    iterator: Iterable,
    reporter: SubReporter,
    summary_writer,
    options,
) -> bool:
    """As ESPnet2's ``Trainer.train_one_epoch``; True where no step was finite."""
    model.train()
    step = _step_of(model, optimizers[0], options)
    interval, all_invalid, start = options.log_interval or 50, True, time.perf_counter()
    for count, (_, batch) in enumerate(reporter.measure_iter_time(iterator, "iter_time"), 1):
        batch = {name: batch[name] for name in ("speech", "feats") if name in batch}
        batch = to_device(batch, "cuda" if options.ngpu > 0 else "cpu")
        with reporter.measure_time("step_time"):
            results = {name: float(value) for name, value in step(model.start_step(), **batch).items()}
        norm, skipped = results.pop("grad_norm"), results.pop("skipped")
        reporter.register(results, len(batch["speech"]))
        if skipped:
            logging.warning(f"The grad norm is {norm}. Skipping updating the model.")
        else:
            clip = 100.0 if norm > options.grad_clip else 0.0
            reporter.register({"grad_norm": norm, "clip": clip, "loss_scale": 1.0})
            all_invalid = False
            for scheduler in schedulers:
                if isinstance(scheduler, AbsBatchStepScheduler):
                    scheduler.step()
        rates = {f"optim0_lr{j}": float(group["lr"]) for j, group in enumerate(optimizers[0].param_groups)}
        reporter.register({**rates, "train_time": time.perf_counter() - start})
        start = time.perf_counter()
        reporter.next()
        if count % interval == 0:
            logging.info(reporter.log_message(-interval))
            if summary_writer is not None:
                reporter.tensorboard_add_scalar(summary_writer, -interval)
    return all_invalid


def _step_of(model: ESPnetVocoderModel, optimizer: torch.optim.Optimizer, options) -> GraphStep:
    set_capturable(optimizer)  # a state that was resumed may be an ordinary one
    if model.graph_step is None:
        model.flow.joint_inverses = True
        capture = Capture() if options.ngpu > 0 else None
        model.graph_step = GraphStep(model.losses, [Update(optimizer, options.grad_clip)], capture)
    return model.graph_step
