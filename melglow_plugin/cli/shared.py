"""What several commands use."""

import argparse
from pathlib import Path

from melglow_plugin.checkpoint.pretrained import bundled_model


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def load_vocoder(name: str | None, device: str):
    """The named model, or the bundled one."""
    from melglow_plugin.vocoder import Vocoder

    vocoder = Vocoder.from_pretrained(name or bundled_model())
    try:
        return vocoder.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device}: {str(error).splitlines()[0]}") from error


def named_convention(name: str | None):
    """The convention of that name, and whether its system keeps mels frame-major; None: the vocoder's own."""
    from melglow_plugin.mel.convention import MelConvention
    from melglow_plugin.mel.systems import PRESETS

    if name is None:
        return None, False
    if name in PRESETS:
        return MelConvention.preset(name), name in ("espnet", "parallel_wavegan")
    if not Path(name).exists():
        raise ValueError(f"--convention {name}: none of {', '.join(PRESETS)}, and no file")
    return MelConvention.from_file(name), False
