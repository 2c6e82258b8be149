"""MelGlow made known to every host, in this process: what the start-up file of ``melglow hook enable`` calls.

Stdlib only, and so are the packages of the hosts: their modules are imported with the host's.
"""

import os

from melglow_plugin import coqui, espnet


def start() -> None:
    """What the start-up file calls; MELGLOW_NO_HOOK=1 opts out."""
    if not os.environ.get("MELGLOW_NO_HOOK"):
        install()


def install() -> None:
    """Make MelGlow known to ESPnet and Coqui TTS; doing it again changes nothing."""
    espnet.register()
    coqui.register()
