"""Module paths of version 0.1 that its documents named: they work for one version more, with a DeprecationWarning."""

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec

# old module -> the modules where its names are now
MOVED = {
    "adapt": ("checkpoint.adapt",),
    "config": ("checks",),
    "convert": ("checkpoint.any_file", "checkpoint.espnet", "checkpoint.coqui", "checkpoint.tensors"),
    "coqui_format": ("checkpoint.coqui",),
    "corpus": ("training.corpus", "files"),
    "data": ("training.crops",),
    "griffin_lim": ("evaluation.griffin_lim",),
    "lvc": ("model.lvc", "model.lvc_net", "model.kernel_predictor", "model.kernels.choice"),
    "metrics": ("evaluation.evaluate",),
    "models": ("model.melglow", "model.melflow"),
    "objective": ("training.objective",),
    "refine": ("inference.refine",),
    "report": ("evaluation.report",),
}


class Finder:
    """Finds the modules of ``MOVED``: each looks a name up in its new places when it is asked for it."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        package, _, old = name.rpartition(".")
        return ModuleSpec(name, Finder) if package == __package__ and old in MOVED else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module) -> None:
        homes = [f"{__package__}.{home}" for home in MOVED[module.__name__.rpartition(".")[2]]]
        warnings.warn(f"{module.__name__} is now {', '.join(homes)}", DeprecationWarning, stacklevel=2)

        def lookup(name: str):
            for home in homes:
                if hasattr(found := import_module(home), name):
                    return getattr(found, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = lookup


def install() -> None:
    """Look for the old modules where no other finder finds them; doing it again changes nothing."""
    if Finder not in sys.meta_path:
        sys.meta_path.append(Finder)
