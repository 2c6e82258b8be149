"""From YAML and JSON to frozen dataclasses, strictly: a key that nobody reads is an error."""

import contextlib
import dataclasses
import operator
import reprlib
import sys
import warnings
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

# Of a value in a message: YAML aliases can make that of a small file gigabytes long.
_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxlist, _repr.maxdict = 2, 4, 4
short = _repr.repr
# What a part of this package needs beyond the core, by the extra that installs it.
EXTRAS = {
    "eval": ("distillmos", "fastdtw", "librosa", "matplotlib", "pysptk", "pystoi", "pyworld", "speechmos"),
    "export": ("onnx", "onnx_ir", "onnxruntime", "onnxscript"),
}


def whole_number(value: Any) -> int | None:
    """A whole number of Python, numpy or torch as an int; None where ``value`` is none, as True and 1.0 are."""
    value = _unpacked(value)
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def real_number(value: Any) -> float | None:
    """A real number of Python, numpy or torch as a float; None where ``value`` is none, as True is, or too large."""
    value = _unpacked(value)
    try:
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None
    except OverflowError:
        return None


def _unpacked(value: Any) -> Any:
    """What a scalar of numpy or torch holds; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def from_dict(cls, values: Mapping, where: str):
    """Build the dataclass ``cls`` from ``values``.

    Keys in ``cls.RENAMED``, where there is one, are taken under their new names, with a DeprecationWarning.

    Raises:
        ValueError: an unknown key, or a value of another type than the field's default; ``where`` names the section.
    """
    values = under_new_names(values, getattr(cls, "RENAMED", {}), where)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(fields)}")
    converted = {}
    for name, value in values.items():
        default = fields[name].default
        value = tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(default):
            raise ValueError(f"{where}: {name} is {short(value)}, wanted {type(default).__name__} as in {default!r}")
        converted[name] = value
    return cls(**converted)


def under_new_names(values: Mapping, renamed: Mapping[str, str], where: str) -> dict:
    """``values`` with the keys of ``renamed`` replaced; a DeprecationWarning names each, ValueError one given twice."""
    for old, new in renamed.items():
        if old in values:
            if new in values:
                raise ValueError(f"{where}: {old} is the former name of {new}, and both are given")
            warnings.warn(f"{where}: {old} is now {new}", DeprecationWarning, stacklevel=3)
    return {renamed.get(name, name): value for name, value in values.items()}


def plain(values: Mapping) -> dict:
    """``values`` with lists in the place of tuples, as JSON and YAML have them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def key_differences(found: set, wanted: set) -> str:
    """What is missing and what is unknown, by name."""
    parts = [
        f"{word} {', '.join(sorted(map(str, keys))[:5])}{' and more' if len(keys) > 5 else ''}"
        for word, keys in (("missing", wanted - found), ("unknown", found - wanted))
        if keys
    ]
    return "; ".join(parts)


@contextlib.contextmanager
def naming(path: str | Path):
    """Whatever a wrong value leads to is a ValueError that names the file."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, KeyError, ArithmeticError) as error:
        raise ValueError(f"{path}: {error}") from error


def renamed_method(old: str, new: str):
    """A method under its former name, for one version: it calls the one named ``new``, with a DeprecationWarning."""

    def call(self, *args, **kwargs):
        warnings.warn(f"{type(self).__name__}.{old} is now {new}", DeprecationWarning, stacklevel=2)
        return getattr(self, new)(*args, **kwargs)

    return call


def with_remedy(error: Exception) -> str:
    """The message of an error; where a package of an extra is missing, with the command that installs it."""
    missing = (getattr(error, "name", None) or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extra = next((extra for extra, packages in EXTRAS.items() if missing in packages), None)
    return f'{error}: pip install "melglow-plugin[{extra}]"' if extra else str(error)


def run_main(main: Callable[[], None], *more: type[Exception]) -> None:
    """Run a script; bad input, and ``more`` kinds of errors, end it with one line on stderr and exit status 2."""
    bad: tuple[type[Exception], ...] = (ValueError, OSError, ImportError, *more)
    try:
        main()
    except bad as error:
        print(f"{Path(sys.argv[0]).stem}: {' '.join(with_remedy(error).split())}", file=sys.stderr)
        sys.exit(2)
