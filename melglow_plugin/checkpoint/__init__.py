"""Every file that a model can be."""

__all__ = ["Checkpoint", "load", "save"]


def __getattr__(name: str):  # lazy: ``pretrained`` and so ``melglow --help`` need no torch
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from melglow_plugin.checkpoint import folder

    return getattr(folder, name)
