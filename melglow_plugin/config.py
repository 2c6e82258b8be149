"""From YAML and JSON to frozen dataclasses, strictly: a key that nobody reads is an error."""

import dataclasses
import reprlib
from collections.abc import Mapping

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
