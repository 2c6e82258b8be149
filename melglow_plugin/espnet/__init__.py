"""MelGlow in ESPnet: a task for its trainer, and a vocoder for its inference."""

from melglow_plugin import watch
from melglow_plugin.espnet.names import INFERENCE, PWG_MODULE, TASKS

TARGETS = {  # ESPnet's module -> our module whose ``patch(module)`` is called with it
    **dict.fromkeys((PWG_MODULE, *TASKS, *INFERENCE), "melglow_plugin.espnet.vocoder"),
    "espnet2.gan_tts.joint.joint_text2wav": "melglow_plugin.espnet.joint",
    "espnet3.systems.f5tts.inference": "melglow_plugin.espnet.f5tts",
}


def register() -> None:
    """Make ESPnet2's ``--vocoder_file`` and ``Text2Speech(vocoder_file=...)`` know MelGlow, in this process.

    It may be called before or after ESPnet's modules are imported. For a command of its own see
    :mod:`melglow_plugin.run`.
    """
    watch.install(TARGETS)


def text2speech(**options):
    """ESPnet2's ``Text2Speech(**options)`` with MelGlow known to it: a ``_target_`` for Hydra, and so for ESPnet3."""
    register()
    from espnet2.bin.tts_inference import Text2Speech

    return Text2Speech(**options)


def f5tts_inference(**options):
    """ESPnet3's ``F5TTSInference(**options)`` with MelGlow known to its ``vocoder_path``: a ``_target_`` for Hydra."""
    register()
    from espnet3.systems.f5tts.inference import F5TTSInference

    return F5TTSInference(**options)
