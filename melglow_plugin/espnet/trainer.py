"""ESPnet2's trainer for vocoders: it writes spectrograms and wavs of dev recordings, and counts skipped steps."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from espnet2.train.trainer import Trainer, TrainerOptions
from espnet2.utils.build_dataclass import build_dataclass

from melglow_plugin.espnet import graph_epoch
from melglow_plugin.espnet.saving import check_writable, finish_epoch, whole_checkpoints
from melglow_plugin.files import write_wav
from melglow_plugin.processor import Cores
from melglow_plugin.training.graph_step import set_capturable


class _SkippedSteps(logging.Filter):
    """Counts the trainer's own message about a non-finite gradient norm: its loop offers no other hook."""

    count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        self.count += "Skipping updating the model" in record.getMessage()
        return True


@dataclass
class VocoderTrainerOptions(TrainerOptions):
    """ESPnet2's, and our own."""

    use_graph: bool


def _beside_others(batches: Iterable) -> Iterator:
    """The batches; every few steps torch gets a thread for each core that other processes leave free."""
    cores = Cores()
    for batch in batches:
        cores.count_step()
        yield batch


class VocoderTrainer(Trainer):
    """Train as ESPnet2 does; where it would plot attention, write copies of dev crops."""

    @classmethod
    def run(cls, *, trainer_options, distributed_option, **kwargs) -> None:
        with whole_checkpoints():
            if not distributed_option.distributed or distributed_option.dist_rank == 0:  # the rank that writes
                check_writable(Path(trainer_options.output_dir))
                if trainer_options.resume:
                    finish_epoch(Path(trainer_options.output_dir), trainer_options.best_model_criterion)
            super().run(trainer_options=trainer_options, distributed_option=distributed_option, **kwargs)

    @classmethod
    def build_options(cls, args) -> VocoderTrainerOptions:
        return build_dataclass(VocoderTrainerOptions, args)

    @classmethod
    def train_one_epoch(cls, *, model, optimizers, distributed_option, scaler, iterator, options, **kwargs) -> bool:
        skipped, use_graph = _SkippedSteps(), options.ngpu > 0 and getattr(options, "use_graph", False)
        if use_graph and (reason := graph_epoch.obstacle(options, optimizers, distributed_option.distributed)):
            logging.warning(f"use_graph: not with {reason}, the GPU gets the kernels of a step one by one")
            use_graph = False
        logging.getLogger().addFilter(skipped)
        try:
            if use_graph:
                invalid = graph_epoch.train_one_epoch(model, optimizers, iterator=iterator, options=options, **kwargs)
            else:
                for optimizer in optimizers:
                    set_capturable(optimizer, False)  # of a run that is resumed without
                invalid = super().train_one_epoch(
                    model=model, optimizers=optimizers, distributed_option=distributed_option, scaler=scaler,
                    iterator=iterator if options.ngpu else _beside_others(iterator), options=options, **kwargs,
                )  # fmt: skip
        finally:
            logging.getLogger().removeFilter(skipped)
        if skipped.count:
            logging.warning(f"{skipped.count} steps of this epoch were not finite and left the weights as they were")
        return invalid

    @classmethod
    @torch.no_grad()
    def plot_attention(cls, model, output_dir, summary_writer, iterator, reporter, options) -> None:
        """Write ``ID/copy.EPOCHep.{wav,png}`` and, once, the recording beside them."""
        model.eval()
        epoch = reporter.get_epoch()
        for ids, batch in iterator:
            batch = {name: values.to("cuda" if options.ngpu > 0 else "cpu") for name, values in batch.items()}
            wav, mel = model.wav_and_mel(batch["speech"], batch.get("feats"))
            noise = torch.randn(wav.shape, generator=torch.Generator().manual_seed(0)).to(wav)
            copies = model.best_flow.inverse(noise * model.loss.sample_sigma, mel).clamp(-1, 1)
            for key, reference, copy in zip(ids, wav, copies, strict=True):
                write_sample(Path(output_dir) / key, epoch, reference.cpu(), copy.cpu(), model.convention)
                if summary_writer is not None:
                    summary_writer.add_audio(f"copy/{key}", copy.cpu(), epoch, model.convention.sample_rate)
            reporter.next()


def write_sample(folder: Path, epoch: int, reference: torch.Tensor, copy: torch.Tensor, convention) -> None:
    """Two wavs and one picture of both spectrograms."""
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    write_wav(folder / "recording.wav", reference, convention.sample_rate)
    write_wav(folder / f"copy.{epoch}ep.wav", copy, convention.sample_rate)
    figure, axes = plt.subplots(2, 1, sharex=True, figsize=(8, 6), layout="constrained")
    for axis, wav, title in zip(axes, (reference, copy), ("recording", f"copy, epoch {epoch}"), strict=True):
        mel = convention.extract(wav)
        axis.imshow(mel, origin="lower", aspect="auto", vmin=-4, vmax=1, cmap="magma")
        axis.set(title=title, ylabel="mel bin")
    axes[-1].set_xlabel(f"frame of {convention.hop_length} samples")
    figure.savefig(folder / f"copy.{epoch}ep.png", dpi=80)
    plt.close(figure)
