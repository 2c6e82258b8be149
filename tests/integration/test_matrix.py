"""Acoustic models' mels before one vocoder, in both hosts: each is converted exactly or refused by field."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from conftest import speech
from torch import Tensor

pytest.importorskip("TTS")
pytest.importorskip("espnet2")

from coqui_parts import export_vocoder, glow_tts, synthesizer
from espnet2.tasks.tts import TTSTask
from espnet2.tts.feats_extract.log_mel_fbank import LogMelFbank

import melglow_plugin.espnet
from melglow_plugin import MelConvention, Vocoder
from melglow_plugin.checkpoint.espnet import to_espnet
from melglow_plugin.cli import main as melglow

melglow_plugin.espnet.register()

ESPNET = {"fs": 22_050, "n_fft": 1024, "hop_length": 256, "fmin": 80, "fmax": 7600}
PLAIN = {"spec_gain": 1, "signal_norm": False}
# what an acoustic model was trained on: (Coqui's audio, ESPnet's feats_extract_conf); None: not to be said there
HEARD = {
    "the vocoder's own": (PLAIN, {"log_base": 10.0}),
    "natural logarithm": ({**PLAIN, "log_func": "np.log"}, {"log_base": None}),
    "logarithm to base 2": (None, {"log_base": 2.0}),
    "decibels": ({**PLAIN, "spec_gain": 20}, {"log_base": 10**0.05}),
    "Coqui's defaults": ({}, None),
    "from 0 to 1": ({"symmetric_norm": False, "max_norm": 1.0, "min_level_db": -120}, None),
    "decibels to base e": ({"log_func": "np.log", "clip_norm": False}, None),
    "mean and variance": ({**PLAIN, "signal_norm": True, "stats_path": "stats.npy"}, None),
}
# the same, and what the refusal says
REFUSED = {
    "0 to 8000 Hz": (
        {"mel_fmin": 0.0, "mel_fmax": 8000.0}, {"fmin": 0, "fmax": 8000}, "fmin 0.0 -> 80.0; fmax 8000.0 -> 7600.0",
    ),
    "another hop": ({"hop_length": 300}, {"hop_length": 300}, "hop_length 300 -> 256"),
    "another rate": ({"sample_rate": 24_000}, {"fs": 24_000}, "sample_rate 24000 -> 22050"),
    "another FFT": ({"fft_size": 2048}, {"n_fft": 2048, "win_length": 1024}, "n_fft 2048 -> 1024"),
    "another window": ({"win_length": 800}, {"win_length": 800}, "win_length 800 -> 1024"),
    "more bins": ({"num_mels": 100}, {"n_mels": 100}, "n_mels 100 -> 80"),
    "pre-emphasis": ({"preemphasis": 0.97}, None, "preemphasis 0.97 -> 0.0"),
    "zeros around": ({"stft_pad_mode": "constant"}, None, "pad_mode constant -> reflect"),
    "one loudness": ({"do_rms_norm": True, "db_level": -27.0}, None, "do_rms_norm = True"),
    "no logarithm": ({"do_amp_to_db_mel": False}, None, "do_amp_to_db_mel = False"),
    "HTK filters": (None, {"htk": True}, "mel_scale htk -> slaney"),
    "Hamming window": (None, {"window": "hamming"}, "window hamming -> hann"),
    "no padding": (None, {"center": False}, "center False -> True"),
}  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = export_vocoder(tmp_path_factory.mktemp("exported"))
    to_espnet(Vocoder.from_pretrained(folder / "model").checkpoint, folder / "espnet")
    return folder


@pytest.fixture
def wav() -> Tensor:
    """(T,) with no bin so quiet or loud that Coqui's normalisation would clip it."""
    return (speech(0.5) + 0.01 * torch.randn(11_025, dtype=torch.float64)).float()


