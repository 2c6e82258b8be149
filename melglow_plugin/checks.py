"""From YAML and JSON to frozen dataclasses, strictly: a key that nobody reads is an error."""

import contextlib
import dataclasses
import reprlib
from collections.abc import Mapping
from pathlib import Path

# Of a value in a message: YAML aliases can make that of a small file gigabytes long.
short = reprlib.Repr(maxlevel=2, maxlist=4, maxdict=4).repr


def from_dict(cls, values: Mapping, where: str):
    """Build the dataclass ``cls`` from ``values``.

    Raises:
        ValueError: an unknown key, or a value of another type than the field's default; ``where`` names the section.
    """
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


def key_differences(found: set, wanted: set) -> str:
    """What is missing and what is unknown, by name."""
    parts = [
        f"{word} {', '.join(sorted(map(str, keys))[:5])}{' and more' if len(keys) > 5 else ''}"
        for word, keys in (("missing", wanted - found), ("unknown", found - wanted))
        if keys
    ]
    return "; ".join(parts)


@contextlib.contextmanager
def naming(path: Path):
    """Whatever a wrong value leads to is a ValueError that names the file."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, KeyError, ArithmeticError) as error:
        raise ValueError(f"{path}: {error}") from error
