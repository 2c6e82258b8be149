"""MelGlow in ESPnet: a task for its trainer, and a vocoder for its inference."""

from melglow_plugin import hook


def register() -> None:
    """Make ESPnet2's ``--vocoder_file`` and ``Text2Speech(vocoder_file=...)`` know MelGlow, in this process.

    It may be called before or after ESPnet's modules are imported. For a command of its own see
    :mod:`melglow_plugin.run`.
    """
    import sys

    hook.install()
    # Modules that copied the class by name before the hook was there.
    from melglow_plugin.espnet import vocoder

    if vocoder.PWG_MODULE in sys.modules:
        patched = getattr(sys.modules[vocoder.PWG_MODULE], vocoder.PWG_CLASS)
        for name in ("espnet2.tts.utils", *vocoder.TASKS):
            if name in sys.modules and hasattr(sys.modules[name], vocoder.PWG_CLASS):
                setattr(sys.modules[name], vocoder.PWG_CLASS, patched)


def text2speech(**options):
    """ESPnet2's ``Text2Speech(**options)`` with MelGlow known to it: a ``_target_`` for Hydra, and so for ESPnet3."""
    register()
    from espnet2.bin.tts_inference import Text2Speech

    return Text2Speech(**options)
