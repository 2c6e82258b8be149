"""Presets against each system's own extraction, and conventions from every system's own configuration file."""

import json
import math
import warnings

import librosa
import numpy as np
import pytest
import scipy.signal
import torch
import yaml
from conftest import speech

from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.mel.systems import PRESETS, SIZES

RATES = sorted(SIZES)


def magnitude(wav, c, **stft):
    win = {"win_length": c.win_length, "hop_length": c.hop_length, "n_fft": c.n_fft}
    return np.abs(librosa.stft(np.asarray(wav), **win, pad_mode="reflect", **stft))


def librosa_mel(wav, c, **stft):
    bank = librosa.filters.mel(sr=c.sample_rate, n_fft=c.n_fft, n_mels=c.n_mels, fmin=c.fmin, fmax=c.fmax)
    return bank @ magnitude(wav, c, **stft)


def espnet(wav, c):
    fbank = pytest.importorskip("espnet2.tts.feats_extract.log_mel_fbank").LogMelFbank(
        fs=c.sample_rate, n_fft=c.n_fft, hop_length=c.hop_length, win_length=c.win_length, n_mels=c.n_mels,
        fmin=int(c.fmin), fmax=int(c.fmax),
    )  # fmt: skip
    return fbank(wav[None].float())[0][0].T


def parallel_wavegan(wav, c):
    return np.log10(np.maximum(1e-10, librosa_mel(wav, c)))


def coqui(wav, c):
    audio = pytest.importorskip("TTS.utils.audio")
    from TTS.config import BaseAudioConfig

    config = BaseAudioConfig(
        sample_rate=c.sample_rate, fft_size=c.n_fft, hop_length=c.hop_length, win_length=c.win_length,
    )  # fmt: skip
    return audio.AudioProcessor(config).melspectrogram(wav.numpy())


def waveglow(wav, c):
    return np.log(np.maximum(1e-5, librosa_mel(wav, c)))


def hifigan(wav, c):
    """As meldataset.py of HiFi-GAN, of BigVGAN and of UnivNet."""
    pad = int((c.n_fft - c.hop_length) / 2)
    padded = torch.nn.functional.pad(wav[None], (pad, pad), mode="reflect")
    window = torch.hann_window(c.n_fft).double()
    spectrum = torch.stft(padded, c.n_fft, c.hop_length, window=window, center=False, return_complex=True)
    bank = librosa.filters.mel(sr=c.sample_rate, n_fft=c.n_fft, n_mels=c.n_mels, fmin=c.fmin, fmax=c.fmax)
    mel = torch.from_numpy(bank).double() @ torch.sqrt(spectrum.abs().pow(2) + 1e-9)
    return torch.log(torch.clamp(mel, min=1e-5))[0]


def vocos(wav, c):
    """As MelSpectrogramFeatures of Vocos."""
    transforms = pytest.importorskip("torchaudio.transforms")
    extract = transforms.MelSpectrogram(
        sample_rate=c.sample_rate, n_fft=c.n_fft, hop_length=c.hop_length, n_mels=c.n_mels, center=True, power=1
    )
    return torch.log(torch.clip(extract(wav.float()), min=1e-7))


def constant_memory(wav, c):
    """As MelSpec of constant-memory-waveglow; it has one last frame more."""
    transforms = pytest.importorskip("torchaudio.transforms")
    extract = transforms.MelSpectrogram(
        sample_rate=c.sample_rate, n_fft=c.n_fft, hop_length=c.hop_length, n_mels=c.n_mels, f_min=c.fmin, f_max=c.fmax,
        center=False,
    )  # fmt: skip
    before, behind = c.n_fft // 2 - c.hop_length // 2, c.n_fft // 2 + c.hop_length // 2
    mel = extract(torch.nn.functional.pad(wav[None].float(), (before, behind), mode="reflect"))[0]
    return mel.add(1e-7).log()[:, : c.n_frames(len(wav))]


def lvcnet(wav, c):
    decibels = 20 * np.log10(np.maximum(1e-5, librosa_mel(wav, c))) - 20
    return np.clip((decibels + 100) / 100, 0, 1)


def wg_wavenet(wav, c):
    return lvcnet(scipy.signal.lfilter([1, -0.97], [1], wav.numpy()), c)


REFEREES = {
    "espnet": espnet, "parallel_wavegan": parallel_wavegan, "coqui": coqui, "waveglow": waveglow, "hifigan": hifigan,
    "bigvgan": hifigan, "univnet": hifigan, "vocos": vocos, "constant_memory": constant_memory, "lvcnet": lvcnet,
    "wg_wavenet": wg_wavenet,
}  # fmt: skip


