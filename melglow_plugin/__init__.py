"""MelGlow: a normalizing-flow vocoder for ESPnet and Coqui TTS."""

from melglow_plugin import moved

__version__ = "0.2.0"

_HOME = {
    "MelGlow": "model.melglow",
    "WaveGlow": "model.melglow",
    "LVCNet": "model.lvc_net",
    "LVCNetGenerator": "model.lvcnet_generator",
    "KernelPredictor": "model.kernel_predictor",
    "location_variable_conv": "model.lvc",
    "flow_nll": "model.loss",
    "MelConvention": "mel",
    "Vocoder": "vocoder",
}
__all__ = [*_HOME]

moved.install()


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
