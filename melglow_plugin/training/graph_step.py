"""A whole training step as one function of tensors: run as it is, or captured once and replayed as one CUDA graph.

A step of this model is some 5,000 small kernels. One by one, the host needs longer to start them than a GPU to compute
them; as a graph they are started at once (docs/gpu.md).
"""

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

WARM_UP = 3  # steps before a capture, in which libraries choose their kernels and optimizers make their state
MOST_GRAPHS = 4  # of one step, each with memory of its own inputs; more kinds of input than that run as they are

logger = logging.getLogger(__name__)


def set_capturable(optimizer: Optimizer, on: bool = True) -> None:
    """Let ``optimizer``, an Adam or AdamW, be captured, or undo that; its state stays.

    Learning rates become tensors, which schedulers fill. On a CPU the same fused kernels run.
    """
    for group in optimizer.param_groups:
        device = group["params"][0].device
        if on:
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
            group.update(fused=True, foreach=False, capturable=device.type == "cuda")
        elif group.get("fused"):
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


@dataclass
class _Captured:
    inputs: dict[str, Tensor]
    calls: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    results: dict[str, Tensor] = field(default_factory=dict)


class GraphStep:
    """Loss, gradients and updates of a batch.

    Args:
        loss: ``loss, stats = loss(kind, **inputs)``: operations on the inputs' device alone, which wait for nothing.
        updates: what learns from the loss, in this order.
        use_graph: capture on a GPU. A capture that fails is told once, and the step goes on as it is.
    """

    def __init__(
        self,
        loss: Callable[..., tuple[Tensor, dict[str, Tensor]]],
        updates: Sequence[Update],
        use_graph: bool = True,
    ) -> None:
        self.loss, self.updates, self.use_graph = loss, updates, use_graph
        self._captured: dict[Hashable, _Captured] = {}
        self._stream = self._pool = None

    def __call__(self, kind: Hashable = None, **inputs: Tensor) -> dict[str, Tensor]:
        """One step.

        Args:
            kind: which way ``loss`` takes; each kind, and each set of shapes, is a graph of its own.
            **inputs: the batch.

        Returns:
            The stats of ``loss`` and of the updates, to be read or copied before the next call. ``skipped`` is 1 where
            any of the updates was left out.
        """
        device = next(iter(inputs.values())).device
        if not self.use_graph or device.type != "cuda":
            return self.run(kind, inputs)
        shapes = tuple((name, value.shape, value.dtype) for name, value in inputs.items())
        if (kind, shapes) not in self._captured:
            if len(self._captured) == MOST_GRAPHS:
                return self.run(kind, inputs)
            static = {name: value.clone() for name, value in inputs.items()}
            self._captured[kind, shapes] = _Captured(static)
        captured = self._captured[kind, shapes]
        for name, value in inputs.items():
            captured.inputs[name].copy_(value, non_blocking=True)
        captured.calls += 1
        if captured.graph is None and captured.calls > WARM_UP:
            self._capture(kind, captured)
        if captured.graph is None:
            return self._aside(kind, captured.inputs)
        captured.graph.replay()
        return captured.results

    def run(self, kind: Hashable, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The step itself, which is also what a graph holds."""
        loss, stats = self.loss(kind, **inputs)
        loss.backward()
        results = [update() for update in self.updates]
        skipped = torch.stack([each.pop("skipped") for each in results]).amax()
        return {**stats, **{name: value for each in results for name, value in each.items()}, "skipped": skipped}

    def _aside(self, kind: Hashable, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """A step on a stream of its own, as it has to be before a capture."""
        self._stream = self._stream or torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            results = self.run(kind, inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return results

    def _capture(self, kind: Hashable, captured: _Captured) -> None:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                captured.results = self.run(kind, captured.inputs)
        except RuntimeError as error:
            logger.warning("no CUDA graph of the training step, it goes on without: %s", str(error).splitlines()[0])
            self.use_graph = False
            for update in self.updates:
                update.optimizer.zero_grad(set_to_none=True)
            return
        captured.graph, self._pool = graph, graph.pool()
        logger.info("training step captured as a CUDA graph, %.1f GiB", torch.cuda.max_memory_allocated() / 2**30)
