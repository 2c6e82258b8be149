"""Checkpoints of Coqui's Trainer that a kill cannot damage: the Trainer itself writes directly to the final name."""

import contextlib
import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import trainer.io as host

from melglow_plugin.files import atomic_write
from melglow_plugin.training.saving import save_whole


@contextlib.contextmanager
def whole_checkpoints(complete: Callable[[dict], dict] = dict) -> Iterator[None]:
    """While it lasts, ``save_fsspec`` writes a local file whole or not at all, and with what ``complete`` adds."""
    original = host.save_fsspec

    def save(state, path, **kwargs) -> None:
        state = complete(state)
        if "://" in str(path):
            return original(state, path, **kwargs)
        save_whole(state, path, **kwargs)

    host.save_fsspec = save
    try:
        yield
    finally:
        host.save_fsspec = original


def protect(trainer, complete: Callable[[dict], dict]) -> None:
    """Let ``trainer`` save in :func:`whole_checkpoints`; ``best_model.pth`` is restored if a kill left it incomplete.

    Args:
        trainer: Coqui's; it keeps ``best_model_STEP.pth`` in ``output_path``, and copies it to ``best_model.pth``.
        complete: returns the state to save, from the state that the trainer would save.
    """
    for name in ("save_checkpoint", "save_best_model"):
        setattr(trainer, name, _in_context(getattr(trainer, name), complete))
    folder = Path(trainer.output_path)
    numbered = [path for path in folder.glob("best_model_*.pth") if path.stem.split("_")[-1].isdecimal()]
    if not numbered:
        return
    best, copy = max(numbered, key=lambda path: int(path.stem.split("_")[-1])), folder / "best_model.pth"
    if not copy.exists() or copy.stat().st_size != best.stat().st_size:
        with open(best, "rb") as source, atomic_write(copy, "part") as target:
            shutil.copyfileobj(source, target)


def _in_context(save: Callable, complete: Callable[[dict], dict]) -> Callable:
    @functools.wraps(save)
    def in_context(*args, **kwargs):
        with whole_checkpoints(complete):
            return save(*args, **kwargs)

    return in_context
