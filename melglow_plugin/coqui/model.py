"""MelGlow as a vocoder model of Coqui TTS: inference for its Synthesizer, training for its Trainer."""

import functools
import logging

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from trainer.trainer_utils import get_optimizer
from TTS.vocoder.models.base_vocoder import BaseVocoder

from melglow_plugin.checkpoint.coqui import PREFIX, model_from
from melglow_plugin.checks import from_dict
from melglow_plugin.coqui import graph, resume, saving
from melglow_plugin.coqui.config import MelglowConfig
from melglow_plugin.coqui.dashboard import Dashboard
from melglow_plugin.coqui.dataset import MelglowDataset, convention_of_mel_files
from melglow_plugin.coqui.ranks import Step, rank_and_world
from melglow_plugin.coqui.synthesis import Synthesis
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.melflow import MelFlow
from melglow_plugin.processor import Cores
from melglow_plugin.training.crops import segment_frames, wav_and_mel
from melglow_plugin.training.ema import RunningMean
from melglow_plugin.training.objective import FlowObjective, LossConfig
from melglow_plugin.vocoder import Vocoder

logger = logging.getLogger(__name__)
STATISTICS_RECORDINGS = 200  # of which the mel's mean and standard deviation are taken


class Melglow(Dashboard, Synthesis, BaseVocoder):
    """MelGlow or WaveGlow under Coqui's interface.

    The weights are those of :class:`melglow_plugin.Vocoder`; its input is converted exactly into the mel that it
    was trained on, or refused by field. In training their running mean is evaluated, and saved as the model; the
    weights that are learning stand beside it in the checkpoint.
    """

    config: MelglowConfig

    def __init__(self, config: MelglowConfig) -> None:
        super().__init__(config)
        config.check_values()  # Coqpit does not, after it has read a file
        self.vocoder = Vocoder.from_checkpoint(model_from(config.to_dict()))
        self.loss_config = from_dict(LossConfig, config.loss_params.to_dict(), "loss_params")
        self._position = resume.Position()
        self._cores = Cores()  # what other processes leave
        self._step = 0
        self._mean: RunningMean | None = None  # of the weights, in training
        self._parallel = None  # the training step under DistributedDataParallel
        self._graph_step = None  # the training step as a CUDA graph; False: the Trainer takes its own

    @property
    def flow(self) -> MelFlow:
        return self.vocoder.flow

    @property
    def skipped_steps(self) -> int:
        """Steps of this run whose loss or gradient was not finite."""
        return self._position.skipped_steps

    @property
    def best_vocoder(self) -> Vocoder:
        """Of the running mean where there is one."""
        return Vocoder(self._mean.flow, self.convention) if self._mean else self.vocoder

    def forward(self, wav: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """``wav`` (B, T) and ``mel`` (B, M, F) -> ``z`` (B, T) and log_det (B,) in nats."""
        return self.flow(wav, mel)

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), **dict.fromkeys(("_parallel", "_mean", "_graph_step"))}

    # Training

    def get_criterion(self) -> FlowObjective:
        """Negative log-likelihood and spectral distances of a sample."""
        return FlowObjective(self.convention, self.loss_config)

    def get_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the configuration; the layers that predict kernels have a learning rate of their own.

        With ``ema_decay``, each of its steps is taken into the running mean.
        """
        config, groups = self.config, self._parameter_groups()
        optimizer = get_optimizer(config.optimizer, config.optimizer_params, config.lr, parameters=groups)
        if config.ema_decay:
            self._mean = RunningMean(self.flow, config.ema_decay)
            optimizer.register_step_post_hook(lambda *_: self._graph_step or self._mean.update(self.flow))
        return optimizer

    def _parameter_groups(self) -> list[dict]:
        return self.flow.parameter_groups(self.config.lr, self.config.kernel_lr_ratio)

    def get_data_loader(
        self, config: MelglowConfig, *, is_eval: bool = False, samples: list | None = None, verbose: bool = True
    ) -> DataLoader:
        """Crops of ``samples``: paths, or pairs of paths where ``feature_path`` is given."""
        dataset = self.dataset(samples, is_eval)
        rank, world = rank_and_world()
        return DataLoader(
            dataset,
            batch_size=config.eval_batch_size if is_eval else config.batch_size,
            sampler=resume.EpochSampler(dataset, world, rank, shuffle=not is_eval, seed=config.training_seed),
            num_workers=config.num_eval_loader_workers if is_eval else config.num_loader_workers,
            pin_memory=torch.cuda.is_available(),
        )

    def dataset(self, samples: list, is_eval: bool) -> MelglowDataset:
        """The dataset behind :meth:`get_data_loader`."""
        if not samples:
            purpose, size = "evaluation" if is_eval else "training", self.config.eval_split_size
            raise ValueError(
                f"no recording is left for {purpose}: eval_split_size {size}, data_path {self.config.data_path}"
            )
        frames = (self.config.eval_seq_len if is_eval else self.config.seq_len) // self.convention.hop_length
        if self.config.feature_config:
            acoustic = convention_of_mel_files(self.config.feature_config, self.config.audio)
        else:
            acoustic = MelConvention.coqui(self.config.audio.to_dict())
        seed = self.config.training_seed
        return MelglowDataset(self.ap, samples, self.convention, frames, not is_eval, acoustic, seed)

    def format_batch_on_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Crops -> ``waveform`` (B, T) and ``input`` (B, M, F), the mel in full precision."""
        if "segments" not in batch:
            return {"waveform": batch["wav"], "input": batch["mel"]}
        segments = batch["segments"]
        wav, mel = wav_and_mel(segments, self.convention, segment_frames(self.convention, segments.shape[1]))
        return {"waveform": wav, "input": mel}

    def train_step(self, batch: dict[str, Tensor], criterion: FlowObjective, optimizer_idx: int | None = None):
        """Loss of a batch; ``(None, None)``, which skips the step, where it is not finite on any rank."""
        run = self._parallel or functools.partial(criterion, self.flow)
        spectral = criterion.config.spectral_at(self._step)
        wav = batch["waveform"]
        seed = self._position.noise_seed(self.config.training_seed, rank_and_world()[0])
        noise = torch.Generator(wav.device).manual_seed(seed)
        loss, stats = run(wav, batch["input"], spectral, noise)
        if not self._finite_everywhere(loss):
            self._skip("loss")
            return None, None
        return {"model_outputs": stats["nll"]}, {**stats, "loss": loss, "skipped_steps": self.skipped_steps}

    def optimize(self, batch: dict[str, Tensor], trainer) -> tuple[dict, dict]:
        """A step as one CUDA graph where one GPU trains; NotImplementedError makes the Trainer run its own step."""
        if self._graph_step is None:
            self._graph_step = graph.step_for(self, trainer) or False
        if not self._graph_step:
            raise NotImplementedError
        seed = self._position.noise_seed(self.config.training_seed)
        spectral = trainer.criterion[0].config.spectral_at(self._step)
        stats = graph.optimize(self._graph_step, batch, trainer, seed, spectral)
        if stats.pop("skipped"):
            self._skip("loss or gradient")
            return {}, {"skipped_steps": self.skipped_steps}
        if self._mean:
            self._mean.update(self.flow)
        return {"model_outputs": stats["nll"]}, {**stats, "skipped_steps": self.skipped_steps}

    @torch.inference_mode()
    def eval_step(self, batch: dict[str, Tensor], criterion: FlowObjective, optimizer_idx: int | None = None):
        """As :meth:`train_step`, with the same noise every time, for the mean of the weights where there is one."""
        generator = torch.Generator(batch["waveform"].device).manual_seed(0)
        flow = self._mean.flow if self._mean else self.flow
        loss, stats = criterion(flow, batch["waveform"], batch["input"], True, generator)
        return {"model_outputs": stats["nll"]}, {**stats, "loss": loss}

    def on_init_end(self, trainer) -> None:
        """Restore the position in the run, set learning rates and mel statistics, and prepare for several ranks."""
        if getattr(trainer, "output_path", None):
            saving.protect(trainer, self._complete)
        learning = None
        if trainer.continue_run:
            position, learning = resume.read(trainer.args.restore_path)
            if position is not None:
                self._position = position
                trainer.epochs_done, trainer.total_steps_done = position.epoch, position.steps
        else:  # with restore_path, the Trainer has set all learning rates to lr
            for group, ours in zip(trainer.optimizer[0].param_groups, self._parameter_groups(), strict=True):
                group["lr"] = ours["lr"]
        if torch.equal(self.flow.mel_std, torch.ones_like(self.flow.mel_std)) and trainer.train_samples:
            self.take_statistics(trainer.train_samples)
        if rank_and_world()[1] > 1:
            # The Trainer calls the module inside its own DistributedDataParallel, past the gradients' reduction.
            step = Step(self.flow, trainer.criterion[0])
            device = next(self.parameters()).device
            parallel = nn.parallel.DistributedDataParallel(step, [device] if device.type == "cuda" else None)
            object.__setattr__(self, "_parallel", parallel)  # no submodule: the weights are saved once
        if self._mean:
            self._mean.set(self.flow, learning["steps"] if learning else 0)  # what was restored is the mean
            if learning:
                self.flow.load_state_dict(learning["flow"])

    def _complete(self, state: dict) -> dict:
        """A checkpoint of Coqui's Trainer with the place in the run, and the running mean as its model."""
        if "model" not in state or state["model"].keys() != self.state_dict().keys():
            return state  # a checkpoint of another model
        state = {**state, resume.POSITION: self._position.saved(state["step"])}
        if self._mean:
            state[resume.LEARNING] = {"steps": self._mean.count, "flow": self.flow.state_dict()}
            mean = {f"{PREFIX}{name}": value for name, value in self._mean.flow.state_dict().items()}
            state["model"] = {**state["model"], **mean}
        return state

    def take_statistics(self, samples: list) -> None:
        """Set the mean and standard deviation per mel bin from some of the training recordings."""
        dataset = self.dataset(samples, is_eval=False)
        once = list({item: index for index, item in enumerate(dataset.items)}.values())  # small corpora are repeated
        mels = [dataset.mel(index).double() for index in once[:: -(-len(once) // STATISTICS_RECORDINGS)]]
        frames = torch.cat(mels, dim=1)
        self.flow.set_mel_statistics(frames.mean(1).float(), frames.std(1).float())
        logger.info("Mel statistics of %d recordings", len(mels))

    def on_train_epoch_start(self, trainer) -> None:
        """Tell the data which epoch it is, and how many of its batches a continued run has already used."""
        self._position.epoch = trainer.epochs_done
        loader = trainer.train_loader
        loader.dataset.epoch = trainer.epochs_done
        loader.sampler.set_epoch(trainer.epochs_done)
        loader.sampler.skip = self._position.batches * loader.batch_size

    def on_train_step_start(self, trainer) -> None:
        self._step = trainer.total_steps_done
        self._position.batches += 1
        if self.device.type == "cpu":
            self._cores.count_step()

    def on_train_epoch_end(self, trainer) -> None:
        self._position.epoch, self._position.batches = trainer.epochs_done + 1, 0

    def before_gradient_clipping(self) -> None:
        """Drop gradients that are not finite, so that the optimizer leaves the weights as they are."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        if gradients and not torch.stack([gradient.norm() for gradient in gradients]).isfinite().all():
            self._skip("gradient")
            for parameter in self.parameters():
                parameter.grad = None

    def _finite_everywhere(self, loss: Tensor) -> bool:
        finite = torch.isfinite(loss.detach()).float()
        if self._parallel is not None:  # all ranks skip a step, or none: else they wait for each other for ever
            torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
        return bool(finite)

    def _skip(self, what: str) -> None:
        self._position.skipped_steps += 1
        logger.warning("step %d skipped: %s is not finite (%d skipped so far)", self._step, what, self.skipped_steps)
