"""A picture of a mel beside its reference."""

import warnings
from pathlib import Path

import numpy as np
from torch import Tensor

from melglow_plugin.files import atomic_write, make_folder
from melglow_plugin.mel.doctor.diagnosis import Diagnosis
from melglow_plugin.mel.doctor.doctor import checked
from melglow_plugin.mel.doctor.statistics import expected_spectrum


def plot(values: np.ndarray, diagnosis: Diagnosis, path: str | Path, wav: Tensor | None = None) -> None:
    """Draw the mel beside its reference: the recording's own mel, or mean speech under the convention found."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mel = checked(values)
    mel = mel.T if diagnosis.frames_first else mel
    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    pictures, means = figure.subplots(1, 2, width_ratios=(3, 1))
    image = pictures.imshow(mel, origin="lower", aspect="auto", cmap="magma")
    pictures.set(title=f"{diagnosis.name}, {diagnosis.probability:.0%}", xlabel="frame", ylabel="mel bin")
    figure.colorbar(image, ax=pictures, label="value in the file")
    means.plot(mel.mean(1), np.arange(len(mel)), label="this mel")
    if c := diagnosis.convention:
        speech = expected_spectrum(c) * c.power / c.nats_per_unit + c.shift
        means.plot(speech, np.arange(len(mel)), "--", label=f"speech under {diagnosis.name}")
        if wav is not None:
            means.plot(c.extract(wav.double()).mean(1), np.arange(len(mel)), ":", label="the recording's own")
    means.set(title="mean of each bin", xlabel="value", ylabel="mel bin")
    means.legend()
    make_folder(Path(path).parent)
    with warnings.catch_warnings(), atomic_write(path) as file:
        warnings.simplefilter("ignore")
        figure.savefig(file, dpi=90, format=Path(path).suffix.lstrip(".") or "png")