def test_every_preset_has_a_referee():
    assert set(REFEREES) == set(PRESETS)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
@pytest.mark.filterwarnings("ignore:Empty filters")
def test_a_preset_is_the_systems_own_mel(name, rate):
    c = MelConvention.preset(name, rate)
    assert c.sample_rate == rate
    wav = speech(0.4, rate)
    found, expected = c.extract(wav), torch.as_tensor(REFEREES[name](wav, c)).double()
    assert found.shape == expected.shape
    difference = (found - expected).abs() * c.nats_per_unit
    heard = expected > expected.min() + 0.2 * (expected.max() - expected.min())  # float32 referees blur the floor
    assert heard.double().mean() > 0.3
    assert difference[heard].max() < 1e-3 and difference.median() < 1e-4


@pytest.mark.parametrize(
    ("name", "fields"),
    [  # what the systems publish for their own rate
        ("espnet", {"sample_rate": 22_050, "n_fft": 1024, "hop_length": 256, "fmin": 80.0, "fmax": 7600.0}),
        ("hifigan", {"sample_rate": 22_050, "pad": 384, "center": False, "fmax": 8000.0, "n_mels": 80}),
        ("univnet", {"sample_rate": 24_000, "n_mels": 100, "fmax": 12_000.0, "pad": 384}),
        ("bigvgan", {"sample_rate": 24_000, "n_mels": 100, "fmax": 12_000.0}),
        ("vocos", {"sample_rate": 24_000, "n_mels": 100, "mel_scale": "htk", "mel_norm": "none", "floor": 1e-7}),
        ("constant_memory", {"power": 2.0, "fmin": 60.0, "fmax": 7600.0, "eps": 1e-7}),
        ("lvcnet", {"fmin": 70.0, "fmax": 8000.0, "clip": (0.0, 1.0)}),
        ("wg_wavenet", {"hop_length": 200, "win_length": 800, "preemphasis": 0.97}),
        ("coqui", {"fmin": 0.0, "fmax": 11_025.0, "clip": (-4.0, 4.0)}),
    ],
)
def test_a_presets_own_rate_has_the_published_values(name, fields):
    c = MelConvention.preset(name)
    assert {key: getattr(c, key) for key in fields} == fields


def test_other_rates_of_a_preset():
    assert MelConvention.preset("espnet", 24_000).hop_length == 300
    assert MelConvention.preset("bigvgan", 44_100).n_mels == 128
    assert MelConvention.preset("hifigan", 48_000).fmax == 24_000
    assert MelConvention.preset("vocos", 16_000, n_mels=80).n_mels == 80
    with pytest.raises(ValueError, match="sample_rate 32000 is none of 16000, 22050"):
        MelConvention.preset("hifigan", 32_000)
    assert MelConvention.preset("hifigan", 32_000, n_fft=2048, hop_length=320).pad == 864
    with pytest.raises(ValueError, match="'hifigna' is none of the presets espnet"):
        MelConvention.preset("hifigna")


# Files

