"""What a mel means."""

from melglow_plugin.mel.convention import MelConvention

__all__ = ["MelConvention"]
