"""Two conventions side by side: whether an acoustic model and a vocoder fit."""

from pathlib import Path

from melglow_plugin.mel.config_files import NAMES
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.mel.conversion import APPROXIMABLE, STRUCTURAL


def compare(source: MelConvention, target: MelConvention) -> tuple[bool, str]:
    """Whether a vocoder for mels of ``target`` takes mels of ``source``, and a table of the fields."""
    rows, exact = [], True
    for name in source.to_dict():
        ours, theirs = getattr(source, name), getattr(target, name)
        if ours == theirs:
            verdict = "same"
        elif name not in STRUCTURAL:
            verdict = "converted exactly"
        else:
            verdict, exact = "DOES NOT FIT" + (", approximately at best" if name in APPROXIMABLE else ""), False
        if verdict != "same" or name in STRUCTURAL:
            rows.append(f"{name:15} {_short(ours):>14} {_short(theirs):>14}  {verdict}")
    head = f"{'field':15} {'acoustic model':>14} {'vocoder':>14}"
    return exact, "\n".join([head, *rows])


def convention_of_config(path: str | Path) -> MelConvention:
    """The convention of an acoustic model's mel, from its configuration file, or from a folder that contains one.

    Raises:
        ValueError: there is none, or it names no mel.
    """
    path = Path(path)
    if path.is_dir() and not any((path / name).is_file() for name in NAMES):
        found = sorted(p for name in NAMES for p in path.rglob(name))
        found = [p for p in found if "vocoder" not in str(p)] or found
        path = found[0] if found else path
    return MelConvention.from_file(path)


def _short(value) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} values"
    return f"{value:g}" if isinstance(value, float) else str(value)
