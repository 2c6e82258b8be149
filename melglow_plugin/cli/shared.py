"""What several commands use."""

import argparse
import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path

from melglow_plugin.checkpoint.pretrained import pretrained_model
from melglow_plugin.checks import run_main
from melglow_plugin.files import (
    OVERWRITE,
    Entry,
    check_folder,
    check_output,
    claim,
    guarded,
    note_input,
    read_any_wav,
    read_wav,
    write_wav,
)
from melglow_plugin.processor import Cores, use_free_cores

_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # after these, no other file can be written either
CORES = Cores()  # measures from here on what other processes use
WAVS = "recordings, folders of them, or a wav.scp"
RESAMPLE = "take recordings of other sample rates and of several channels, too: resampled, channels averaged"
_FILE = ContextVar("_FILE", default="")  # that a command is at work on, for its warnings


def count(text: str) -> int:
    """A whole number above 0."""
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def seconds(text: str) -> float:
    """A finite number above 0."""
    try:
        if 0 < (number := float(text)) < float("inf"):
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")


def natural(text: str) -> int:
    """A whole number from 0 on."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def run_script(parser: argparse.ArgumentParser) -> None:
    """Run a recipe's script (``args.run``) as ``melglow`` runs commands: nothing replaced unasked, faults in a line."""
    parser.add_argument("--overwrite", action="store_true", help="replace what is there, unless it is an input")
    args = parser.parse_args()
    with guarded(args.overwrite):
        run_main(lambda: args.run(args))


def one_line(text: object) -> str:
    """Errors and warnings take one line of the output."""
    return " ".join(str(text).split()) or type(text).__name__


@contextlib.contextmanager
def warnings_in_a_line(program: str) -> Iterator[None]:
    """Inside, a warning is printed as an error of ``program`` is, and names the file of :func:`working_on`."""

    def formatted(message, category, filename, lineno, line=None) -> str:
        file = _FILE.get()
        where = f"{file}: " if file and file not in str(message) else ""
        return f"{program}: warning: {where}{one_line(message)}\n"

    before, warnings.formatwarning = warnings.formatwarning, formatted
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextlib.contextmanager
def working_on(entry: Entry) -> Iterator[None]:
    """Inside, warnings name this file."""
    token = _FILE.set(entry.where)
    try:
        yield
    finally:
        _FILE.reset(token)


def load_vocoder(name: str | None, device: str):
    """The named model, or the pretrained one."""
    from melglow_plugin.vocoder import Vocoder

    if name == "":
        raise ValueError("--checkpoint is empty: name a model, or leave the option out")
    vocoder = Vocoder.from_pretrained(name or pretrained_model(), device)
    use_free_cores(CORES)
    return vocoder


def recording(path: Path, sample_rate: int, converts: bool):
    """A recording (T,) at ``sample_rate``; where it ``converts``, of any rate and channels."""
    if not converts:
        return read_wav(path, sample_rate, " (--resample converts it)")
    from melglow_plugin.training.resample import resample

    return resample(*read_any_wav(path), sample_rate)


def recordings(entries: Iterable[Entry], faults: "Faults", sample_rate: int, converts: bool) -> Iterator:
    """The :func:`recording` of each entry; those that cannot be read are left to ``faults``."""
    from tqdm import tqdm

    for entry in tqdm(entries, unit="clip", disable=None):
        wav = None
        with faults.naming(entry):
            wav = recording(entry.file(), sample_rate, converts)
        if wav is not None:
            yield wav


def named_convention(name: str | None):
    """The convention of that name, and whether its system keeps mels frame-major; None: the vocoder's own."""
    from melglow_plugin.mel.config_files import is_frame_major
    from melglow_plugin.mel.convention import MelConvention
    from melglow_plugin.mel.systems import PRESETS

    if name is None:
        return None, False
    if name in PRESETS:
        return MelConvention.preset(name), name in ("espnet", "parallel_wavegan")
    if not Path(name).exists():
        raise ValueError(f"--convention {name}: none of {', '.join(PRESETS)}, and no file")
    return MelConvention.from_file(name), is_frame_major(name)


def note_inputs(model: str | Path | None) -> None:
    """Protect the files of a model, and those beside a model's file, from being overwritten."""
    if model is not None and Path(model).exists():
        folder = Path(model) if Path(model).is_dir() else Path(model).parent
        for path in folder.iterdir():
            note_input(path)


class Faults:
    """Errors of single files: each is reported at once, and the command continues with the other files."""

    def __init__(self, total: int) -> None:
        self.total, self.found = total, []

    @contextlib.contextmanager
    def naming(self, entry: Entry) -> Iterator[None]:
        """Inside, a wrong file is named and passed over."""
        from tqdm import tqdm

        try:
            with working_on(entry):
                yield
        except (ValueError, OSError) as error:
            if getattr(error, "errno", None) in _NO_MORE:
                raise
            message = str(error) if entry.where in str(error) else f"{entry.where}: {error}"
            self.found.append((entry.key, message))
            if self.total > 1:
                tqdm.write(message, file=sys.stderr)

    def close(self, done: str) -> None:
        """ValueError where a file was wrong: the last line of the command's output."""
        if self.found and self.total == 1:
            raise ValueError(self.found[0][1])
        if self.found:
            keys = ", ".join(key for key, _ in self.found[:5]) + (" ..." if len(self.found) > 5 else "")
            raise ValueError(f"{len(self.found)} of {self.total} not {done}: {keys}")


class Outputs(Faults):
    """The files ``KEY.wav`` in a folder that a command makes of its inputs, claimed before anything is computed.

    Args:
        entries: the inputs.
        folder: of the wavs.
        skip: leave out what is there already.
    """

    def __init__(self, entries: list[Entry], folder: Path, skip: bool) -> None:
        self.folder, self.skip, self.entries, self.left, self.made = folder, skip, [], 0, []
        check_folder(folder)
        for entry in entries:
            with contextlib.suppress(ValueError):  # what is missing is named when its turn comes
                note_input(entry.file())
        for entry in entries:
            claim(self.path(entry), entry.path)
        for path, entry in {self.path(entry): entry for entry in entries}.items():
            if skip and os.path.isfile(path):
                self.left += 1
                continue
            try:
                check_output(path)
            except ValueError as error:
                raise ValueError(str(error).replace(OVERWRITE, f"{OVERWRITE}, --skip-existing leaves it")) from error
            self.entries.append(entry)
        super().__init__(len(self.entries))

    def path(self, entry: Entry) -> Path:
        """The wav of an entry."""
        return self.folder / f"{entry.key}.wav"

    def write(self, entry: Entry, wav, sample_rate: int) -> bool:
        """Write a wav (T,), unless another command has done so since and is to be left alone; whether it is written."""
        if self.skip and os.path.exists(self.path(entry)):
            self.left += 1
            return False
        with self.naming(entry):
            write_wav(self.path(entry), wav, sample_rate)
            self.made.append(self.path(entry))
            return True
        return False

    def close(self, done: str = "made") -> None:
        """Print how many wavs were written and the first one's path; ValueError where a file was wrong."""
        left = f", {self.left} left as they were" if self.left else ""
        print(f"{len(self.made)} {'wav' if len(self.made) == 1 else 'wavs'} in {self.folder}{left}")
        if self.made:
            print(f"listen: {self.made[0].resolve()}")
        super().close(done)


def refinement(given: str) -> int | str:
    """``--refine``: a whole number, "auto" or "resynthesis"."""
    if given in ("auto", "resynthesis"):
        return given
    try:
        return int(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{given!r} is no whole number, not auto and not resynthesis") from error
