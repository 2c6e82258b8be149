"""A run of a few minutes on a GPU: its schedule follows the time that is left, and it resumes exactly."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.training.crops import wav_and_mel
from melglow_plugin.training.device_corpus import DeviceCorpus
from melglow_plugin.training.ema import RunningMean
from melglow_plugin.training.graph_step import Capture, GraphStep, Update, set_capturable
from melglow_plugin.training.objective import FlowObjective, LossConfig

CRITIC_WARM_UP, CRITIC_RAMP = 50, 100  # steps to the critic's full rate, and to its full weight in the flow's loss
LOWEST_CRITIC_RATE = 0.02  # of its full rate, at the end, where the flow hardly changes
TRAINED_STEPS = 10_000  # as many steps the pretrained weights count in the running mean
CHECK_EVERY = 16  # steps from one look at the clock to the next, which makes the host wait for the GPU


@dataclass(frozen=True)
class MinutesConfig:
    """Sizes and rates of a run; the weights of the losses are LossConfig's and the critic's own."""

    lr: float = 5e-4  # of the flow, after the warm-up; a cosine leads it to 0
    betas: tuple[float, ...] = (0.8, 0.99)  # of AdamW
    warm_up: int = 150  # steps
    kernel_lr_ratio: float = 2.0  # learning rate of the layers that emit kernels, to lr
    critic_lr_ratio: float = 1.5  # learning rate of the discriminators, to lr
    critic_start: int = 300  # steps in which the discriminators learn alone
    ema_decay: float = 0.999  # of the running mean of the weights
    grad_clip: float = 60.0  # norm, of flow and discriminators each
    segment_frames: int = 64  # mel frames of a crop
    batch_size: int = 16  # crops
    seed: int = 777

    def rates(self, step: int, progress: float) -> tuple[float, float, float]:
        """Learning rates of flow and critic, and the critic's weight, at ``step`` with ``progress`` 0 to 1 made."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        flow = self.lr * cosine * min(1.0, (step + 1) / self.warm_up)
        critic = self.lr * self.critic_lr_ratio * max(cosine, LOWEST_CRITIC_RATE)
        weight = (step - self.critic_start + 1) / CRITIC_RAMP
        return flow, critic * min(1.0, (step + 1) / CRITIC_WARM_UP), min(1.0, max(0.0, weight))


