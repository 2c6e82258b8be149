"""Module paths of version 0.1: they work for one version more, with a DeprecationWarning."""

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec

# old module -> the modules where its names are now
MOVED = {
    "adapt": ("checkpoint.adapt",),
    "average": ("training.ema",),
    "bench": ("evaluation.bench",),
    "bundled": ("checkpoint.pretrained",),
    "config": ("checks",),
    "conventions": ("mel.systems", "mel.config_files", "files"),
    "convert": ("checkpoint.any_file", "checkpoint.espnet", "checkpoint.coqui", "checkpoint.tensors"),
    "coqui_format": ("checkpoint.coqui",),
    "corpus": ("training.corpus", "files"),
    "cuda_graphs": ("inference.cuda_graphs",),
    "data": ("training.crops",),
    "doctor": ("mel.doctor", "mel.doctor.doctor", "mel.doctor.known", "mel.doctor.statistics"),
    "export": ("checkpoint.espnet", "checkpoint.coqui"),
    "export_onnx": ("checkpoint.onnx",),
    "flow": ("model.flow",),
    "griffin_lim": ("evaluation.griffin_lim",),
    "hook_file": ("cli.hook_file",),
    "hub": ("checkpoint.hub",),
    "linear_prediction": ("model.linear_prediction",),
    "loss": ("model.loss",),
    "lvc": ("model.lvc", "model.lvc_net", "model.kernel_predictor", "model.kernels.choice"),
    "lvc_triton": ("model.kernels.triton",),
    "metrics": ("evaluation.evaluate",),
    "models": ("model.melglow", "model.melflow"),
    "noise": ("inference.noise",),
    "objective": ("training.objective",),
    "refine": ("inference.refine",),
    "report": ("evaluation.report",),
    "reproject": ("mel.conversion", "mel.filterbank"),
    "saving": ("training.saving",),
    "scores": ("evaluation.scores",),
    "streaming": ("inference.chunks",),
    "wavenet": ("model.wavenet",),
}
# name in a module of version 0.1 -> its name now
RENAMED = {"bundled_model": "pretrained_model", "bundled_models": "pretrained_models"}


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
        module.__getattr__ = lambda name: lookup(module.__name__, homes, name)


def lookup(old: str, homes: list[str], name: str):
    """``name``, or what it is called now, of the first of ``homes`` that has it; AttributeError names ``old``."""
    for home in homes:
        if hasattr(found := import_module(home), new := RENAMED.get(name, name)):
            return getattr(found, new)
    raise AttributeError(f"module {old!r} has no attribute {name!r}")


def install() -> None:
    """Look for the old modules where no other finder finds them; doing it again changes nothing."""
    if Finder not in sys.meta_path:
        sys.meta_path.append(Finder)
