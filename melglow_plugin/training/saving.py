"""Trainers' checkpoints, which a kill or a full disk cannot damage; each host's ``saving.py`` uses it."""

from pathlib import Path

import torch

from melglow_plugin.files import atomic_write


def save_whole(state, path: str | Path, save=torch.save, **options) -> None:
    """Write ``state`` so that its file appears whole or not at all.

    Args:
        state: what ``save`` can write.
        path: the file.
        save: ``torch.save``, also where ``torch.save`` was replaced by another function.
        options: of ``save``.

    Raises:
        OSError: naming ``path``; torch's own message for a full disk names a position in an archive instead.
    """
    try:
        with atomic_write(path, "part") as file:
            save(state, file, **options)
    except RuntimeError as error:
        if isinstance(cause := error.__context__, OSError):
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise
