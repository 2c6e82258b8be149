"""Files of several arrays: numpy's .npz, torch's .pt, Kaldi's .ark and HDF5. Nothing in them is executed."""

import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from melglow_plugin.files.writing import input_file, note_input

TORCH_SUFFIXES = (".pt", ".pth")
SUFFIXES = (".ark", ".h5", ".hdf5", ".npz", *TORCH_SUFFIXES)  # of files whose path may be followed by ":" and a name
MAX_UNPACKED = 2**30  # bytes of a compressed .npz


def split_part(path: str) -> tuple[str, str | None]:
    """``FILE`` and ``NAME`` of ``FILE:NAME``, or ``path`` and None."""
    file, colon, part = path.rpartition(":")
    found = colon and "/" not in part and file.lower().endswith(SUFFIXES)
    return (file, part) if found else (path, None)


def is_archive(path: str | Path) -> bool:
    """Whether a file is a zip archive, as .npz and .pt are; ValueError: no such file."""
    with open(input_file(path), "rb") as file:
        return file.read(2) == b"PK"


def read_archive(file: str, name: str | None):
    """The array ``name``, or the only one, of a ``.npz`` or of tensors by ``torch.save``.

    Raises:
        ValueError: it is damaged, holds more than arrays, none of that name, or several; the message names them.
    """
    import numpy as np

    input_file(file)
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            unpacked = sum(info.file_size for info in archive.infolist())
    except zipfile.BadZipFile:
        names, unpacked = [], 0
    if Path(file).suffix.lower() in TORCH_SUFFIXES or any(entry.endswith("data.pkl") for entry in names):
        return _numbers(load_torch(Path(file)), name, file)
    if not names:
        raise ValueError(f"{file} is a damaged archive, or an empty one")
    if not all(entry.endswith(".npy") for entry in names):
        raise ValueError(f"{file} is an archive of {', '.join(names[:5])}, wanted a .npz of arrays")
    if unpacked > MAX_UNPACKED:
        raise ValueError(f"{file} unpacks to {unpacked} bytes, more than {MAX_UNPACKED}")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays[_chosen(arrays.files, name, file)]
    except (OSError, EOFError, MemoryError, OverflowError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = "it holds Python objects" if "allow_pickle" in str(error) else error
        raise ValueError(f"{file} cannot be read: {reason}") from error


def load_torch(path: Path):
    """``torch.load`` of tensors and plain containers; ValueError for anything else, of which nothing is executed."""
    import torch

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch stores its records as they are, side by side
                unpacked, size = sum(info.file_size for info in archive.infolist()), path.stat().st_size
            if unpacked > size:
                raise ValueError(f"its records unpack to {unpacked} bytes, the file has {size}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about old pickles
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can make torch raise nearly anything
        # Of torch's page, the line that names what was refused, without the advice to allow it.
        lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
        reason = next((line for line in lines if "WeightsUnpickler" in line), lines[0]).split(". ")[0]
        raise ValueError(f"{path} holds more than tensors, or is damaged: {reason}") from error


def _numbers(state, name: str | None, file: str):
    """The tensor of a file of torch.save as an array of numpy."""
    import torch

    if isinstance(state, Mapping):
        tensors = {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}
        try:
            state = tensors[_chosen(tensors, name, file)]
        except ValueError as error:
            raise ValueError(f"{file} cannot be read: {error}") from error
    elif name is not None:
        raise ValueError(f"{file} holds one {type(state).__name__} without a name: leave out :{name}")
    if not isinstance(state, torch.Tensor) or state.layout != torch.strided:
        raise ValueError(f"{file} holds a {type(state).__name__}, wanted a plain tensor")
    if state.numel() * state.element_size() > state.untyped_storage().nbytes():  # repeated by a stride of 0
        raise ValueError(f"{file}: a tensor of shape {tuple(state.shape)} is larger than what the file holds of it")
    return (state.detach().float() if state.dtype == torch.bfloat16 else state.detach()).numpy()


def _chosen(names: Iterable[str], name: str | None, file: str) -> str:
    """``name``, or the only one of ``names``; else ValueError with those that are there."""
    names = list(names)
    if name in names or (name is None and len(names) == 1):
        return names[0] if name is None else name
    raise ValueError(f"it holds {', '.join(names[:5]) or 'no array'}: name one as {file}:NAME")


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


def read_hdf5(file: str, name: str | None):
    """The array ``name`` of an HDF5 file, ``feats``, or its only one; ValueError as :func:`read_archive`."""
    note_input(file)
    try:
        import h5py
    except ImportError as error:
        raise ValueError(f"{file} is HDF5: pip install h5py reads it") from error
    try:
        with h5py.File(file, "r") as content:
            # parallel_wavegan keeps a recording's mel beside its wave.
            name = "feats" if name is None and "feats" in content else _chosen(list(content), name, file)
            return content[name][()]
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