OURS = MelConvention.espnet(n_fft=512, hop_length=128, n_mels=40, fmin=50, fmax=None)
FILES = {  # name: (content, convention)
    "own.yaml": (OURS.to_dict(), OURS),
    "own.json": (OURS.to_dict(), OURS),
    "model/config.json": ({"format": "melglow", "schema": 1, "convention": OURS.to_dict()}, OURS),
    "pack/config.yml": ({"sampling_rate": 22_050, "num_mels": 40, "melglow": {"convention": OURS.to_dict()}}, OURS),
    "espnet/config.yaml": (
        {
            "feats_extract": "fbank", "normalize": "global_mvn", "tts": "fastspeech2",
            "feats_extract_conf": {"n_fft": 2048, "hop_length": 300, "win_length": 1200, "fs": 24_000, "fmin": 80,
                                   "fmax": 7600, "n_mels": 80},
        },
        MelConvention.preset("espnet", 24_000),
    ),
    "coqui/config.json": (
        {"model": "glow_tts", "audio": {"sample_rate": 22_050, "fft_size": 1024, "num_mels": 80, "mel_fmax": 8000.0}},
        MelConvention.coqui({"mel_fmax": 8000.0}),
    ),
    "coqui_ours/config.json": (
        {"model": "melglow", "audio": {"fft_size": 1024, "num_mels": 80}, "mel_convention": OURS.to_dict()}, OURS,
    ),
    "hifigan/config.json": (
        {"resblock": "1", "segment_size": 8192, "num_mels": 80, "num_freq": 1025, "n_fft": 1024, "hop_size": 256,
         "win_size": 1024, "sampling_rate": 22_050, "fmin": 0, "fmax": 8000, "fmax_for_loss": None},
        MelConvention.hifigan(),
    ),
    "bigvgan/config.json": (
        {"num_mels": 128, "n_fft": 2048, "hop_size": 512, "win_size": 2048, "sampling_rate": 44_100, "fmin": 0,
         "fmax": None},
        MelConvention.preset("bigvgan", 44_100),
    ),
    "pwg/config.yml": (
        {"sampling_rate": 24_000, "fft_size": 2048, "hop_size": 300, "win_length": 1200, "window": "hann",
         "num_mels": 80, "fmin": 80, "fmax": 7600, "global_gain_scale": 1.0, "format": "hdf5"},
        MelConvention.preset("parallel_wavegan", 24_000),
    ),
    "waveglow/config.json": (
        {"train_config": {}, "data_config": {"sampling_rate": 22_050, "filter_length": 1024, "hop_length": 256,
                                             "win_length": 1024, "mel_fmin": 0.0, "mel_fmax": 8000.0}},
        MelConvention.waveglow(),
    ),
    "univnet.yaml": (
        {"audio": {"n_mel_channels": 100, "segment_length": 16_384, "filter_length": 1024, "hop_length": 256,
                   "win_length": 1024, "sampling_rate": 24_000, "mel_fmin": 0.0, "mel_fmax": 12_000.0}},
        MelConvention.preset("univnet"),
    ),
    "vocos.yaml": (
        {"feature_extractor": {"class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
                               "init_args": {"sample_rate": 24_000, "n_fft": 1024, "hop_length": 256, "n_mels": 100,
                                             "padding": "center"}}, "backbone": {}},
        MelConvention.preset("vocos"),
    ),
    "melspec.json": (
        {"arch": {}, "conditioner": {"type": "MelSpec", "args": {"sr": 22_050, "n_fft": 1024, "hop_length": 256,
                                                                 "f_min": 60, "f_max": 7600, "n_mels": 80}}},
        MelConvention.preset("constant_memory"),
    ),
}  # fmt: skip


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_the_convention(name, tmp_path):
    content, expected = FILES[name]
    path = write(tmp_path / name, content)
    assert MelConvention.from_file(path) == expected
    if path.name.startswith("config"):
        assert MelConvention.from_file(path.parent) == expected