def in_coqui(exported, audio: dict, folder) -> tuple:
    """Load vocoder and acoustic model; returns mel(wav) as that model would give it, (M, F), and speak(mel)."""
    host = synthesizer(exported, glow_tts(folder, **audio))
    return (
        lambda wav: torch.from_numpy(host.tts_model.ap.melspectrogram(wav.numpy())),
        lambda mel: host._run_vocoder(mel.T, "cpu")[0, 0],
    )


def in_espnet(exported, conf: dict, folder) -> tuple:
    """The same."""
    extract = LogMelFbank(**{**ESPNET, **conf})
    model = SimpleNamespace(feats_extract=extract)
    vocoder = TTSTask.build_vocoder_from_file(None, str(exported / "espnet" / "checkpoint.pkl"), model, "cpu")
    return lambda wav: extract(wav[None], torch.tensor([len(wav)]))[0][0].T, lambda mel: vocoder(mel.T)


def cells(table: dict) -> list:
    """(host, settings, ...) of every cell that can be said."""
    return [
        pytest.param(host, settings, *rest, id=f"{host.__name__} {name}")
        for name, (coqui, espnet, *rest) in table.items()
        for host, settings in ((in_coqui, coqui), (in_espnet, espnet))
        if settings is not None
    ]


def deviation(wav: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, to that of ``expected``."""
    assert wav.shape == expected.shape
    return float((wav - expected).norm() / expected.norm())


@pytest.mark.parametrize(("host", "settings"), cells(HEARD))
def test_numbers_of_another_kind_are_converted_exactly(host, settings, exported, wav, tmp_path):
    vocoder = Vocoder.from_pretrained(exported / "model")
    expected = vocoder(vocoder.convention.extract(wav), seed=0)
    if "stats_path" in settings:
        mean, std = torch.linspace(-4, -2, 80).numpy(), torch.linspace(0.5, 1.5, 80).numpy()
        linear = {"linear_mean": np.zeros(513), "linear_std": np.ones(513)}
        np.save(tmp_path / "stats.npy", {"mel_mean": mean, "mel_std": std, **linear, "audio_config": {}})
        settings = {**settings, "stats_path": str(tmp_path / "stats.npy")}
    mel_of, speak = host(exported, settings, tmp_path)
    mel = mel_of(wav)
    assert deviation(speak(mel), expected) < 1e-5
    if settings not in (PLAIN, {"log_base": 10.0}):  # taken for the vocoder's own, it would sound otherwise
        assert deviation(vocoder(mel, seed=0), expected) > 0.1


@pytest.mark.parametrize(("host", "settings", "says"), cells(REFUSED))
def test_mels_of_another_kind_are_refused_by_field(host, settings, says, exported, tmp_path):
    with pytest.raises(ValueError) as error:
        host(exported, settings, tmp_path)
    assert says in str(error.value)


ADAPTED = {name: (coqui, espnet) for name, (coqui, espnet, _) in REFUSED.items() if name in (
    "0 to 8000 Hz", "more bins", "HTK filters",
)}  # fmt: skip


@pytest.mark.parametrize(("host", "settings"), cells(ADAPTED))
def test_an_export_for_the_acoustic_models_configuration_synthesizes_it(host, settings, exported, wav, tmp_path):
    if host is in_coqui:
        _, configuration = glow_tts(tmp_path, **settings)
    else:
        configuration = tmp_path / "config.yaml"
        configuration.write_text(yaml.safe_dump({"feats_extract_conf": {**ESPNET, **settings}}))
    form = host.__name__.removeprefix("in_")
    options = ["--format", form, "--convention", str(configuration), "-o", str(tmp_path / form)]
    assert melglow(["export", str(exported / "model"), *options]) == 0
    mel_of, speak = host(tmp_path, settings, tmp_path)
    mel = mel_of(wav)
    convention = MelConvention.from_file(configuration)
    expected = Vocoder.from_pretrained(exported / "model").adapted(convention)(mel, seed=0)
    assert deviation(speak(mel), expected) < 1e-5
