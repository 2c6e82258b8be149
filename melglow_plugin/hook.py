"""A lazy import hook, stdlib only: when a host's module is imported, MelGlow introduces itself to it.

Nothing is imported until then, so installing the hook costs well under a millisecond.
"""

import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec

# host module -> our module whose ``patch(module)`` is called with it
TARGETS = {
    "espnet2.tts.utils.parallel_wavegan_pretrained_vocoder": "melglow_plugin.espnet.vocoder",
    "espnet2.tasks.tts": "melglow_plugin.espnet.vocoder",
    "espnet2.tasks.tts2": "melglow_plugin.espnet.vocoder",
    "espnet2.tasks.svs": "melglow_plugin.espnet.vocoder",
    "espnet2.tasks.s2st": "melglow_plugin.espnet.vocoder",
    "espnet2.bin.tts_inference": "melglow_plugin.espnet.vocoder",
    "espnet2.gan_tts.joint.joint_text2wav": "melglow_plugin.espnet.joint",
}
# module that a host looks for, but does not have -> where it is, and the class in it. Classes live in our package, so
# that they can be pickled.
ALIASES = {
    "TTS.vocoder.configs.melglow_config": ("melglow_plugin.coqui.config", "MelglowConfig"),
    "TTS.vocoder.models.melglow": ("melglow_plugin.coqui.model", "Melglow"),
}


class _Loader:
    """The host's own loader, and a patch after it."""

    def __init__(self, loader, patcher: str) -> None:
        self.loader, self.patcher = loader, patcher

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module) -> None:
        self.loader.exec_module(module)
        import_module(self.patcher).patch(module)

    def __getattr__(self, name: str):  # runpy, inspect and pkgutil ask for get_code, get_source, get_data ...
        return getattr(self.loader, name)


class _AliasLoader:
    """A module that holds one class of ours."""

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module) -> None:
        home, name = ALIASES[module.__name__]
        setattr(module, name, getattr(import_module(home), name))


class Finder:
    """Finds what the other finders find, and wraps the loader of ``TARGETS``; finds ``ALIASES`` where no other does."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in TARGETS and name not in ALIASES:
            return None
        for finder in sys.meta_path:
            if finder is Finder or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                if name in TARGETS:
                    spec.loader = _Loader(spec.loader, TARGETS[name])
                return spec
        return ModuleSpec(name, _AliasLoader) if name in ALIASES else None


def start() -> None:
    """What the start-up file of ``melglow hook enable`` calls; MELGLOW_NO_HOOK=1 opts out."""
    if not os.environ.get("MELGLOW_NO_HOOK"):
        install()


def install() -> None:
    """Watch imports from now on, and patch what has been imported; doing it again changes nothing."""
    if Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)
    for name, patcher in TARGETS.items():
        if name in sys.modules:
            import_module(patcher).patch(sys.modules[name])
