"""MelGlow: a flow vocoder that fits ESPnet and Coqui TTS."""

__version__ = "0.1.0"

_HOME = {
    "MelGlow": "models",
    "WaveGlow": "models",
    "LVCNet": "lvc",
    "KernelPredictor": "lvc",
    "location_variable_conv": "lvc",
    "flow_nll": "loss",
    "MelConvention": "mel",
    "Vocoder": "vocoder",
}
__all__ = [*_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
