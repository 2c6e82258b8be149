"""Arrays of numbers, from every kind of file that mels are kept in."""

from pathlib import Path

from melglow_plugin.files.archives import TORCH_SUFFIXES, is_archive, load_ark, read_archive, read_hdf5, split_part
from melglow_plugin.files.writing import input_file


def read_array(path: str | Path):
    """The numbers of a file, of any shape; ``FILE:NAME`` or ``FILE:OFFSET`` is one array of several.

    ``.npy``; ``.npz``, ``.pt`` and ``.pth`` of one array or of a named one; ``.ark:OFFSET`` of Kaldi and ``.h5`` where
    their readers are installed.

    Raises:
        ValueError: the file is missing, holds something else, or its reader is not installed; it is named.
    """
    import numpy as np

    file, part = split_part(str(path))
    suffix = Path(file).suffix.lower()
    if suffix == ".ark" and part:
        array = load_ark(str(path))
    elif suffix in (".h5", ".hdf5"):
        array = read_hdf5(file, part)
    elif suffix in TORCH_SUFFIXES or is_archive(file):
        array = read_archive(file, part)
    else:
        array = _read_npy(path)
    if not isinstance(array, np.ndarray) or array.dtype.hasobject or array.dtype.names:
        raise ValueError(f"{path} holds no plain array of numbers")
    return array


def read_mel(path: str | Path, frames_first: bool, bins: int | None = None):
    """A mel (M, F) in float32; ValueError names the file where it is empty, no floats, or not finite.

    Where only one axis of the file has ``bins`` entries, it is that of the bins; else ``frames_first`` decides.
    """
    import numpy as np
    import torch

    mel = read_array(path)
    while mel.ndim == 3 and len(mel) == 1:  # a batch of one
        mel = mel[0]
    if mel.ndim != 2 or not np.issubdtype(mel.dtype, np.floating):
        raise ValueError(f"{path}: {mel.dtype} of shape {mel.shape}, wanted floats of two dimensions")
    if not mel.size:
        raise ValueError(f"{path} is empty, of shape {mel.shape}")
    if mel.shape.count(bins) == 1:
        frames_first = mel.shape[1] == bins
    # float32 first: torch has no longdouble and no big-endian numbers.
    with np.errstate(over="ignore"):
        mel = np.ascontiguousarray((mel.T if frames_first else mel).astype(np.float32))
    if bad := int((~np.isfinite(mel)).sum()):
        raise ValueError(f"{path} holds {bad} values that are not finite, of {mel.size}")
    return torch.from_numpy(mel)


def _read_npy(path: str | Path):
    import numpy as np

    with open(input_file(path), "rb") as file:
        start = file.read(6)
    if not start.startswith(b"\x93NUMPY"):  # numpy takes all else for a pickle
        raise ValueError(f"{path} is no .npy of numbers: it begins with {start!r}")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, MemoryError, OverflowError) as error:
        reason = "it holds Python objects" if "pickle" in str(error) else str(error).splitlines()[0]
        raise ValueError(f"{path} is no .npy of numbers: {reason}") from error
    return array
