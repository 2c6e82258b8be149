"""A checkout of the recipes in a folder of its own, so that the one in use keeps its experiments."""

import shutil
from pathlib import Path

import zygote

ROOT = Path(__file__).parents[2]


def checkout(folder: Path, *recipes: str) -> Path:
    """Symbolic links to what recipes read, copies of the recipes, and a ``.venv`` whose Python has ESPnet imported."""
    for name in ("melglow_plugin", "conf"):
        (folder / name).symlink_to(ROOT / name)
    for recipe in recipes:
        shutil.copytree(
            ROOT / recipe, folder / recipe, symlinks=True,
            ignore=shutil.ignore_patterns("exp", "data", "corpus", "downloads"),
        )  # fmt: skip
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "python3"):
        zygote.shared().python(folder / ".venv" / "bin", name)
    return folder
