"""Checkpoint: a model with all that is known of it. Every format takes one or gives one."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from melglow_plugin.checks import key_differences
from melglow_plugin.inference.resynthesis import check_refine
from melglow_plugin.inference.sharpening import check_strength
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.model.melglow import architecture, build

BANDS_TOLERANCE = 0.01  # of the largest value: float16 rounds to 0.0005, 7600 Hz in the place of 8000 differs by 0.1
_WRITTEN = {"architecture", "model", "convention", "training"}  # by every version


@dataclass
class Checkpoint:
    """A model, what its mel means, and how it was trained.

    Args:
        flow: MelGlow, WaveGlow or LVCNetGenerator.
        convention: of its mel.
        training: facts about the training, for ``melglow info`` and the model card: plain values.
        refine: rounds of refinement after the flow, or "resynthesis", where a call names none.
        sharpen: strength of sharpening before it, likewise.

    Raises:
        ValueError: the model and its mel disagree on what both state, or ``refine`` or ``sharpen`` is out of range.
    """

    flow: MelModel
    convention: MelConvention
    training: dict = field(default_factory=dict)
    refine: int | str = 0
    sharpen: float = 1.0

    def __post_init__(self) -> None:
        self.refine, self.sharpen = check_refine(self.refine, self.convention), check_strength(self.sharpen)
        for name in ("n_mels", "hop_length"):
            model, mel = getattr(self.flow, name), getattr(self.convention, name)
            if model != mel:
                raise ValueError(f"{name} {model} in model, {mel} in convention")

    def facts(self) -> dict:
        """Everything but the weights, as plain values for JSON and YAML."""
        return {
            "architecture": architecture(self.flow),
            "model": self.flow.hyperparameters,
            "convention": self.convention.to_dict(),
            "training": self.training,
            "refine": self.refine,
            "sharpen": self.sharpen,
        }

    @classmethod
    def from_facts(cls, facts: Mapping) -> "Checkpoint":
        """The inverse of :meth:`facts`, with fresh weights; ``refine`` and ``sharpen`` may be missing, as in old files.

        Raises:
            ValueError, TypeError or KeyError: a value is not possible, or missing.
        """
        if missing := key_differences(set(facts) & _WRITTEN, _WRITTEN):
            raise ValueError(missing)
        flow = build(facts["architecture"], facts["model"])
        convention = MelConvention.from_dict(facts["convention"], whole=True)
        training, refine = dict(facts.get("training") or {}), facts.get("refine", 0)
        return cls(flow.eval(), convention, training, refine, facts.get("sharpen", 1.0))

    def check_bands(self, model_file: str | Path, config_file: str | Path) -> None:
        """ValueError where the weights of one file are those of another mel than that of the configuration.

        Linear prediction keeps the mel's bands with the weights; all are 0 in a model that was never told.
        """
        wanted = copy.deepcopy(self.flow.lpc)
        wanted.set_bands(*self.convention.band_powers())
        for name, value in self.flow.lpc.named_buffers():
            right = wanted.get_buffer(name)
            difference = float((value - right).abs().max() / right.abs().max())
            if value.any() and difference > BANDS_TOLERANCE:
                raise ValueError(
                    f"{model_file} was trained on another mel than that of {config_file}: lpc.{name} differs by "
                    f"{difference:.1%}, at most {BANDS_TOLERANCE:.0%} is rounding"
                )
