"""Each score of a generated wav against its recording, and the alignment that must come first.

Arrays in, floats out, from the packages that define the scores. NaN means that a pair has no such score (no voiced
frame, silence, too few frames).
"""

import contextlib
import io
import math
import warnings
from functools import lru_cache

import numpy as np
import torch

from melglow_plugin.evaluation import harmonics
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.loss import MultiResolutionSTFT

PCM16 = 32768.0  # ESPnet's scripts analyse 16-bit numbers
HIGH_BAND = 7600  # Hz, where the mels of ESPnet's LJSpeech recipe end
MIN_SAMPLES = 2048  # the longest window of the STFT distance
# Order and all-pass constant of the mel-cepstrum, and its frames, as in ESPnet's evaluate_mcd.py.
MCEP = {16_000: (23, 0.42), 22_050: (34, 0.45), 24_000: (34, 0.46), 44_100: (39, 0.53), 48_000: (39, 0.55)}
WINDOW, HOP = 1024, 256  # samples


# Alignment


def find_lag(reference: np.ndarray, generated: np.ndarray, sample_rate: int, max_lag: float = 0.1) -> int:
    """Samples by which ``generated`` is late, from the envelopes of mel bands (its phases need not be the reference's).

    Args:
        reference: recording, (T,).
        generated: the same speech, of about that length.
        sample_rate: Hz.
        max_lag: seconds searched on either side.

    Raises:
        ValueError: not one channel, values that are not finite, or fewer than ``MIN_SAMPLES`` samples.
    """
    _check(reference, generated)
    hop = 16  # samples; the maximum is interpolated between hops
    late, early = (_envelopes(wav, sample_rate, hop) for wav in (generated, reference))
    size = 2 ** math.ceil(math.log2(late.shape[1] + early.shape[1]))
    spectrum = (np.fft.rfft(late, size) * np.fft.rfft(early, size).conj()).sum(0)
    reach = min(math.ceil(max_lag * sample_rate / hop), size // 2 - 2)
    correlation = np.fft.irfft(spectrum, size)[np.arange(-reach - 1, reach + 2)]
    best = 1 + int(correlation[1:-1].argmax())
    before, peak, after = correlation[best - 1 : best + 2]
    bend = before - 2 * peak + after
    offset = float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0
    return round((best - 1 - reach + offset) * hop) if peak > 0 else 0


def _check(reference: np.ndarray, generated: np.ndarray) -> None:
    for name, wav in (("reference", reference), ("generated", generated)):
        if wav.ndim != 1 or not np.isfinite(wav).all():
            raise ValueError(f"{name} of shape {wav.shape}, wanted one channel of finite values")
        if len(wav) < MIN_SAMPLES:
            raise ValueError(f"{name} has {len(wav)} samples, scores need {MIN_SAMPLES}")


def _envelopes(wav: np.ndarray, sample_rate: int, hop: int) -> np.ndarray:
    """Square roots of mel amplitudes, (40, F), each band without its mean."""
    convention = MelConvention(sample_rate, 512, hop, n_mels=40, fmin=0, fmax=None, log_base=math.e)
    loudness = np.exp(0.5 * convention.extract(torch.from_numpy(wav)).numpy())
    return loudness - loudness.mean(1, keepdims=True)


def level_gain(reference: np.ndarray, generated: np.ndarray, sample_rate: int) -> float:
    """Factor that gives ``generated`` the RMS of ``reference`` in speech: within 40 dB of its loudest 20 ms.

    1 if either is silent there.
    """
    size = sample_rate // 50
    frames = min(len(reference), len(generated)) // size
    mine, other = (
        np.square(wav[: frames * size], dtype=np.float64).reshape(-1, size).mean(1) for wav in (reference, generated)
    )
    active = mine >= 1e-4 * mine.max(initial=0.0)
    wanted, found = mine[active].sum(), other[active].sum()
    return float(np.sqrt(wanted / found)) if wanted > 1e-10 and found > 1e-10 else 1.0


def align(
    reference: np.ndarray, generated: np.ndarray, sample_rate: int, lag: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Both cut to their common part, ``generated`` shifted by one lag and brought to the level of ``reference``.

    Args:
        reference, generated: (T,) of any two lengths.
        sample_rate: Hz.
        lag: samples by which ``generated`` is late; None: :func:`find_lag`.

    Raises:
        ValueError: as :func:`find_lag`; the common part is what must be long enough.
    """
    _check(reference, generated)
    lag = find_lag(reference, generated, sample_rate) if lag is None else lag
    reference, generated = reference[max(0, -lag) :], generated[max(0, lag) :]
    samples = min(len(reference), len(generated))
    reference, generated = reference[:samples], generated[:samples]
    _check(reference, generated)
    return reference, generated * level_gain(reference, generated, sample_rate)


# One score each, of an aligned pair (T,) at sample_rate Hz


def mcd_dtw(reference: np.ndarray, generated: np.ndarray, sample_rate: int) -> float:
    """Mel-cepstral distortion in dB along the warping path, the 0th coefficient included, as ESPnet computes it."""
    import pysptk

    order, alpha = _mcep_params(sample_rate)
    window = pysptk.hamming(WINDOW)

    def analyse(wav: np.ndarray) -> np.ndarray:
        frames = np.lib.stride_tricks.sliding_window_view(wav * PCM16, WINDOW)[::HOP] * window
        return np.stack([pysptk.mcep(frame, order, alpha, eps=1e-6, etype=1) for frame in frames])

    a, b = analyse(reference), analyse(generated)
    here, there = _warp(a, b)
    return float(10 / math.log(10) * np.sqrt(2 * np.square(a[here] - b[there]).sum(1)).mean())


def log_f0_rmse(reference: np.ndarray, generated: np.ndarray, sample_rate: int) -> float:
    """RMS difference of ln F0 along the warping path, where both are voiced, as ESPnet computes it; NaN if nowhere."""
    a, b = _warped_f0(reference, generated, sample_rate)
    voiced = (a > 0) & (b > 0)
    return float(np.sqrt(np.square(np.log(a[voiced]) - np.log(b[voiced])).mean())) if voiced.any() else math.nan


def vuv_error(reference: np.ndarray, generated: np.ndarray, sample_rate: int) -> float:
    """Percentage of frames of the warping path that are voiced in one signal alone."""
    a, b = _warped_f0(reference, generated, sample_rate)
    return float(100 * np.mean((a > 0) != (b > 0)))


def hnr_db(reference: np.ndarray, generated: np.ndarray, sample_rate: int, band: str) -> float:
    """Harmonics-to-noise ratio of a band (:data:`harmonics.BANDS`) less the recording's, in its voiced frames, in dB.

    Below 0 the copy is noisier than the recording, above 0 it buzzes.
    """
    f0 = _world(reference.tobytes(), reference.dtype.str, sample_rate)[0]
    ours, wanted = (_hnr(wav.tobytes(), wav.dtype.str, f0.tobytes(), sample_rate) for wav in (generated, reference))
    return float(ours[band] - wanted[band])


def estoi(reference: np.ndarray, generated: np.ndarray, sample_rate: int) -> float:
    """Extended short-time objective intelligibility; NaN where less than 0.4 s of the reference is speech."""
    from pystoi import stoi

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi warns, and returns 1e-5, where it cannot score
        try:
            return float(stoi(reference, generated, sample_rate, extended=True))
        except RuntimeWarning:
            return math.nan


def mel_l1(reference: np.ndarray, generated: np.ndarray, sample_rate: int) -> float:
    """Mean absolute difference of natural log-mels of 80 bands up to half the sample rate."""
    convention = MelConvention(sample_rate, fmin=0, fmax=None, log_base=math.e, floor=1e-5)
    a, b = (convention.extract(torch.from_numpy(wav).float()) for wav in (reference, generated))
    return float((a - b).abs().mean())


def mr_stft(reference: np.ndarray, generated: np.ndarray, sample_rate: int) -> float:
    """:class:`melglow_plugin.model.loss.MultiResolutionSTFT`; NaN where the reference is silence."""
    a, b = (torch.from_numpy(wav).float()[None] for wav in (reference, generated))
    return float(MultiResolutionSTFT()(b, a)) if a.any() else math.nan


def high_band_db(reference: np.ndarray, generated: np.ndarray, sample_rate: int) -> float:
    """Level of ``generated`` above 7.6 kHz minus that of ``reference`` in dB; NaN if one has nothing there."""
    from scipy.signal import welch

    def level(wav: np.ndarray) -> float:
        hz, power = welch(wav, sample_rate, nperseg=1024)
        return power[hz >= HIGH_BAND].sum()

    a, b = level(reference), level(generated)
    return float(10 * np.log10(b / a)) if min(a, b) > 0 else math.nan


def line_noise_db(reference: np.ndarray, generated: np.ndarray, sample_rate: int, squeeze_factor: int = 8) -> float:
    """Level of multiples of ``sample_rate / squeeze_factor`` above the neighbouring frequencies, in pauses, in dB.

    A flow that treats its squeezed channels unequally makes tones there. Pauses are the quietest tenth of the
    reference's frames; a line is the three bins around a multiple, beside the median of 80 to 350 Hz on either side (at
    22.05 kHz).
    The mean over the multiples below half the sample rate; about 0 without lines, NaN for silence.
    """
    window = 1024 - 1024 % squeeze_factor  # so that lines fall on bins
    frames = [
        np.lib.stride_tricks.sliding_window_view(w, window)[:: window // 4] * np.hanning(window + 1)[:-1]
        for w in (reference, generated)
    ]
    quiet = np.argsort(np.square(frames[0]).sum(1), kind="stable")[: max(5, len(frames[0]) // 10)]
    power = np.square(np.abs(np.fft.rfft(frames[1][quiet]))).mean(0)
    lines = np.arange(1, (squeeze_factor + 1) // 2) * (window // squeeze_factor)
    near, around = np.arange(-1, 2), np.r_[-16:-3, 4:17]
    line, floor = power[lines[:, None] + near].mean(1), np.median(power[lines[:, None] + around], 1)
    return float(10 * np.log10(line / floor).mean()) if floor.min() > 0 and line.min() > 0 else math.nan


def distill_mos(reference: np.ndarray, generated: np.ndarray, sample_rate: int) -> float:
    """Distill-MOS of ``generated`` alone, 1 to 5 (Stahl and Gamper, 2025)."""
    with torch.inference_mode():
        return float(_distill_mos_model()(torch.from_numpy(_at_16k(generated, sample_rate)).float()[None]))


def dnsmos(reference: np.ndarray, generated: np.ndarray, sample_rate: int) -> float:
    """Overall DNSMOS (P.835) of ``generated`` alone, 1 to 5."""
    from speechmos import dnsmos as model

    return float(model.run(np.clip(_at_16k(generated, sample_rate), -1, 1), sr=16_000)["ovrl_mos"])


def pesq(reference: np.ndarray, generated: np.ndarray, sample_rate: int) -> float:
    """Wideband PESQ, up to 4.64; NaN where it finds no speech. Needs the optional package ``pesq``."""
    from pesq import PesqError
    from pesq import pesq as score

    a, b = (_at_16k(wav, sample_rate) for wav in (reference, generated))
    value = score(16_000, a, b, "wb", on_error=PesqError.RETURN_VALUES) if b.any() else -1
    return float(value) if value > 0 else math.nan


def _mcep_params(sample_rate: int) -> tuple[int, float]:
    import pysptk

    nearest = min(MCEP, key=lambda rate: abs(rate - sample_rate))
    return MCEP.get(sample_rate) or (MCEP[nearest][0], float(pysptk.util.mcepalpha(sample_rate)))


def _warp(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    from fastdtw import fastdtw

    return np.array(fastdtw(a, b, dist=2)[1]).T  # dist=2: the Euclidean distance in C++


def _warped_f0(reference: np.ndarray, generated: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    (f0, mcep), (other_f0, other_mcep) = (_world(w.tobytes(), w.dtype.str, sample_rate) for w in (reference, generated))
    here, there = _warp(mcep, other_mcep)
    return f0[here], other_f0[there]


@lru_cache(maxsize=2)  # two scores of one pair share it
def _world(wav: bytes, dtype: str, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    import pysptk
    import pyworld

    x = np.frombuffer(wav, dtype).astype(np.float64) * PCM16
    f0, times = pyworld.harvest(x, sample_rate, f0_floor=40, f0_ceil=800, frame_period=1000 * HOP / sample_rate)
    envelope = pyworld.cheaptrick(x, f0, times, sample_rate, fft_size=WINDOW)
    return f0, pysptk.sp2mc(envelope, *_mcep_params(sample_rate))


@lru_cache(maxsize=2)  # the bands of one pair share it
def _hnr(wav: bytes, dtype: str, f0: bytes, sample_rate: int) -> dict[str, float]:
    return harmonics.hnr(np.frombuffer(wav, dtype), np.frombuffer(f0), HOP, sample_rate)


def _at_16k(wav: np.ndarray, sample_rate: int) -> np.ndarray:
    import librosa

    return librosa.resample(wav.astype(np.float32), orig_sr=sample_rate, target_sr=16_000)


@lru_cache(maxsize=1)
def _distill_mos_model() -> torch.nn.Module:
    from distillmos import ConvTransformerSQAModel

    with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights are
        return ConvTransformerSQAModel().eval()
