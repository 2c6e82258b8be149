"""HTML of the page: what went in and came out, as figures with pictures and players that hold their own data."""

from base64 import b64encode
from html import escape

from melglow_plugin.demo.sounds import Sounds
from melglow_plugin.evaluation.clips import RANGE, log_mel, picture
from melglow_plugin.files import audio_bytes


def shown(sounds: Sounds) -> str:
    """Figures of the mel and of every wav, each with what was measured of it."""
    rate = sounds.sample_rate
    mels = {name: log_mel(wav, rate) for name, wav in sounds.wavs.items()}
    top = max(float(mel.max()) for mel in mels.values())
    about = f"{len(sounds.mel)} bands; {sounds.readings['mel']}"
    figures = [_figure("mel, the vocoder's input", about, picture(sounds.mel, float(sounds.mel.max())))]
    for name, wav in sounds.wavs.items():
        facts = [f"{len(wav) / rate:.1f} s"]
        facts += [f"computed in {sounds.seconds[name]:.2f} s"] if name in sounds.seconds else []
        facts += [sounds.readings[name]] if name in sounds.readings else []
        figures.append(_figure(name, "; ".join(facts), picture(mels[name], top), audio_bytes(wav, rate, "WAV")))
    pictures = f"Pictures: 0 to {rate / 2000:g} kHz on a mel scale (the input: its own bands), {RANGE} dB."
    notes = [*(f"Note: {note}." for note in sounds.notes), pictures]
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f'<div class="melglow"><div class="row">{"".join(figures)}</div>{notes}</div>'


def fault(error: Exception) -> str:
    """A refusal, in one line."""
    return f'<div class="melglow"><p class="fault" role="alert">{escape(" ".join(str(error).split()))}</p></div>'


def _figure(name: str, about: str, png: bytes, wav: bytes | None = None) -> str:
    title, player = escape(name), ""
    if wav is not None:
        player = f'<audio controls src="{_data("audio/wav", wav)}" data-system="{title}" aria-label="{title}"></audio>'
    return (
        f'<figure><figcaption>{title}</figcaption><img src="{_data("image/png", png)}" alt="Spectrogram: {title}">'
        f'{player}<small class="note">{escape(about)}</small></figure>'
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
