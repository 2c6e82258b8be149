"""The stages of a vocoder in ESPnet3; defaults of its configurations lie in ``conf/`` beside this file."""

import copy
from collections.abc import Sequence

from espnet3.systems.base.system import BaseSystem
from espnet3.systems.base.training import collect_stats
from espnet3.systems.launch import launch


class VocoderSystem(BaseSystem):
    """``create_dataset``, ``collect_stats``, ``train``, ``infer`` (copy-synthesis) and ``measure``.

    The model is that of :class:`melglow_plugin.espnet.task.VocoderTask`, so what is trained here is loaded by
    everything that loads a model of ESPnet2's trainer.
    """

    def collect_stats(self, *args, **kwargs):
        """Statistics of whole recordings' mels, as ESPnet2 collects them, by all workers of ``parallel``."""
        self._reject_stage_args("collect_stats", args, kwargs)
        config = copy.deepcopy(self.training_config)
        config.model.mel_stats = None  # what this stage writes
        for part in ("train", "valid"):
            config.dataset.preprocessor[part].frames = None
        return collect_stats(config)


def main(argv: Sequence[str] | None = None) -> None:
    """``run.py`` of a recipe: its configurations over the defaults."""
    launch(VocoderSystem, conf_package="melglow_plugin.espnet.espnet3", argv=argv)
