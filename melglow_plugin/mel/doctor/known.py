"""The conventions that the doctor can recognise."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from melglow_plugin.mel.convention import MelConvention

TEMPERATURE = 4.0  # divides log scores: the statistics are less independent than the Gaussian assumes
RATES = range(4_000, 1_000_001)  # Hz; below, the spectrum of 40 ms has about as few values as a mel
UNPUBLISHED_PENALTY = 3.0  # nats subtracted for settings that no published recipe uses


@dataclass(frozen=True)
class Known:
    """A convention that the doctor can recognise: its numbers in words, and the Python that makes it."""

    name: str
    units: str
    make: Callable[[int, int], MelConvention]  # (Hz, bins)
    code: str  # with {rate} and {bins}
    also: str = ""  # who else uses these numbers
    rate: int = 22_050  # Hz, where nothing says otherwise
    bins: int = 80
    rare: float = 0.0  # nats subtracted: a setting that few use
    framed: bool = False  # differs from another entry in the place of its frames only: a recording must be given

    def convention(self, rate: int | None, bins: int) -> MelConvention:
        return self.make(rate or self.rate, bins)

    def python(self, rate: int | None, bins: int) -> str:
        return self.code.format(rate=rate or self.rate, bins=bins)


def _preset(name: str, units: str, rate: int = 22_050, bins: int = 80, also: str = "", framed: bool = False) -> Known:
    def make(hz: int, n_mels: int) -> MelConvention:
        return MelConvention.preset(name, hz, n_mels=n_mels, **_sizes(hz))

    code = f'MelConvention.preset("{name}", {{rate}}, n_mels={{bins}})'
    return Known(name, units, make, code, also, rate, bins, framed=framed)


def _sizes(hz: int) -> dict:
    """STFT sizes for a rate that has no customary ones: the power of two above 40 ms, a quarter of it as hop."""
    from melglow_plugin.mel.systems import SIZES

    n_fft = 2 ** math.ceil(math.log2(0.04 * hz))
    return {} if hz in SIZES else {"n_fft": n_fft, "hop_length": n_fft // 4}


def _coqui(name: str, units: str, rare: float = 0.0, **settings) -> Known:
    def make(hz: int, n_mels: int) -> MelConvention:
        base = MelConvention.preset("coqui", hz, **_sizes(hz))
        sizes = {"fft_size": base.n_fft, "win_length": base.n_fft, "hop_length": base.hop_length}
        return MelConvention.coqui({"sample_rate": hz, "num_mels": n_mels, **sizes, **settings})

    written = ", ".join(f'"{key}": {value}' for key, value in settings.items())
    code = f'MelConvention.coqui({{{{"sample_rate": {{rate}}, "num_mels": {{bins}}, {written}}}}})'
    return Known(name, units, make, code, rare=rare)


KNOWN = (
    _preset("espnet", "log10 of the amplitude", also="parallel_wavegan before its stats.h5"),
    Known(
        "espnet, ln", "natural logarithm of the amplitude",
        lambda hz, n: MelConvention.preset("espnet", hz, n_mels=n, log_base=math.e, **_sizes(hz)),
        'MelConvention.preset("espnet", {rate}, n_mels={bins}, log_base=2.718281828459045)', rare=UNPUBLISHED_PENALTY,
    ),
    Known(
        "espnet, 0 to 8000 Hz", "log10 of the amplitude",
        lambda hz, n: MelConvention.preset("espnet", hz, n_mels=n, fmin=0.0, fmax=min(8000.0, hz / 2), **_sizes(hz)),
        'MelConvention.preset("espnet", {rate}, n_mels={bins}, fmin=0.0, fmax=min(8000.0, {rate} / 2))',
        also="pretrained/melglow_universal",
    ),
    _preset("hifigan", "natural logarithm of the amplitude", also="BigVGAN, WaveGlow, Tacotron 2, Coqui's ln recipes"),
    _preset("waveglow", "natural logarithm of the amplitude", also="Tacotron 2, Coqui's ln recipes", framed=True),
    _preset("coqui", "dB scaled to -4 ... 4 and clipped"),
    _coqui("coqui, dB", "dB of the amplitude", signal_norm=False),
    _coqui("coqui, 0 to 1", "dB scaled to 0 ... 1 and clipped", UNPUBLISHED_PENALTY,
           symmetric_norm=False, max_norm=1.0),
    _preset("univnet", "natural logarithm of the amplitude", 24_000, 100, also="BigVGAN at 24 kHz"),
    _preset("vocos", "natural logarithm of the amplitude", 24_000, 100),
    _preset("constant_memory", "natural logarithm of the power"),
    _preset("lvcnet", "dB scaled to 0 ... 1 and clipped"),
    _preset("wg_wavenet", "dB scaled to 0 ... 1 and clipped, after pre-emphasis"),
)  # fmt: skip
NORMALISED = "mean-variance"
