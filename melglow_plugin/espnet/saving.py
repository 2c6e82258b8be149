"""Checkpoints of ESPnet2's trainer that a kill cannot damage: the trainer itself writes directly to the final names."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from espnet2.train.reporter import Reporter

from melglow_plugin.files import atomic_write
from melglow_plugin.training.saving import save_whole


@contextlib.contextmanager
def whole_checkpoints() -> Iterator[None]:
    """While it lasts, what ``torch.save`` writes to a path appears whole or not at all."""
    original = torch.save

    def save(obj, f, *args, **kwargs) -> None:
        if not isinstance(f, str | os.PathLike):
            return original(obj, f, *args, **kwargs)
        save_whole(obj, f, lambda obj, file: original(obj, file, *args, **kwargs))

    torch.save = save
    try:
        yield
    finally:
        torch.save = original


def check_writable(folder: Path) -> None:
    """OSError before the first step, and not after an epoch, where no checkpoint can be made in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def finish_epoch(folder: Path, criteria: Sequence[Sequence[str]]) -> None:
    """Create the files that a kill left missing between ``checkpoint.pth`` and its epoch's own file and links.

    The trainer resumes from ``checkpoint.pth`` after that epoch, and needs the epoch's file to average the best.

    Args:
        folder: of the experiment.
        criteria: ``best_model_criterion``: phase, key and mode of each link to a best model.
    """
    if not (folder / "checkpoint.pth").exists():
        return
    states = torch.load(folder / "checkpoint.pth", map_location="cpu", weights_only=True)
    reporter = Reporter()
    reporter.load_state_dict(states["reporter"])
    epochs = {"latest.pth": reporter.get_epoch()}
    for phase, key, mode in criteria:
        if reporter.has(phase, key):
            epochs[f"{phase}.{key}.best.pth"] = reporter.get_best_epoch(phase, key, mode)
    own = folder / f"{reporter.get_epoch()}epoch.pth"
    if not own.exists():
        with atomic_write(own, "part") as file:
            torch.save(states["model"], file)
    for name, epoch in epochs.items():
        target, link = f"{epoch}epoch.pth", folder / name
        if (folder / target).exists() and not (link.is_symlink() and os.readlink(link) == target):
            link.unlink(missing_ok=True)
            link.symlink_to(target)
