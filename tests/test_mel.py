import json
import math
import pickle
from dataclasses import fields, replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from conftest import speech

from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.mel.conversion import STRUCTURAL
from melglow_plugin.mel.filterbank import mel_filterbank

ESPNET = MelConvention.espnet()
COQUI_80_7600 = {"mel_fmin": 80.0, "mel_fmax": 7600.0}
# One spectrum in the numbers of several systems: what convert must bridge.
FAMILY = {
    "espnet": ESPNET,
    "espnet in nats": MelConvention.espnet(log_base=None),
    "espnet normalised": replace(ESPNET, mean=tuple(np.linspace(-3, -1, 80)), std=tuple(np.linspace(0.5, 1, 80))),
    "coqui": MelConvention.coqui({**COQUI_80_7600, "clip_norm": False}),
    "coqui asymmetric": MelConvention.coqui({**COQUI_80_7600, "clip_norm": False, "symmetric_norm": False}),
    "coqui in dB": MelConvention.coqui({**COQUI_80_7600, "signal_norm": False}),
    "waveglow": MelConvention.waveglow(fmin=80, fmax=7600),
    "small addend": replace(ESPNET, eps=1e-7, log_base=math.e),
}
# Everything that a convention can hold, for storage.
EVERY = {
    **FAMILY,
    "hifigan": MelConvention.hifigan(),
    "coqui clipped": MelConvention.coqui(),
    "htk": MelConvention.espnet(htk=True, window=None, center=False, fmax=None, win_length=800),
}


def close(a, b, atol, where=None):
    """Equal to ``atol``, where the mask ``where`` says so; most of the mel must be compared."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    assert a.shape == b.shape
    where = torch.ones_like(a, dtype=torch.bool) if where is None else where
    assert where.double().mean() > 0.5
    torch.testing.assert_close(a[where], b[where], rtol=0, atol=atol, check_dtype=False)


def one_decade(convention):
    """What a factor of ten in amplitude is in a convention's own numbers."""
    return math.log(10) / convention.nats_per_unit


# The filterbank


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["slaney", "none"])
@pytest.mark.parametrize(
    "rate, n_fft, n_mels, fmin, fmax",
    [
        (22_050, 1024, 80, 80, 7600), (16_000, 1024, 80, 0, 8000), (24_000, 1024, 100, 0, 12_000),
        (44_100, 2048, 128, 20, 22_050), (48_000, 4096, 80, 50, 14_000), (22_050, 512, 13, 900, 4000),
    ],
)  # fmt: skip
def test_filterbank_is_librosas(rate, n_fft, n_mels, fmin, fmax, scale, norm):
    expected = librosa.filters.mel(
        sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, htk=scale == "htk",
        norm=None if norm == "none" else norm,
    )  # fmt: skip
    found = mel_filterbank(rate, n_fft, n_mels, fmin, fmax, scale, norm)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


# Each system's own code as referee


@pytest.mark.filterwarnings("ignore:A window was not provided")
@pytest.mark.parametrize(
    "conf",
    [
        {"fs": 22_050},
        {"fs": 16_000, "n_mels": 40},
        {"fs": "24k", "n_fft": 2048, "hop_length": 300, "win_length": 1200, "fmax": 12_000},
        {"fs": 48_000, "n_fft": 2048, "hop_length": 600, "fmin": None, "fmax": None},
        {"fs": 22_050, "window": "hamming", "log_base": None},
        {"fs": 22_050, "window": None, "win_length": 800, "log_base": 2.0},
        {"fs": 22_050, "center": False, "htk": True},
    ],
    ids=str,
)
def test_espnet_is_espnets_own(conf):
    fbank = pytest.importorskip("espnet2.tts.feats_extract.log_mel_fbank").LogMelFbank(**conf)
    convention = MelConvention.espnet(**conf)
    wav = speech(sample_rate=fbank.fs).float()[None]
    assert convention.sample_rate == fbank.fs
    close(convention.extract(wav), fbank(wav)[0].mT, 1e-5 * one_decade(convention))


def test_espnet_floors_silence_as_espnet_does():
    fbank = pytest.importorskip("espnet2.tts.feats_extract.log_mel_fbank").LogMelFbank(fs=22_050)
    silence = torch.zeros(1, 4000)
    close(ESPNET.extract(silence), fbank(silence)[0].mT, 1e-5)


@pytest.fixture
def stats_file(tmp_path) -> Path:
    """Statistics as Coqui's compute_statistics.py writes them."""
    stats = {
        "mel_mean": np.linspace(-60.0, -20.0, 80),
        "mel_std": np.linspace(5.0, 20.0, 80),
        "linear_mean": np.zeros(513),
        "linear_std": np.ones(513),
        "audio_config": {"sample_rate": 22_050, "num_mels": 80, "mel_fmin": 0.0, "log_func": "np.log10"},
    }
    np.save(tmp_path / "scale_stats.npy", stats, allow_pickle=True)
    return tmp_path / "scale_stats.npy"


