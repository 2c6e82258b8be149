"""The models that come with the package."""

import sys
from pathlib import Path

# The first is the default, for any voice; of two that take the same mel, the first is the one for it.
NAMES = ("melglow_universal", "melglow_ljspeech", "melglow_universal_24k", "lvcnet_ljspeech")


def pretrained_models() -> list[Path]:
    """Their folders: in ``pretrained/`` of a checkout, or in ``share/melglow`` of an installation."""
    # Of four folders above the package one has share/: with --target the first, with --user or --prefix the last.
    above = [*Path(__file__).parents[2:6], Path(sys.prefix)]
    for folder in (above[0] / "pretrained", *(place / "share" / "melglow" for place in above)):
        if found := [folder / name for name in NAMES if (folder / name).is_dir()]:
            return found
    return []


def of_name(name: str) -> Path | None:
    """The released model that is called as from the root of a checkout, or without its folder; None: none is."""
    return next((model for model in pretrained_models() if name in (model.name, f"pretrained/{model.name}")), None)


def pretrained_model(convention=None) -> Path:
    """The default one, or that whose mel is nearest to ``convention``; ValueError: none is here."""
    if not (models := pretrained_models()):
        raise ValueError("no pretrained model here: name a model folder")
    return models[0] if convention is None else min(models, key=lambda model: _distance(convention, model))


def check_fits(convention, vocoder_convention, source: str) -> None:
    """Refuse a mel that a vocoder cannot take.

    Args:
        convention: of the mel that ``source`` gives, an acoustic model.
        vocoder_convention: of the vocoder's own mel.

    Raises:
        ValueError: no exact conversion leads from one mel to the other. It names the fields with both values, and the
            pretrained model that takes this mel, or can be made to take it.
    """
    if differences := convention.differences(vocoder_convention):
        raise ValueError(
            f"{source}'s mel does not fit this vocoder ({source} -> vocoder): {'; '.join(differences)}"
            + _that_fits(convention)
        )


def _that_fits(convention) -> str:
    from melglow_plugin.mel.convention import MelConvention

    for model in pretrained_models():
        if not _distance(convention, model):
            return f". {model.name} takes it: {model}"
    for model in pretrained_models()[:1]:
        if not convention.incompatible_fields(MelConvention.from_file(model)):
            return f". One that takes it: melglow convert {model} --convention YOUR_CONFIG -o DIR"
    return ""


def _distance(convention, model: Path) -> int:
    from melglow_plugin.mel.convention import MelConvention

    return len(convention.differences(MelConvention.from_file(model)))
