"""MelGlow and LVCNet in Coqui TTS: a configuration, a model and a dataset for its trainer and its Synthesizer."""

from melglow_plugin import watch

TARGETS = {
    "TTS.api": "melglow_plugin.coqui.patches",
    "TTS.utils.synthesizer": "melglow_plugin.coqui.patches",
    "TTS.vocoder.models": "melglow_plugin.coqui.patches",
    "TTS.vocoder.models.gan": "melglow_plugin.coqui.patches",
}
ALIASES = {  # modules that Coqui looks for, and the class in each
    "TTS.vocoder.configs.melglow_config": ("melglow_plugin.coqui.config", "MelglowConfig"),
    "TTS.vocoder.models.melglow": ("melglow_plugin.coqui.model", "Melglow"),
    "TTS.vocoder.configs.lvcnet_config": ("melglow_plugin.coqui.gan_config", "LVCnetConfig"),
}


def register() -> None:
    """Make ``load_config``, ``setup_model``, ``Synthesizer`` and ``TTS.api`` know MelGlow, in this process.

    For a command of its own see :mod:`melglow_plugin.run`. A vocoder of Coqui's own named melglow takes precedence.
    """
    watch.install(TARGETS, ALIASES)
