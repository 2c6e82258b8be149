"""A whole training step as one function of tensors: run as it is, or captured once and replayed as one CUDA graph.

A step of this model is some 5,000 small kernels. One by one, the host needs longer to start them than a GPU to compute
them; as a graph they are started at once (docs/gpu.md).
"""

import functools
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from melglow_plugin.inference.cuda_graphs import Recorder

WARM_UP = 3  # steps before a capture, in which libraries choose their kernels and optimizers make their state
MOST_GRAPHS = 4  # of one step, each with memory of its own inputs; more kinds of input than that run as they are

logger = logging.getLogger(__name__)


def set_capturable(optimizer: Optimizer, on: bool = True) -> None:
    """Let ``optimizer``, an Adam or AdamW, be captured, or undo that; its state stays.

    Learning rates become tensors, which schedulers fill. On a CPU the same fused kernels run.
    """
    for group in optimizer.param_groups:
        if not on and not (group.get("fused") and isinstance(group["lr"], Tensor)):
            continue  # none of ours
        device = group["params"][0].device
        if on:
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
            group.update(fused=True, foreach=False, capturable=device.type == "cuda")
        else:
            group.update(lr=float(group["lr"]), fused=None, foreach=None, capturable=False)
        for state in (optimizer.state[p] for p in group["params"] if p in optimizer.state):
            state["step"] = state["step"].to(device if on else "cpu", torch.float32)


@dataclass
class Update:
    """An optimizer's step with its gradients clipped to one norm, left out where that is not finite.

    Neither is a branch: the kernel divides gradients by ``grad_scale``, and returns at once where ``found_inf`` is 1.
    """

    optimizer: Adam  # or AdamW, after set_capturable
    max_norm: float
    name: str = "grad_norm"  # of the norm among the step's results

    def __call__(self) -> dict[str, Tensor]:
        """Results ``name``, the norm before clipping, and ``skipped``, 0 or 1."""
        optimizer = self.optimizer
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]).float()
        finite = torch.isfinite(norm)
        scale = ((norm + 1e-6) / self.max_norm).clamp(min=1.0)  # as torch.nn.utils.clip_grad_norm_
        optimizer.grad_scale, optimizer.found_inf = torch.where(finite, scale, 1.0), (~finite).float()
        try:
            optimizer.step()
        finally:
            del optimizer.grad_scale, optimizer.found_inf
        optimizer.zero_grad(set_to_none=True)
        return {self.name: norm, "skipped": 1 - finite.float()}


class Capture(Recorder):
    """A recorder that logs what it records."""

    def record(self, run: Callable[[], dict[str, Tensor]]) -> Callable[[], dict[str, Tensor]]:
        """As :meth:`Recorder.record`."""
        replay = super().record(run)
        most = torch.cuda.max_memory_allocated(self.stream.device) / 2**30
        logger.info("training step captured as a CUDA graph, %.1f GiB", most)
        return replay


@dataclass
class _Kind:
    inputs: dict[str, Tensor]  # which a graph reads
    calls: int = 0
    replay: Callable[[], dict[str, Tensor]] | None = None


class GraphStep:
    """Loss, gradients and updates of a batch.

    Args:
        loss: ``loss, stats = loss(kind, **inputs)``: operations on the inputs' device alone, which wait for nothing.
        updates: what learns from the loss, in this order.
        capture: None: every step runs as it is. Where it fails, one warning, and steps run without a graph.
    """

    def __init__(
        self,
        loss: Callable[..., tuple[Tensor, dict[str, Tensor]]],
        updates: Sequence[Update],
        capture: Capture | None = None,
    ) -> None:
        self.loss, self.updates, self.capture = loss, updates, capture
        self._kinds: dict[Hashable, _Kind] = {}

    def __call__(self, kind: Hashable = None, **inputs: Tensor) -> dict[str, Tensor]:
        """One step.

        Args:
            kind: which way ``loss`` takes; each kind, and each set of shapes, is a graph of its own.
            **inputs: the batch.

        Returns:
            The stats of ``loss`` and of the updates, to be read or copied before the next call. ``skipped`` is 1 where
            any of the updates was left out.
        """
        results = self._run_or_replay(kind, inputs)
        for update in self.updates:
            for group in update.optimizer.param_groups:
                # Neither graphs nor the fused optimizers leave this trace, by which others see that theirs are old.
                torch.autograd.graph.increment_version(group["params"])
        return results

    def _run_or_replay(self, kind: Hashable, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        shapes = tuple((name, value.shape, value.dtype) for name, value in inputs.items())
        known = (kind, shapes) in self._kinds
        if self.capture is None or (not known and len(self._kinds) == MOST_GRAPHS):
            return self.run(kind, inputs)
        if not known:
            self._kinds[kind, shapes] = _Kind({name: value.clone() for name, value in inputs.items()})
        this = self._kinds[kind, shapes]
        for name, value in inputs.items():
            this.inputs[name].copy_(value, non_blocking=True)
        this.calls += 1
        run = functools.partial(self.run, kind, this.inputs)
        if this.calls <= WARM_UP:
            return self.capture.run_aside(run)
        if this.replay is None:
            try:
                this.replay = self.capture.record(run)
            except RuntimeError as error:
                self._give_up(error)
                return run()
        return this.replay()

    def run(self, kind: Hashable, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The step itself, which is also what a graph holds."""
        loss, stats = self.loss(kind, **inputs)
        loss.backward()
        results = [update() for update in self.updates]
        skipped = torch.stack([each.pop("skipped") for each in results]).amax()
        return {**stats, **{name: value for each in results for name, value in each.items()}, "skipped": skipped}

    def _give_up(self, error: RuntimeError) -> None:
        logger.warning("no CUDA graph of the training step, continuing without: %s", str(error).splitlines()[0])
        self.capture = None
        for update in self.updates:  # what the attempt left
            update.optimizer.zero_grad(set_to_none=True)
