"""The result of the mel doctor, and its advice for a vocoder."""

from dataclasses import dataclass, field

from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.mel.doctor.statistics import floor

# Squared distance from speech from which on no known convention explains a mel (right ones: docs/mel.md).
UNKNOWN_THRESHOLD = 75.0


@dataclass(frozen=True)
class Diagnosis:
    """The convention that a mel seems to follow.

    ``name`` is that of the likeliest convention, ``probability`` its share among those known; ``convention`` is None
    where it cannot be known (a mel normalised by mean and variance that are not given). ``offset``, in samples, says
    how much later the frames are than the convention's, ``error`` is the distance in nats from the recording's own
    mel (both only with a recording); ``distance`` is the squared distance from speech in that convention.
    """

    name: str
    units: str
    frames_first: bool
    frames: int
    bins: int
    convention: MelConvention | None
    code: str
    probability: float
    others: tuple[tuple[str, float], ...]
    distance: float
    minimum: float
    maximum: float
    also: str = ""
    offset: int | None = None
    error: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def known(self) -> bool:
        """False where the mel resembles none of the known conventions."""
        return self.distance <= UNKNOWN_THRESHOLD if self.error is None else self.error < 1.0

    def text(self) -> str:
        """The findings in plain words, one a line."""
        layout = "frames first (F, M): transpose it" if self.frames_first else "bins first (M, F)"
        lines = [
            f"layout      {self.frames} frames of {self.bins} bins, {layout}",
            f"values      {self.minimum:.2f} to {self.maximum:.2f}: {self.units if self.known else 'not clear'}",
        ]
        sure = "certainly" if self.probability > 0.99 else "probably" if self.probability > 0.8 else "perhaps"
        head = (
            f"{sure} {self.name} ({self.probability:.0%})" if self.known else f"none that is known; nearest {self.name}"
        )
        lines.append(f"convention  {head}" + (f"; the same numbers: {self.also}" if self.also else ""))
        if rest := [f"{name} {p:.0%}" for name, p in self.others[:3] if p >= 0.01]:
            lines.append(f"or else     {', '.join(rest)}")
        if self.known and self.probability <= 0.8 and self.offset is None:
            lines.append("not sure    with the recording it is certain: --wav")
        if c := self.convention:
            lines.append(
                f"filterbank  {c.fmin:g} to {c.fmax:g} Hz, {c.mel_scale}, norm {c.mel_norm}, "
                f"{'magnitude' if c.power == 1 else 'power'}; floor {floor(c):.2f} (assumed rate {c.sample_rate} Hz)"
            )
        if self.offset is not None:
            where = "as the convention has them" if self.offset == 0 else f"{self.offset} samples later than it"
            lines.append(f"frames      {where}; {self.error:.3f} nats from the recording's own mel")
        return "\n".join([*lines, *(f"note        {note}" for note in self.notes)])

    def advice(self, target: MelConvention) -> tuple[bool, str]:
        """Whether a vocoder of convention ``target`` would accept this mel (as it is or converted), and how."""
        array = "mel.T" if self.frames_first else "mel"
        if not self.known:
            return False, "refuse it: the numbers fit no known convention; look at how it was made"
        if self.convention is None:
            return False, (
                "refuse it as it is: undo the normalisation first, mel * std + mean with the acoustic model's "
                "statistics (ESPnet: take feat_gen_denorm; Coqui: stats_path)"
            )
        if self.offset:
            return False, f"refuse it: its frames are {self.offset} samples too late, which no conversion changes"
        source = self.convention
        if source == target:
            return True, f"fits as it is: vocoder(torch.from_numpy({array}))"
        call = f"{self.code}.convert(torch.from_numpy({array}), vocoder.convention"
        if not (differences := source.differences(target)):
            return True, f"fits after an exact conversion: {call})"
        if not source.incompatible_fields(target):
            return False, (
                f"no exact conversion ({'; '.join(differences)}). Extract it again, adapt the vocoder, without "
                f"training: vocoder.adapted({self.code}), or accept the error of an approximation "
                f"({source.approximation(target)}): {call}, approximate=True)"
            )
        return False, f"cannot be converted, extract it again: {'; '.join(differences)}"
