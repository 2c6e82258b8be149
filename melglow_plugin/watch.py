"""A lazy import hook, stdlib only: when a host's module is imported, our patch of it runs.

Nothing is imported until then, so installing the hook costs well under a millisecond.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec

_targets: dict[str, str] = {}  # host module -> our module whose ``patch(module)`` is called with it
# module that a host looks for, but does not have -> where it is, and the class in it. Classes live in our package, so
# that they can be pickled.
_aliases: dict[str, tuple[str, str]] = {}


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
        home, name = _aliases[module.__name__]
        setattr(module, name, getattr(import_module(home), name))


class Finder:
    """Finds what the other finders find, and wraps the loader of targets; finds aliases where no other does."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in _targets and name not in _aliases:
            return None
        for finder in sys.meta_path:
            if finder is Finder or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                if name in _targets:
                    spec.loader = _Loader(spec.loader, _targets[name])
                return spec
        return ModuleSpec(name, _AliasLoader) if name in _aliases else None


def wrapping(owner, name: str) -> Callable[[Callable], None]:
    """Decorator: ``owner.name`` calls the decorated function, with the original as first argument, from now on.

    Doing it again changes nothing. ``owner`` is a module or a class; a class method's original takes ``cls``.
    """

    def wrap(replacement: Callable) -> None:
        found = vars(owner).get(name) or getattr(owner, name)  # the latter where it is inherited
        original = getattr(found, "__func__", found)
        if hasattr(original, "_before_melglow"):
            return

        @functools.wraps(original)
        def wrapped(*args, **kwargs):
            return replacement(original, *args, **kwargs)

        wrapped._before_melglow = original
        setattr(owner, name, classmethod(wrapped) if isinstance(found, classmethod) else wrapped)

    return wrap


def install(targets: Mapping[str, str], aliases: Mapping[str, tuple[str, str]] | None = None) -> None:
    """Watch imports from now on, and patch what has been imported; doing it again changes nothing.

    Args:
        targets: host module -> our module whose ``patch(module)`` is called with it.
        aliases: module that a host looks for, but does not have -> our module, and the class in it.
    """
    _targets.update(targets)
    _aliases.update(aliases or {})
    if Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)
    for name, patcher in targets.items():
        if name in sys.modules:
            import_module(patcher).patch(sys.modules[name])
