"""Resynthesis: audio anew from the magnitudes of the flow's output, moved to the mel, with phases from their gradients.

Refinement by rounds keeps the phases beside magnitudes that it moved, and the two then contradict each other. The
magnitudes of a redundant STFT determine its phases, up to a constant.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from melglow_plugin.inference.frames import framed, summed
from melglow_plugin.inference.full_scale import FullScale
from melglow_plugin.inference.magnitudes import Magnitudes
from melglow_plugin.inference.refine import check_rounds, constants
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.postfilter import Postfilter

RESYNTHESIS = "resynthesis"
# The Gaussian window nearest to one of L samples, its gamma / L**2: Průša, Balazs and Søndergaard, "A noniterative
# method for reconstruction of phase from STFT magnitude", IEEE/ACM TASLP 25(5), 2017.
GAUSSIAN = {"hann": 0.25645, "hamming": 0.29794}
PULL = 0.1  # of the way to the phases of the flow's output that a frame goes: what happened long ago is forgotten
BLOCK_FRAMES = 256  # of the mel, computed at once
FRAMES_A_TURN = 16  # whole turns are taken off every so many, before rounding would be felt


def check_refine(refine: object, convention: MelConvention) -> int | str:
    """Rounds of refinement, or :data:`RESYNTHESIS`; ValueError where it is neither, or not possible with this mel."""
    kind = check_kind(refine)
    if kind == RESYNTHESIS:
        check_window(convention)
    return kind


def check_kind(refine: object) -> int | str:
    """Rounds of refinement, or :data:`RESYNTHESIS`; ValueError where it is neither."""
    return RESYNTHESIS if refine == RESYNTHESIS else check_rounds(refine)


def default_refine(convention: MelConvention) -> int | str:
    """Of a model that comes from a trainer and says nothing of it: resynthesis, or a round where it is not possible."""
    return RESYNTHESIS if convention.window in GAUSSIAN else 1


def check_window(convention: MelConvention) -> None:
    """ValueError where phases cannot be integrated."""
    if convention.window not in GAUSSIAN:
        wanted = " or ".join(GAUSSIAN)
        raise ValueError(f"refine {RESYNTHESIS!r} needs a window {wanted}, the mel's is {convention.window}")


def frames_per_hop(convention: MelConvention) -> int:
    """Frames of the STFT for each of the mel's."""
    return 2 if convention.hop_length % 2 == 0 else 1


def resynthesize(
    wav: Tensor,
    mel: Tensor,
    convention: MelConvention,
    lengths: Tensor | None = None,
    postfilter: Postfilter | None = None,
) -> Tensor:
    """Audio anew from the magnitudes of a wav and from its ``mel``.

    With the STFT ``S`` of the wav at half the mel's hop and the gain ``g`` of a round of refinement, of 6 steps and
    interpolated between the mel's frames, the magnitudes are ``g * abs(S)``, or what the ``postfilter`` makes of them,
    moved to the mel once more (:class:`Magnitudes`). Their phases are integrated from their
    gradients (Průša, Balazs and Søndergaard 2017), frame by frame, similar to Průša and Søndergaard,
    "Real-time spectrogram inversion using phase gradient heap integration", 2016: a bin continues the phase that it had
    a frame ago, unless a neighbour in frequency is louder than both; then it takes the phase of the peak to which the
    louder neighbours lead. Frames are added up as in refinement.

    Equal input gives equal output. Where two neighbours are nearly as loud, rounding errors decide between them, so
    that audio which differs by 1e-6 gives phases that differ more in places.

    Args:
        wav: (B, F * hop_length).
        mel: (B, M, F) in the numbers of ``convention``.
        convention: what the mel means.
        lengths: frames of each example of a padded batch, (B,); None: nothing is padding.
        postfilter: the model's; None: it has none.

    Returns:
        (B, F * hop_length) in [-1, 1] (:class:`FullScale`), zeros behind each length.

    Raises:
        ValueError: the convention's window is none of ``GAUSSIAN``.
    """
    if lengths is not None:  # each alone, so that nothing behind its end can change it
        ends = [int(own) for own in lengths]
        alone = (
            resynthesize(one[None, : own * convention.hop_length], its[None, :, :own], convention, None, postfilter)
            for one, its, own in zip(wav, mel, ends, strict=True)
        )
        return torch.cat([F.pad(piece, (0, wav.shape[1] - piece.shape[1])) for piece in alone])
    frames, hop, run = mel.shape[-1], convention.hop_length, Resynthesis(convention, postfilter)
    pieces = []
    for start in range(0, frames, BLOCK_FRAMES):
        stop = min(start + BLOCK_FRAMES, frames)
        first, last = max(0, start - run.margin), min(frames, stop + run.margin)
        pieces.append(run(wav[:, first * hop : last * hop], mel[..., first:last], first, stop, ends=stop == frames))
    return torch.cat(pieces, 1)


