"""Sentences through ESPnet3's ``infer``: an acoustic model of ESPnet2's trainer and MelGlow; defaults in ``conf/``."""

from collections.abc import Sequence
from pathlib import Path

from espnet3.components.data.base_dataset import BaseDataset
from espnet3.contract import Field
from espnet3.contract.kinds.audio import Audio
from espnet3.systems.base.system import BaseSystem
from espnet3.systems.launch import launch

from melglow_plugin.espnet import text2speech
from melglow_plugin.files import read_table


class Dataset(BaseDataset):
    """``utt_id`` and ``text`` of a Kaldi-style ``text`` file, lines of an id and a sentence."""

    fields = (Field("utt_id", "text"), Field("text", "text"))

    def __init__(self, file: str | Path) -> None:
        self.items = list(read_table(file).items())

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, str]:
        key, text = self.items[index]
        return {"utt_id": key, "text": text}


class Speaker:
    """Sentence -> speech: ``speaker(text=...)`` gives ``{"wav": Audio}``; options are those of ``Text2Speech``."""

    def __init__(self, **options) -> None:
        self.text2speech = text2speech(**options)
        self.sample_rate = self.text2speech.fs  # ESPnet3 checks its outputs by it

    def __call__(self, text: str) -> dict[str, Audio]:
        return {"wav": Audio(self.text2speech(text)["wav"].cpu().numpy(), self.sample_rate)}


def main(argv: Sequence[str] | None = None) -> None:
    """``--stages infer --inference_config FILE``: a recipe's configuration over the defaults."""
    launch(BaseSystem, conf_package=__name__, argv=argv)
