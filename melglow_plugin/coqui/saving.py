"""Checkpoints of Coqui's Trainer that a kill cannot damage: it writes straight to the final name."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import trainer.io as host

from melglow_plugin.files import whole_file
from melglow_plugin.training.saving import save_whole

_coquis = host.save_fsspec


def _save_whole(state, path, complete=dict, **kwargs) -> None:
    """As Coqui's ``save_fsspec``, but a local file appears whole or not at all, and with what ``complete`` adds."""
    state = complete(state)
    if "://" in str(path):
        return _coquis(state, path, **kwargs)
    save_whole(state, path, **kwargs)


def protect(folder: str | Path, complete: Callable[[dict], dict]) -> None:
    """From now on in this process, checkpoints appear whole; ``best_model.pth`` is made good if a kill spoiled it.

    Args:
        folder: of the run; Coqui keeps ``best_model_STEP.pth`` there, and copies it to ``best_model.pth``.
        complete: makes what is saved of what Coqui's Trainer would save.
    """
    host.save_fsspec = functools.partial(_save_whole, complete=complete)
    numbered = [path for path in Path(folder).glob("best_model_*.pth") if path.stem.split("_")[-1].isdecimal()]
    if not numbered:
        return
    best, copy = max(numbered, key=lambda path: int(path.stem.split("_")[-1])), Path(folder) / "best_model.pth"
    if not copy.exists() or copy.stat().st_size != best.stat().st_size:
        with open(best, "rb") as source, whole_file(copy, "part") as target:
            shutil.copyfileobj(source, target)
