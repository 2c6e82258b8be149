"""The file formats of models: folder, ESPnet, Coqui TTS, ONNX, Hugging Face Hub."""

_HOME = {"Checkpoint": "checkpoint", "load": "any_file", "save": "folder"}
__all__ = [*_HOME]


def __getattr__(name: str):  # lazy: ``pretrained`` and so ``melglow --help`` need no torch
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