REFUSED = {
    "a.json": ("[1]", "holds a list"),
    "b.json": ("{", "no JSON"),
    "c.yaml": ("a: [", "no YAML"),
    "d.yaml": ("a: !!python/object/apply:os.system ['true']", "no YAML"),
    "e.json": ('{"x": 1}', "no mel configuration.*ESPnet.*Coqui.*HiFi-GAN.*parallel_wavegan"),
    "f.yaml": ("feats_extract: linear_spectrogram\nfeats_extract_conf: {}", "linear_spectrogram"),
    "g.yaml": ("feats_extract_conf: {hopp: 3}", "'hopp'"),
    "h.json": ('{"model": "vits", "audio": {"fft_size": 1024, "num_mels": 80}}', "'vits'.*no mel"),
    "i.json": ('{"sample_rate": 22050, "n_fft": 1024, "hopp": 2}', "hopp"),
    "j.yml": ("{sampling_rate: 24000, sampling_rate_for_feats: 16000, fft_size: 2048, hop_size: 300}", "16000.*24000"),
    "k.json": ('{"n_fft": 1024, "hop_size": 256, "sampling_rate": 22050, "fmax": 20000}', "20000.*22050"),
    "l.yaml": (
        "feature_extractor: {class_path: vocos.feature_extractors.EncodecFeatures, init_args: {}}", "EncodecFeatures"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_convention_is_refused_with_file_and_reason(name, tmp_path):
    text, says = REFUSED[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"(?s){name}.*{says}"):
        MelConvention.from_file(tmp_path / name)


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere.json: no such file"):
        MelConvention.from_file(tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match="holds no config.json"):
        MelConvention.from_file(tmp_path)


# Approximate conversion

ESPNET = MelConvention.espnet()
APPROXIMATIONS = {  # name: (source, target)
    "fmin, fmax": (MelConvention.waveglow(), ESPNET),
    "bins": (MelConvention.espnet(n_mels=100), ESPNET),
    "htk": (MelConvention.espnet(htk=True), ESPNET),
    "power": (ESPNET, MelConvention(power=2.0, spectrum_floor=1e-5)),
    "constant memory -> HiFi-GAN": (MelConvention.preset("constant_memory"), MelConvention.hifigan()),
}


@pytest.mark.parametrize("name", APPROXIMATIONS)
def test_an_approximate_conversion_is_as_near_as_it_says(name):
    source, target = APPROXIMATIONS[name]
    wav = speech(1.0)
    mel, expected = source.extract(wav), target.extract(wav)
    with pytest.raises(ValueError, match="no exact conversion"):
        source.convert(mel, target)
    with pytest.warns(UserWarning, match="expect an error of") as said:
        found = source.convert(mel, target, approximate=True)
    error = ((found - expected).abs() * target.nats_per_unit / target.power).median().item()
    promised = source.expected_error(target)
    assert f"{promised['median']:.2f} nats" in str(said[0].message)
    assert 0 < error < max(3 * promised["median"], 0.1) and promised["median"] < promised["p95"] < 1


def test_an_exact_conversion_stays_exact_and_silent():
    mel, target = ESPNET.extract(speech()), MelConvention.espnet(log_base=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(ESPNET.convert(mel, target, approximate=True), ESPNET.convert(mel, target))


@pytest.mark.parametrize("shape", [(80, 9), (2, 80, 9)])
def test_an_approximation_keeps_shape_and_precision(shape):
    mel = (torch.randn(shape) - 5).float()
    with pytest.warns(UserWarning):
        found = MelConvention.waveglow().convert(mel, ESPNET, approximate=True)
    assert found.shape == mel.shape and found.dtype == torch.float32 and found.isfinite().all()


def test_silence_becomes_silence():
    silence = torch.zeros(8000).double()
    with pytest.warns(UserWarning):
        found = MelConvention.waveglow().convert(MelConvention.waveglow().extract(silence), ESPNET, approximate=True)
    assert found.max() < -4


def test_another_stft_is_never_approximated():
    mel = torch.zeros(80, 9)
    with pytest.raises(ValueError, match="not even an approximate.*n_fft 2048 -> 1024; hop_length 300") as refusal:
        MelConvention.espnet(n_fft=2048, hop_length=300, fmax=8000).convert(mel, ESPNET, approximate=True)
    assert "fmax" not in str(refusal.value)


@pytest.mark.parametrize(
    ("source", "lag"), [(MelConvention.hifigan(), 128), (MelConvention.waveglow(center=False), 512)]
)
def test_frames_that_lie_elsewhere_are_those_of_the_recording_from_there_on(source, lag):
    wav, target = speech(1.0), MelConvention.waveglow()
    assert source.frame_offset(target) == lag and target.frame_offset(source) == -lag
    mel = source.extract(wav)
    with pytest.raises(ValueError, match="no exact conversion.*center False -> True"):
        source.convert(mel, target)
    with pytest.warns(UserWarning, match=f"frames {lag} samples later: the audio starts that much later") as said:
        found = source.convert(mel, target, approximate=True)
    assert "expect an error" not in str(said[0].message)
    expected = target.extract(wav[lag:])
    frames = min(found.shape[1], expected.shape[1])
    inside = (found[:, :frames] - expected[:, :frames])[:, 3:-3]  # at the ends they see other paddings
    assert inside.abs().max() < 1e-3


def test_bands_and_frames_can_both_be_approximated():
    wav = speech(1.0)
    with pytest.warns(UserWarning, match=r"expect an error of .*; frames 128 samples later") as said:
        found = MelConvention.hifigan().convert(MelConvention.hifigan().extract(wav), ESPNET, approximate=True)
    assert "center False -> True; pad 384 -> 0; fmin 0.0 -> 80.0" in str(said[0].message)
    expected = ESPNET.extract(wav[128:])
    assert ((found - expected[:, : found.shape[1]])[:, 3:-3] * ESPNET.nats_per_unit).abs().median() < 0.1


def test_log_of_a_factor_is_what_nats_say():
    c = MelConvention.preset("constant_memory")
    assert c.nats_per_unit == pytest.approx(1.0) and MelConvention.preset("lvcnet").nats_per_unit == pytest.approx(
        100 / 20 * math.log(10)
    )