class Means:
    """Means of a step's results since the last report, kept on the device."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums: Tensor | None = None  # of each name, and of 1 for each step that counts
        self.steps = 0

    def add(self, results: dict[str, Tensor]) -> None:
        """Take in a step; one that was skipped, or has a value that is not finite, counts as skipped."""
        self.names = [name for name in results if name != "skipped"]
        values = torch.stack([results[name].detach().float() for name in self.names] + [1 - results["skipped"]])
        counts = torch.isfinite(values).all() & (results["skipped"] == 0)
        values = torch.where(counts, values, 0.0)
        self.sums = values if self.sums is None else self.sums + values
        self.steps += 1

    def report(self) -> dict[str, float]:
        """Means by name, and ``skipped``, a number of steps; it begins anew."""
        *sums, count = self.sums.tolist()
        means = {name: each / count if count else math.nan for name, each in zip(self.names, sums, strict=True)}
        steps, self.sums, self.steps = self.steps, None, 0
        return {**means, "skipped": steps - round(count)}


class Run:
    """A flow in training with its discriminators; what it holds is its state.

    Args:
        flow: with pretrained weights; moved to the corpus's device.
        convention: of its mel.
        loss: weights of its terms.
        critic: ``loss, terms = critic(sample, wav, train_generator=weight)``, as ESPnet's ``Adversary``.
        config: sizes and rates.
        corpus: gives the crops.
        capture: of the step as a CUDA graph; None: it runs as it is.
    """

    def __init__(
        self,
        flow: MelModel,
        convention: MelConvention,
        loss: LossConfig,
        critic: nn.Module,
        config: MinutesConfig,
        corpus: DeviceCorpus,
        capture: Capture | None = None,
    ) -> None:
        device = corpus.device
        self.flow, self.critic, self.config, self.corpus = flow.to(device).train(), critic.to(device), config, corpus
        self.flow.joint_inverses = True
        self.mean = RunningMean(self.flow, config.ema_decay)
        self.mean.set(self.flow, TRAINED_STEPS)
        self.convention, self.objective = convention, FlowObjective(convention, loss).to(device)
        groups = self.flow.parameter_groups(config.lr, config.kernel_lr_ratio)
        self.optimizers = (
            torch.optim.AdamW(groups, betas=config.betas, weight_decay=0.0),
            torch.optim.AdamW(self.critic.parameters(), config.lr, betas=config.betas),
        )
        for optimizer in self.optimizers:
            set_capturable(optimizer)
        names = "grad_norm", "critic_grad_norm"
        updates = [Update(o, config.grad_clip, name) for o, name in zip(self.optimizers, names, strict=True)]
        self._critic_weight = torch.zeros((), device=device)
        self._step = GraphStep(self._loss, updates, capture)
        self.means, self.log = Means(), []
        self.step, self.progress, self.seconds = 0, 0.0, 0.0

    def _loss(self, kind: None, speech: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        wav, mel = wav_and_mel(speech, self.convention, self.config.segment_frames)
        critic = partial(self.critic, train_generator=self._critic_weight)
        return self.objective(self.flow, wav, mel, critic=critic)

    def advance(self) -> None:
        """One step."""
        flow_rate, critic_rate, weight = self.config.rates(self.step, self.progress)
        rest, kernels = self.optimizers[0].param_groups
        rest["lr"].fill_(flow_rate)
        kernels["lr"].fill_(flow_rate * self.config.kernel_lr_ratio)
        self.optimizers[1].param_groups[0]["lr"].fill_(critic_rate)
        self._critic_weight.fill_(weight)
        self.means.add(self._step(speech=self.corpus.crops(self.step, self.config.batch_size)))
        self.mean.update(self.flow)
        self.step += 1

    def report(self) -> dict[str, float]:
        """Means since the last report, added to the log."""
        rate = float(self.optimizers[0].param_groups[0]["lr"])
        entry = {"step": self.step, "seconds": round(self.seconds, 1), "lr": rate, **self.means.report()}
        self.log.append(entry)
        return entry

    def state(self) -> dict:
        """All that the next step depends on, for ``torch.save``."""
        cuda = self.corpus.device.type == "cuda"
        return {
            "flow": self.flow.state_dict(),
            "mean": self.mean.flow.state_dict(),
            "mean_count": self.mean.count,
            "critic": self.critic.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "means": vars(self.means),
            "place": {"step": self.step, "progress": self.progress, "seconds": self.seconds},
            "log": self.log,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.corpus.device) if cuda else None,
        }

    def load(self, state: dict) -> None:
        """Continue from :meth:`state`."""
        self.flow.load_state_dict(state["flow"])
        self.mean.flow.load_state_dict(state["mean"])
        self.mean.count = state["mean_count"]
        self.critic.load_state_dict(state["critic"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
            set_capturable(optimizer)
        vars(self.means).update(state["means"])
        vars(self).update(state["place"])
        self.log = state["log"]
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"] is not None and self.corpus.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.corpus.device)


class Clock:
    """How far a run is: by its steps, or by the time since its process began.

    Args:
        run: which may have made progress in an earlier process.
        steps: of the whole run, or None.
        seconds: that all its processes have together, from start to end; where ``steps`` is None.
        began: when this process did, in ``time.monotonic``.
    """

    def __init__(self, run: Run, steps: int | None, seconds: float | None, began: float) -> None:
        self.run, self.steps, self.began, self.before = run, steps, began, run.seconds
        self.first, self.progress = time.monotonic(), run.progress
        self.left = None if steps else seconds - run.seconds - (self.first - began)

    def look(self) -> None:
        """Set the run's ``progress`` and ``seconds``."""
        now = time.monotonic()
        self.run.seconds = self.before + now - self.began
        if self.steps:
            self.run.progress = self.run.step / self.steps
        elif self.run.corpus.device.type != "cuda" or self.run.step % CHECK_EVERY == 0:
            if self.run.corpus.device.type == "cuda":
                torch.cuda.synchronize(self.run.corpus.device)
                now = time.monotonic()
            share = (now - self.first) / self.left if self.left > 0 else 1.0
            self.run.progress = min(1.0, self.progress + (1 - self.progress) * share)


def train(run: Run, clock: Clock, log_interval: int, save_seconds: float, save: Callable, tell: Callable) -> None:
    """Train to the end of ``clock``.

    Args:
        run: what is trained.
        clock: of the run; it ends the training.
        log_interval: steps from one report to the next.
        save_seconds: from one call of ``save()`` to the next; the last one follows the last step.
        save: writes everything.
        tell: gets each report.
    """
    saved = time.monotonic()
    clock.look()
    while run.progress < 1:
        run.advance()
        clock.look()
        if run.step % log_interval == 0 or (run.progress >= 1 and run.means.steps):
            tell(run.report())
        if time.monotonic() - saved >= save_seconds and run.progress < 1:
            save()
            saved = time.monotonic()
    save()
