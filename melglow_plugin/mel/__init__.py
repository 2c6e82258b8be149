"""Mels: their definition, conversion, presets of other systems, and the doctor, which recognises conventions."""

from melglow_plugin.mel.convention import MelConvention

__all__ = ["MelConvention"]
