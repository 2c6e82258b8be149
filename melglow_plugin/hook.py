"""Registration of MelGlow with ESPnet and Coqui TTS in this process; ``melglow hook enable`` installs a call of it.

It imports the standard library only; our modules for a host are imported when the host is.
"""

import os

from melglow_plugin import coqui, espnet


def start() -> None:
    """Called by the start-up file of ``melglow hook enable``; MELGLOW_NO_HOOK=1 turns it off."""
    if not os.environ.get("MELGLOW_NO_HOOK"):
        install()


def install() -> None:
    """Make MelGlow known to ESPnet and Coqui TTS; doing it again changes nothing."""
    espnet.register()
    coqui.register()
