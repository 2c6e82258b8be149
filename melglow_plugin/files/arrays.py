"""Arrays of numbers: .npy, and Kaldi's archives and HDF5 where their readers are installed."""

from pathlib import Path

from melglow_plugin.files.writing import input_file, note_input


def read_array(path: str | Path):
    """The numbers of a ``.npy``, of any shape; of ``FILE.ark:OFFSET``; of ``FILE.h5`` or ``FILE.h5:NAME``.

    Raises:
        ValueError: the file is missing, holds something else, or its reader is not installed; it is named.
    """
    import numpy as np

    name, colon, part = str(path).rpartition(":")
    if colon and name.lower().endswith(".ark"):
        array = load_ark(str(path))
    elif (file := name if colon and _is_hdf5(name) else str(path)) and _is_hdf5(file):
        array = _read_hdf5(file, part if file == name else None)
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
    if start.startswith(b"PK"):
        raise ValueError(f"{path} is no .npy of numbers but {_archive_in_words(path)}")
    if not start.startswith(b"\x93NUMPY"):  # numpy takes all else for a pickle
        raise ValueError(f"{path} is no .npy of numbers: it begins with {start!r}")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, MemoryError, OverflowError) as error:
        reason = "it holds Python objects" if "pickle" in str(error) else str(error).splitlines()[0]
        raise ValueError(f"{path} is no .npy of numbers: {reason}") from error
    return array


def _archive_in_words(path: str | Path) -> str:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a damaged archive"
    kind = "a file of torch.save" if any(name.endswith("data.pkl") for name in names) else "an archive"
    return f"{kind} ({', '.join(names[:5])})"


def load_ark(place: str):
    """What lies at ``FILE.ark:OFFSET``, a matrix or a pair of rate and recording; ValueError as :func:`read_array`."""
    note_input(place.rpartition(":")[0])
    try:
        import kaldiio
    except ImportError as error:
        raise ValueError(f"{place} is in a Kaldi archive: pip install kaldiio reads it") from error
    try:
        return kaldiio.load_mat(place)
    except Exception as error:  # kaldiio meets damage with nearly any exception
        raise ValueError(f"{place} cannot be read: {error}") from error


def _is_hdf5(path: str) -> bool:
    return path.lower().endswith((".h5", ".hdf5"))


def _read_hdf5(file: str, name: str | None):
    note_input(file)
    try:
        import h5py
    except ImportError as error:
        raise ValueError(f"{file} is HDF5: pip install h5py reads it") from error
    try:
        with h5py.File(file, "r") as content:
            names = list(content)
            # parallel_wavegan keeps a recording's mel beside its wave.
            name = name or ("feats" if "feats" in names else names[0] if len(names) == 1 else None)
            if name is None or name not in content:
                raise ValueError(f"it holds {', '.join(names[:5])}: name one as {file}:NAME")
            return content[name][()]
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