COQUI = {
    "defaults": {},
    "not normalised": {"signal_norm": False},
    "asymmetric": {"symmetric_norm": False, "max_norm": 1.0},
    "unclipped": {"clip_norm": False, "min_level_db": -80, "ref_level_db": 0},
    "ln": {"log_func": "np.log", "spec_gain": 1, "signal_norm": False, "mel_fmax": 8000.0},
    "ln, normalised": {"log_func": "np.log", "clip_norm": False},
    "pre-emphasis": {"preemphasis": 0.97},
    "zero padding": {"stft_pad_mode": "constant"},
    "statistics": {"stats_path": True},
    "another size": {"sample_rate": 24_000, "fft_size": 2048, "win_length": 1200, "hop_length": 300, "num_mels": 100},
    "milliseconds": {"hop_length": None, "win_length": None, "frame_length_ms": 40, "frame_shift_ms": 10},
    "milliseconds unused": {"frame_length_ms": 40, "frame_shift_ms": 10},
}


@pytest.mark.parametrize("name", COQUI)
@pytest.mark.parametrize("as_dict", [False, True])
def test_coqui_is_coquis_own(name, as_dict, stats_file):
    audio = pytest.importorskip("TTS.utils.audio")
    from TTS.config import BaseAudioConfig

    conf = {**COQUI[name], **({"stats_path": str(stats_file)} if "stats_path" in COQUI[name] else {})}
    config = BaseAudioConfig(**conf)
    convention = MelConvention.coqui(conf if as_dict else config)
    wav = speech(sample_rate=config.sample_rate)
    expected = audio.AudioProcessor(config).melspectrogram(wav.numpy())
    close(convention.extract(wav), expected, 1e-5 * max(1, one_decade(convention)))


def test_coqui_statistics_can_be_given():
    mean, std = np.linspace(-60, -20, 80), np.linspace(5, 20, 80)
    wav = speech()
    expected = (MelConvention.coqui({"signal_norm": False}).extract(wav).numpy() - mean[:, None]) / std[:, None]
    close(MelConvention.coqui(mean=mean, std=std).extract(wav), expected, 1e-9)


# Extraction


def test_one_recording_or_a_batch():
    wav = torch.stack([speech(), speech().flip(0)])
    batch = ESPNET.extract(wav)
    assert batch.shape == (2, 80, ESPNET.n_frames(wav.shape[1]))
    for i in range(2):
        close(batch[i], ESPNET.extract(wav[i]), 1e-12)


@pytest.mark.parametrize("given, found", [("float64", "float64"), ("float32", "float32"), ("float16", "float32")])
def test_precision_follows_the_wav(given, found):
    wav = speech().to(getattr(torch, given))
    mel = ESPNET.extract(wav)
    assert mel.dtype == getattr(torch, found)
    close(mel, ESPNET.extract(wav.double()), 1e-3)


@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_autocast_does_not_reach_the_mel(given):
    wav, convention = torch.randn(9000).to(given), MelConvention.hifigan()
    with torch.autocast("cpu", torch.bfloat16):
        mel = convention.extract(wav)
    assert mel.dtype == given and torch.equal(mel, convention.extract(wav))


@pytest.mark.parametrize("wav", [torch.zeros(4000, dtype=torch.int16), torch.zeros(1, 1, 4000), torch.zeros(())])
def test_what_is_no_float_wav_is_refused(wav):
    with pytest.raises(ValueError, match=r"wanted float of \(T,\) or \(B, T\)"):
        ESPNET.extract(wav)


@pytest.mark.parametrize(
    "convention, samples, numbers",
    [
        (ESPNET, 512, "512 samples.*512"),
        (MelConvention.hifigan(), 384, "384 samples.*384"),
        (MelConvention.espnet(center=False), 1023, "1023 samples.*1024"),
    ],
)
def test_too_short_a_wav_is_refused_with_both_numbers(convention, samples, numbers):
    with pytest.raises(ValueError, match=numbers):
        convention.extract(torch.zeros(samples))
    convention.extract(torch.zeros(samples + 1))


