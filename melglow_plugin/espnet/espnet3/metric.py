"""Scores of copies for ESPnet3's ``measure`` stage."""

from collections.abc import Sequence

from espnet3.components.metrics.base_metric import BaseMetric
from espnet3.contract import Field

from melglow_plugin.evaluation.evaluate import read_pair, score_pair, summarise


class CopyScores(BaseMetric):
    """Means over utterances of the scores in :data:`melglow_plugin.evaluation.evaluate.SCORES`.

    Args:
        names: keys of ``SCORES``.
    """

    inputs = (Field("ref", "audio"), Field("hyp", "audio"))

    def __init__(self, names: Sequence[str] = ("mel_l1", "mr_stft")) -> None:
        self.names = list(names)
        self.outputs = tuple(Field(name, "number") for name in self.names)
        super().__init__()
        self.add_state("rows", [], "cat")

    def update(self, *, ref: Sequence[str], hyp: Sequence[str]) -> None:
        for recording, copy in zip(ref, hyp, strict=True):
            self.rows.append(score_pair(*read_pair((recording, copy)), self.names))

    def compute(self) -> dict[str, float]:
        summary = summarise(self.rows)
        return {name: summary[name]["mean"] for name in self.names}
