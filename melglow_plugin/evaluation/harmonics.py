"""Harmonics-to-noise ratio of voiced speech in bands: how much of each band repeats from one period to the next."""

import numpy as np

BANDS = {"low": (60, 1500), "mid": (1500, 4000), "high": (4000, 7600)}  # Hz
FINER = 8  # times the sample rate, so that a lag is exact enough for the highest band
SEARCH = 0.03  # of a period, on either side of the pitch that is given
FOUND_OVER = 3  # periods that find a frame's lag; one is compared, since over more a gliding pitch counts as noise
LIMITS = 0.05, 0.999  # of the mean correlation: what lies beyond, -13 and 30 dB, is the error of a mean over frames


def hnr(wav: np.ndarray, f0: np.ndarray, hop: int, sample_rate: int) -> dict[str, float]:
    """Harmonics-to-noise ratio in dB of each band of ``BANDS`` over the voiced frames.

    With r the correlation of a band with itself one period later, it is 10 log10(r / (1 - r)), the power of what
    repeats over that of what does not (Boersma, "Accurate short-term analysis of the fundamental frequency and the
    harmonics-to-noise ratio of a sampled sound", 1993), from the mean of r over frames. The period of a frame is where
    the lowest band repeats best near ``f0``. A gliding pitch lowers the ratio of the upper bands: only differences
    between signals of one pitch say something about their noise.

    Args:
        wav: (T,).
        f0: of every frame in Hz, 0 where unvoiced; frame i lies at sample ``i * hop``.

    Returns:
        band -> -13 to 30 dB; NaN where no frame is voiced, or the band reaches beyond half the sample rate.
    """
    spectrum = np.fft.rfft(wav)
    hz = np.arange(len(spectrum)) * sample_rate / len(wav)
    inside = {name: band for name, band in BANDS.items() if band[1] <= sample_rate / 2}
    signals = {
        name: FINER * np.fft.irfft(spectrum * ((hz >= low) & (hz < high)), FINER * len(wav))
        for name, (low, high) in inside.items()
    }
    frames = [(FINER * i * hop, FINER * sample_rate / f0[i]) for i in np.flatnonzero(f0)]
    found = [_correlations(signals, *frame) for frame in frames if _reaches(*frame, FINER * len(wav))]
    means = {name: float(np.mean([r[name] for r in found])) if found else np.nan for name in signals}
    limited = {name: float(np.clip(r, *LIMITS)) for name, r in means.items()}
    return {name: 10 * np.log10(limited[name] / (1 - limited[name])) if name in limited else np.nan for name in BANDS}


def _reaches(centre: int, period: float, length: int) -> bool:
    """Whether the signal reaches as far as a frame's correlation looks."""
    span = (FOUND_OVER + 1 + SEARCH) * period / 2 + 2
    return span <= centre <= length - span


def _correlations(signals: dict[str, np.ndarray], centre: int, period: float) -> dict[str, float]:
    """Band -> correlation with itself one period later, around ``centre``; the first band finds the period."""
    first, *_ = signals.values()
    size, start = round(FOUND_OVER * period), round(centre - (FOUND_OVER + 1) * period / 2)
    lags = range(round((1 - SEARCH) * period), round((1 + SEARCH) * period) + 1)
    there = np.lib.stride_tricks.sliding_window_view(first[start + lags[0] : start + lags[-1] + size], size)
    energies = np.einsum("ij,ij->i", there, there)
    lag = lags[int(np.argmax(there @ first[start : start + size] / np.sqrt(energies + 1e-20)))]
    start, size = round(centre - period), round(period)
    pairs = ((name, wav[start : start + size], wav[start + lag : start + lag + size]) for name, wav in signals.items())
    return {name: _correlation(here, later) for name, here, later in pairs}


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    power = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / power if power > 1e-20 else 0.0