@pytest.mark.parametrize(
    "convention",
    [
        ESPNET, MelConvention.hifigan(), MelConvention.espnet(center=False), MelConvention.hifigan(hop_size=255),
        MelConvention.espnet(hop_length=300, n_fft=1023), MelConvention.coqui({"stft_pad_mode": "constant"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("samples", [1024, 1025, 1199, 1200, 1279, 1280, 1281, 2047, 2048, 5000])
def test_frames_are_foretold(convention, samples):
    assert convention.extract(torch.randn(samples)).shape == (80, convention.n_frames(samples))


def test_too_few_samples_have_no_frames():
    assert MelConvention.espnet(center=False).n_frames(100) == 0


@pytest.mark.parametrize("convention", EVERY.values(), ids=EVERY)
def test_silence_has_a_finite_mel_and_gradient(convention):
    wav = torch.zeros(4000, requires_grad=True)
    mel = convention.extract(wav)
    mel.square().sum().backward()
    assert mel.isfinite().all() and wav.grad.isfinite().all()


@pytest.mark.parametrize("convention", FAMILY.values(), ids=FAMILY)
def test_nats_per_unit_is_the_slope(convention):
    if convention.mean is not None or convention.eps:
        convention = replace(convention, mean=None, std=None, eps=0.0)
    difference = (convention.extract(2 * speech()) - convention.extract(speech())) * convention.nats_per_unit
    assert difference.median().item() == pytest.approx(math.log(2), abs=1e-6)


# Conversion


@pytest.mark.parametrize("source", FAMILY)
@pytest.mark.parametrize("target", FAMILY)
def test_conversion_gives_the_targets_own_mel(source, target):
    source, target = FAMILY[source], FAMILY[target]
    wav = speech()
    mel, expected = source.extract(wav), target.extract(wav)
    audible = ESPNET.extract(wav) > -4.5  # every floor lies below
    tolerance = 1e-5 * max(1, one_decade(target))
    close(source.convert(mel, target), expected, tolerance, audible)
    close(target.convert(source.convert(mel, target), source), mel, 1e-5 * max(1, one_decade(source)), audible)


def test_hifigans_addend_is_below_what_is_heard():
    hifigan = replace(ESPNET, spectrum_floor=0.0, spectrum_eps=1e-9, floor=1e-5, log_base=math.e)
    wav = speech()
    mel = ESPNET.extract(wav)
    close(ESPNET.convert(mel, hifigan), hifigan.extract(wav), 1e-5, mel > -2)


def test_conversion_takes_batches_and_keeps_precision():
    mel = ESPNET.extract(torch.stack([speech(), speech().flip(0)])).float()
    converted = ESPNET.convert(mel, FAMILY["espnet normalised"])
    assert converted.shape == mel.shape and converted.dtype == torch.float32
    close(converted[1], ESPNET.convert(mel[1], FAMILY["espnet normalised"]), 0)


def test_conversion_to_itself_changes_nothing():
    mel = torch.randn(80, 7)
    assert ESPNET.convert(mel, MelConvention.espnet()).equal(mel)


def test_clipped_values_stay_at_the_limit():
    clipped = MelConvention.coqui(COQUI_80_7600)
    loud_and_soft = torch.tensor([-8.0, 3.0]).expand(80, 2)  # Coqui's range is -4 to 1 in log10
    assert ESPNET.convert(loud_and_soft, clipped).tolist() == [[-4.0, 4.0]] * 80
    close(clipped.convert(clipped.extract(torch.zeros(4000)), ESPNET), torch.full((80, 16), -4.0), 1e-6)


@pytest.mark.parametrize("source", ["coqui", "coqui in dB", "waveglow"])
def test_silence_becomes_espnets_silence(source):
    silence = torch.zeros(4000).double()
    converted = FAMILY[source].convert(FAMILY[source].extract(silence), ESPNET)
    expected = ESPNET.extract(silence)
    if source == "waveglow":  # its floor of 1e-5 lies above
        assert (converted >= expected - 1e-6).all() and (converted - expected).max() < 2
    else:
        close(converted, expected, 1e-5)


OTHER = {
    "sample_rate": 24_000, "n_fft": 2048, "hop_length": 300, "win_length": 800, "window": "hamming", "center": False,
    "pad": 384, "pad_mode": "constant", "preemphasis": 0.97, "n_mels": 40, "fmin": 0.0, "fmax": 8000.0,
    "mel_scale": "htk", "mel_norm": "none", "power": 2.0,
}  # fmt: skip
POINTWISE = {
    "spectrum_eps", "spectrum_floor", "log_base", "gain", "eps", "floor", "scale", "shift", "clip", "mean", "std",
}  # fmt: skip


def test_every_field_is_structural_or_pointwise():
    assert {f.name for f in fields(MelConvention)} == set(STRUCTURAL) | POINTWISE
    assert set(OTHER) == set(STRUCTURAL)


@pytest.mark.parametrize("field", STRUCTURAL)
def test_a_structural_difference_is_refused_by_name(field):
    other = replace(ESPNET, **{field: OTHER[field]})
    with pytest.raises(ValueError) as refusal:
        ESPNET.convert(torch.zeros(80, 3), other)
    named = str(refusal.value).split(": ", 1)[1].split("; ")
    assert named == [f"{field} {getattr(ESPNET, field)} -> {OTHER[field]}"]


def test_all_structural_differences_are_named_at_once():
    with pytest.raises(ValueError) as refusal:
        ESPNET.convert(torch.zeros(80, 3), replace(ESPNET, **OTHER))
    assert [part.split()[0] for part in str(refusal.value).split(": ", 1)[1].split("; ")] == list(STRUCTURAL)


@pytest.mark.parametrize("shape", [(79, 3), (80,), (3, 80), (1, 1, 80, 3)])
def test_conversion_refuses_another_shape(shape):
    with pytest.raises(ValueError, match=r"80, F"):
        ESPNET.convert(torch.zeros(shape), FAMILY["coqui"])


# Refusals by name


@pytest.mark.parametrize(
    "make",
    [
        lambda: MelConvention.espnet(hopp=256),
        lambda: MelConvention.coqui({"hopp": 256}),
        lambda: MelConvention.hifigan(hopp=256),
        lambda: MelConvention.waveglow(hopp=256),
        lambda: MelConvention.from_dict({"hopp": 256}),
    ],
)
def test_unknown_keywords_are_refused_by_name(make):
    with pytest.raises((ValueError, TypeError), match="hopp"):
        make()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: MelConvention.espnet(normalized=True), "normalized = True"),
        (lambda: MelConvention.espnet(onesided=False), "onesided = False"),
        (lambda: MelConvention.espnet(window="blackman"), "window 'blackman'"),
        (lambda: MelConvention.coqui({"do_amp_to_db_mel": False}), "do_amp_to_db_mel"),
        (lambda: MelConvention.coqui({"do_sound_norm": True}), "do_sound_norm"),
        (lambda: MelConvention.coqui({"do_rms_norm": True}), "do_rms_norm"),
        (lambda: MelConvention.coqui({"log_func": "np.log2"}), "np.log2"),
        (lambda: MelConvention(n_fft=1024.0), "n_fft 1024.0"),
        (lambda: MelConvention(hop_length=0), "hop_length 0"),
        (lambda: MelConvention(win_length=2000), "2000 .*1024"),
        (lambda: MelConvention(fmax=12_000), "12000 .*22050"),
        (lambda: MelConvention(fmin=8000, fmax=7000), "8000 .*7000"),
        (lambda: MelConvention(pad_mode="edge"), "pad_mode 'edge'"),
        (lambda: MelConvention(floor=0.0), "floor 0 and eps 0"),
        (lambda: MelConvention(log_base=1.0), "log_base 1"),
        (lambda: MelConvention(mean=(0.0,) * 80), "mean and std"),
        (lambda: MelConvention(mean=(0.0,) * 79, std=(1.0,) * 79), "79 values for n_mels 80"),
    ],
)
def test_what_has_no_meaning_is_refused_with_its_value(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("name", ["builtins\neval", "os\nscalar", "numpy\nsave", "numpy.f2py\nos.system"])
def test_no_foreign_name_is_looked_up(tmp_path, name):
    path = tmp_path / "stats.npy"
    np.save(path, np.array([None]), allow_pickle=True)
    header = path.read_bytes().split(b"\n")[0] + b"\n"
    path.write_bytes(header + f"c{name}\n(S'1'\ntR.".encode())
    with pytest.raises((ValueError, pickle.UnpicklingError), match="numbers only"):
        MelConvention.coqui({"stats_path": str(path)})


# Storage


@pytest.mark.parametrize("convention", EVERY.values(), ids=EVERY)
def test_json_round_trip(convention):
    assert MelConvention.from_dict(json.loads(json.dumps(convention.to_dict()))) == convention


def test_spelling_makes_no_difference():
    assert MelConvention.espnet(fs="22050", n_shift=256, win_length=1024, fmin=80) == ESPNET
    assert MelConvention.espnet(fs="22.05k", window="hann") == ESPNET
    assert hash(MelConvention.espnet(win_length=None)) == hash(ESPNET)


@pytest.mark.parametrize("stats", [{}, {"mean": (0.5,) * 80, "std": (2.0,) * 80}], ids=["plain", "normalised"])
def test_constants_are_made_once_and_can_be_trained_with(stats):
    convention = MelConvention.espnet(fmin=90 + len(stats))  # nobody else's, so that nothing is cached yet
    convention = replace(convention, **stats)
    wav = torch.randn(1, 4096)
    with torch.inference_mode():
        expected = convention.extract(wav)
    wav.requires_grad_()
    found = convention.extract(wav)
    found.sum().backward()  # a constant made under inference_mode would refuse
    assert torch.equal(found.detach(), expected) and wav.grad.abs().sum() > 0
    assert convention.filterbank(wav) is convention.filterbank(wav)
    assert convention.stft_window(wav.double()).dtype == torch.float64