class Resynthesis:
    """:func:`resynthesize` in blocks of frames, one behind the other: a window of audio and mel in, audio out.

    A window has ``margin`` frames before and behind its block, or fewer where the audio begins or ends.
    """

    def __init__(self, convention: MelConvention, postfilter: Postfilter | None = None) -> None:
        check_window(convention)
        self.convention = convention
        self.times = frames_per_hop(convention)
        self.hop = convention.hop_length // self.times
        self.magnitudes = Magnitudes(convention, postfilter, self.times)
        reach = max(convention.context, convention.n_fft - convention.context)  # of a frame, to its farther end
        self.margin = 1 + self.magnitudes.reach + -(-reach // convention.hop_length)
        self.delay = self.margin + 1 + -(-convention.context // convention.hop_length)  # in frames; FullScale holds one
        self.done = 0  # frames of the mel
        self._phase: Tensor | None = None  # (B, K), of the last frame
        self._full_scale = FullScale(convention.hop_length)
        self._sums: Tensor | None = None  # (B + 1, T), of frames, of squared windows, from the next frame's start on

    def __call__(self, wav: Tensor, mel: Tensor, first: int, stop: int, ends: bool) -> Tensor:
        """The audio (B, T) in [-1, 1] that becomes complete by the frames up to ``stop``, at the end all that is left.

        Args:
            wav: (B, F * hop_length), of a window.
            mel: (B, M, F).
            first: the frame of the mel at which the window begins.
            stop: the frame behind the block.
            ends: the block is the last one.
        """
        with torch.autocast(wav.device.type, enabled=False):
            window, *_ = constants(self.convention, wav.dtype, wav.device)
            start, self.done = self.done, stop
            frames = torch.fft.irfft(self._spectrum(wav, mel, start - first, stop - first), self.convention.n_fft)
            weight = (window * window).expand(1, *frames.shape[1:])
            sums = torch.cat([summed(frames * window, self.hop), summed(weight, self.hop)])
            if self._sums is not None:
                sums[..., : self._sums.shape[-1]] += self._sums
            complete = sums.shape[-1] if ends else (stop - start) * self.convention.hop_length
            self._sums = sums[..., complete:]
            return self._full_scale(self._audio(sums[..., :complete], wav, start, first, ends), ends)

    def _audio(self, sums: Tensor, wav: Tensor, start: int, first: int, ends: bool) -> Tensor:
        """The samples of ``sums`` that lie in the audio; where no window reaches, those of ``wav``."""
        hop, context = self.convention.hop_length, self.convention.context
        begin = start * hop - context  # of the sums, in the audio
        sums = sums[..., max(0, -begin) :]
        begin = max(0, begin)
        own = wav[:, begin - first * hop :]
        missing = own.shape[1] - sums.shape[-1]
        sums = F.pad(sums, (0, missing)) if ends and missing > 0 else sums[..., : own.shape[1]]
        total, weight = sums[:-1], sums[-1]
        return torch.where(weight > 1e-3, total / weight.clamp(min=1e-3), own[:, : total.shape[1]])

    def _spectrum(self, wav: Tensor, mel: Tensor, start: int, stop: int) -> Tensor:
        """(B, times * (stop - start), K) of the window's frames ``start`` to ``stop``."""
        convention, times = self.convention, self.times
        window, *_ = constants(convention, wav.dtype, wav.device)
        frames = framed(wav, convention, times * mel.shape[-1], None, self.hop)
        around = self.magnitudes.reach + 1
        low, high = max(0, start - around), min(mel.shape[-1], stop + around)
        spectrum = torch.fft.rfft(frames[:, times * low : times * high] * window)
        log_magnitude = self.magnitudes(spectrum, mel[..., low:high])
        log_magnitude = _between(log_magnitude, times * (start - low) - 1, times * (stop - low) + 1)
        bins = torch.arange(spectrum.shape[-1], dtype=wav.dtype, device=wav.device)
        delay = _angle(bins * (_window_centre(convention) / convention.n_fft))
        observed = spectrum[:, times * (start - low) : times * (stop - low)].angle() + delay
        if self._phase is None:
            self._phase = observed[:, 0] - _angle(bins * (self.hop / convention.n_fft))
        phases = integrated_phases(log_magnitude, observed, self._phase, convention, self.hop)
        self._phase = phases[:, -1]
        magnitude, angle = log_magnitude[:, 1:-1].exp(), phases - delay
        return torch.complex(magnitude * angle.cos(), magnitude * angle.sin())  # a third of the time of torch.polar


def resynthesized(
    columns: Iterable[Tensor], convention: MelConvention, postfilter: Postfilter | None = None
) -> Iterator[Tensor]:
    """:func:`resynthesize` of audio that arrives in pieces, each a mel above its audio, (M + hop_length, F_i).

    Yields:
        Such pieces with the new audio; in all as many columns.
    """
    run, hop = Resynthesis(convention, postfilter), convention.hop_length
    window, first, done = torch.empty(0), 0, 0

    def until(stop: int, ends: bool) -> Tensor:
        nonlocal done
        audio = run(window[-hop:].mT.flatten()[None], window[None, :-hop], first, stop, ends).view(-1, hop).mT
        start, done = done, done + audio.shape[1]
        return torch.cat([window[:-hop, start - first : done - first], audio])

    for piece in columns:
        window = torch.cat([window, piece], 1) if window.numel() else piece
        ready = first + window.shape[1] - run.margin
        if ready > run.done:
            found = until(ready, ends=False)
            if found.shape[1]:
                yield found
            keep_from = max(0, min(done, run.done - run.margin))
            window, first = window[:, keep_from - first :], keep_from
    if window.numel():
        yield until(first + window.shape[1], ends=True)


def integrated_phases(
    log_magnitude: Tensor, observed: Tensor, phase: Tensor, convention: MelConvention, hop: int
) -> Tensor:
    """Phases at the window's centre, in radians, by integration of their gradients.

    Args:
        log_magnitude: (B, 1 + N + 1, K), in nats: N frames, one before and one behind them.
        observed: (B, N, K), phases towards which those of the peaks are pulled.
        phase: (B, K), of the frame before.
        convention: of the STFT.
        hop: samples from frame to frame.

    Returns:
        (B, N, K).
    """
    gamma = GAUSSIAN[convention.window] * float(convention.win_length or convention.n_fft) ** 2
    ratio = hop * convention.n_fft / gamma
    before, here, behind = log_magnitude[:, :-2], log_magnitude[:, 1:-1], log_magnitude[:, 2:]
    sides = F.pad(log_magnitude[:, :-1], (1, 1), mode="replicate")
    beyond = ratio * (sides[..., 2:] - sides[..., :-2]) / 2  # what a frame advances beside the bin's middle
    bins = torch.arange(here.shape[-1], dtype=here.dtype, device=here.device)
    advance = (beyond[:, :-1] + beyond[:, 1:]) / 2 + _angle(bins * (hop / convention.n_fft))
    slope = (before - behind) / (2 * ratio)  # of the phase over bins
    along = F.pad(((slope[..., 1:] + slope[..., :-1]) / 2).cumsum(-1), (1, 0))
    peaks = _peaks(before, here)
    return _recursion(phase, advance, observed, peaks, along - along.gather(-1, peaks))


def _recursion(phase: Tensor, advance: Tensor, observed: Tensor, peaks: Tensor, offset: Tensor) -> Tensor:
    """Phases (B, N, K) frame by frame, in numpy on the CPU: a step is six operations on a few hundred numbers."""
    rows = torch.arange(len(peaks), device=peaks.device)[:, None, None] * peaks.shape[-1]
    last, steps, seen, taken, offsets = (
        np.ascontiguousarray(part.movedim(1, 0).flatten(1).cpu().numpy())
        for part in (phase[:, None], advance, observed, peaks + rows, offset)
    )
    last, phases = last[0], np.empty_like(steps)
    for n, new in enumerate(phases):
        turned = last + steps[n]
        turned += PULL * np.sin(seen[n] - turned)
        np.take(turned, taken[n], out=new, mode="clip")  # faster than the check that none lies outside
        new += offsets[n]
        if n % FRAMES_A_TURN == 0:
            np.remainder(new, 2 * np.pi, out=new)
        last = new
    return torch.from_numpy(phases).unflatten(1, phase.shape).movedim(0, 1).to(phase.device)


def _peaks(before: Tensor, here: Tensor) -> Tensor:
    """For each bin of ``here`` (B, N, K) the bin whose phase it takes: itself where it continues in time."""
    bins = torch.arange(here.shape[-1], device=here.device).expand_as(here)
    above = F.pad(here[..., 1:], (0, 1), value=-math.inf)
    below = F.pad(here[..., :-1], (1, 0), value=-math.inf)
    louder = torch.maximum(above, below)
    takes = (louder > here) & (louder > before)
    peaks = torch.where(takes, torch.where(above >= below, bins + 1, bins - 1), bins)
    while True:  # each time twice as far
        further = peaks.gather(-1, peaks)
        if torch.equal(further, peaks):
            return peaks
        peaks = further


def _between(frames: Tensor, start: int, stop: int) -> Tensor:
    """Frames ``start`` to ``stop`` of (B, N, K), the first and the last one repeated where they lie outside."""
    if start >= 0 and stop <= frames.shape[1]:
        return frames[:, start:stop]
    numbers = torch.arange(start, stop, device=frames.device).clamp(0, frames.shape[1] - 1)
    return frames[:, numbers]


def _window_centre(convention: MelConvention) -> float:
    """In samples from a frame's start."""
    length = convention.win_length or convention.n_fft
    return (convention.n_fft - length) // 2 + length / 2


def _angle(cycles: Tensor) -> Tensor:
    """Radians, without whole cycles."""
    return 2 * math.pi * (cycles - cycles.floor())
