"""MelGlow in Coqui TTS: a configuration, a model and a dataset for its trainer and its Synthesizer."""

from melglow_plugin import hook


def register() -> None:
    """Make ``load_config``, ``setup_model``, ``Synthesizer`` and ``TTS.api`` know MelGlow, in this process.

    For a command of its own see :mod:`melglow_plugin.run`. A vocoder named melglow that Coqui has itself goes first.
    """
    hook.install()
