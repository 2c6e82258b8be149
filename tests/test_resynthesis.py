"""Resynthesis: nearer to the mel than a round, phases that fit the magnitudes, and the same in any company."""

import math

import pytest
import torch
from conftest import speech, stir
from test_refine import CONVENTIONS, distance, pair

from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.checkpoint import any_file
from melglow_plugin.checkpoint.coqui import to_coqui
from melglow_plugin.checkpoint.espnet import to_espnet
from melglow_plugin.inference import resynthesis
from melglow_plugin.inference.chunks import look_ahead
from melglow_plugin.inference.refine import refine
from melglow_plugin.inference.resynthesis import RESYNTHESIS, check_refine, integrated_phases, resynthesize
from melglow_plugin.model.postfilter import Postfilter

SMALL = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)
POSSIBLE = [name for name, convention in CONVENTIONS.items() if convention.window in resynthesis.GAUSSIAN]


def snr(found, expected):
    """In dB."""
    return 10 * math.log10(expected.square().sum() / (found - expected).square().sum().clamp(min=1e-20))


@pytest.fixture(scope="module")
def vocoder():
    return Vocoder(stir(MelGlow(n_mels=20, hop_length=64, n_flows=2, channels=4, n_layers=2), 0.02), SMALL)


@pytest.fixture(scope="module")
def mel():
    return SMALL.extract(speech(0.5).float())


@pytest.mark.parametrize("name", POSSIBLE)
def test_it_comes_nearer_to_the_mel_than_a_round(name):
    convention = CONVENTIONS[name]
    mel, wav = pair(convention)
    found = resynthesize(wav[None], mel[None], convention)[0]
    assert found.shape == wav.shape and torch.isfinite(found).all()
    round_off = distance(refine(wav[None], mel[None], convention, 1)[0], mel, convention)
    assert distance(found, mel, convention) < min(0.9 * round_off, 0.4 * distance(wav, mel, convention))


def test_phases_fit_the_magnitudes_of_a_recording():
    """Of its magnitudes and of phases that are nowhere near its own, it makes audio that has these magnitudes."""
    convention, wav = MelConvention.espnet(), speech(1.0).float()
    mel = convention.extract(wav)
    wav = torch.nn.functional.pad(wav, (0, mel.shape[-1] * 256 - len(wav)))
    flipped = wav.flip(0)  # its magnitudes are those of the recording, flipped, and its phases fit them as well
    random_phases = _with_random_phases(wav, convention)
    found = resynthesize(wav[None], mel[None], convention)[0]
    scattered = resynthesize(random_phases[None], mel[None], convention)[0]
    assert _magnitude_error(found, wav) < -20 < _magnitude_error(scattered, wav) < _magnitude_error(random_phases, wav)
    backwards = resynthesize(flipped[None], convention.extract(flipped)[None, :, : mel.shape[-1]], convention)[0]
    assert _magnitude_error(backwards, flipped) < -15


def _spectrum(wav):
    return torch.stft(wav, 1024, 256, window=torch.hann_window(1024, dtype=wav.dtype), return_complex=True)


def _with_random_phases(wav, convention):
    angle = 2 * math.pi * torch.rand(_spectrum(wav).shape, generator=torch.Generator().manual_seed(0))
    spectrum = torch.polar(_spectrum(wav).abs(), angle)
    return torch.istft(spectrum, 1024, 256, window=torch.hann_window(1024), length=len(wav))


def _magnitude_error(found, wanted):
    """In dB of the wanted magnitudes' energy."""
    found, wanted = _spectrum(found.float()).abs(), _spectrum(wanted.float()).abs()
    return float(10 * ((found - wanted).square().sum() / wanted.square().sum()).log10())


def test_the_phase_of_a_steady_tone_advances_by_its_frequency():
    convention, frequency = MelConvention.espnet(), 1000.0
    tone = 0.3 * torch.sin(2 * math.pi * frequency * torch.arange(22_050) / 22_050)
    log_magnitude = torch.stft(tone, 1024, 128, window=torch.hann_window(1024), return_complex=True).abs().log().T[None]
    count, bins = log_magnitude.shape[1] - 2, log_magnitude.shape[2]
    start = torch.zeros(1, bins)
    resting = resynthesis.PULL
    resynthesis.PULL = 0.0  # nothing but the gradients
    try:
        phases = integrated_phases(log_magnitude, torch.zeros(1, count, bins), start, convention, 128)
    finally:
        resynthesis.PULL = resting
    peak = round(frequency * 1024 / 22_050)
    advance = torch.remainder(phases[0, 21:100, peak] - phases[0, 20:99, peak], 2 * math.pi)
    expected = (2 * math.pi * frequency * 128 / 22_050) % (2 * math.pi)
    torch.testing.assert_close(advance, torch.full_like(advance, expected), atol=0.02, rtol=0)


@pytest.mark.parametrize("frames", [1, 7, 50])
def test_blocks_make_no_difference(frames, monkeypatch):
    convention = MelConvention.espnet()
    mel, wav = pair(convention, 1.2)
    whole = resynthesize(wav[None], mel[None], convention)[0]
    monkeypatch.setattr(resynthesis, "BLOCK_FRAMES", frames)
    assert snr(resynthesize(wav[None], mel[None], convention)[0], whole) > 60


@pytest.mark.parametrize("size", [1, 9, 1000])
def test_a_stream_is_the_call(vocoder, mel, size):
    whole = vocoder(mel, seed=3, refine=RESYNTHESIS)
    pieces = list(vocoder.stream(mel.split(size, dim=1), seed=3, refine=RESYNTHESIS))
    found = torch.cat(pieces)
    assert found.shape == whole.shape and snr(found, whole) > 40
    assert size == 1000 or len(pieces) > 3


def test_a_long_piece_of_a_stream_is_computed_in_short_ones(vocoder, mel, monkeypatch):
    monkeypatch.setattr("melglow_plugin.vocoder.CHUNK_FRAMES", 16)
    windows, compute = [], resynthesis.Resynthesis.__call__

    def seen(self, wav, mel, *rest, **named):
        windows.append(mel.shape[-1])
        return compute(self, wav, mel, *rest, **named)

    monkeypatch.setattr(resynthesis.Resynthesis, "__call__", seen)
    found = torch.cat(list(vocoder.stream([mel], seed=3, refine=RESYNTHESIS)))
    assert max(windows) <= 16 + vocoder.flow.context_frames + 2 * resynthesis.Resynthesis(SMALL).margin < mel.shape[1]
    assert snr(found, vocoder(mel, seed=3, refine=RESYNTHESIS)) > 40


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_torchs_default_dtype_does_not_reach_the_audio(vocoder, mel, dtype):
    expected = vocoder(mel, seed=3, refine=RESYNTHESIS)
    torch.set_default_dtype(dtype)
    try:
        found = vocoder(mel, seed=3, refine=RESYNTHESIS)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("postfilter", "frames"), [(None, 3), (Postfilter(4), 5)])
def test_audio_comes_before_the_mel_ends(postfilter, frames):
    delay, seen = SMALL.n_fft // SMALL.hop_length + frames, 0  # as the docstring of Vocoder.stream says
    columns = torch.rand(1 + 64, 40)
    mel = columns[:1]

    def arriving():
        nonlocal seen
        for column in columns.split(1, dim=1):
            seen += 1
            yield column

    convention = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=1)
    first = next(resynthesis.resynthesized(arriving(), convention, postfilter))
    assert first.shape == (1 + 64, 1) and seen == delay + 1 and torch.equal(first[:1], mel[:, :1])


@pytest.mark.parametrize("refine", [0, 1, RESYNTHESIS])
@pytest.mark.parametrize("name", POSSIBLE)
def test_look_ahead_is_what_a_stream_waits_for(name, refine):
    convention, seen = CONVENTIONS[name], 0
    sizes = {"n_mels": convention.n_mels, "hop_length": convention.hop_length, "postfilter_channels": 4}
    flow = MelGlow(**sizes, squeeze_factor=convention.hop_length, n_flows=2, channels=4, n_layers=1)
    vocoder = Vocoder(stir(flow, 0.02), convention)

    def arriving():
        nonlocal seen
        for column in torch.zeros(convention.n_mels, 60).split(1, dim=1):
            seen += 1
            yield column

    next(vocoder.stream(arriving(), seed=1, refine=refine))
    assert seen == 1 + look_ahead(flow, convention, refine)


def test_padding_and_neighbours_make_no_difference(vocoder, mel):
    batch = torch.stack([mel, mel.flip(1), mel])
    found = vocoder(batch, [mel.shape[1], 30, 2], seed=5, refine=RESYNTHESIS)
    for row, own, frames in zip(found, batch, [mel.shape[1], 30, 2], strict=True):
        alone = vocoder(own[:, :frames], seed=5, refine=RESYNTHESIS)
        assert snr(row[: frames * 64], alone) > 40 and not row[frames * 64 :].any()


def test_the_same_call_gives_the_same_samples_and_another_seed_others(vocoder, mel):
    first, again, other = (vocoder(mel, seed=seed, refine=RESYNTHESIS) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_the_shortest_mels(vocoder, mel, frames):
    wav = vocoder(mel[:, :frames], seed=0, refine=RESYNTHESIS)
    assert wav.shape == (frames * 64,) and torch.isfinite(wav).all()


def test_silence_stays_silence():
    convention = MelConvention.espnet()
    wav = torch.zeros(1, 20 * 256)
    mel = convention.extract(wav)[..., :20]
    assert resynthesize(wav, mel, convention).abs().max() < 1e-4


def test_what_is_no_refinement_and_what_the_window_forbids():
    with pytest.raises(ValueError, match="refine 'resynthesise' is no whole number"):
        check_refine("resynthesise", SMALL)
    with pytest.raises(ValueError, match="refine 'resynthesis' needs a window hann or hamming, the mel's is none"):
        check_refine(RESYNTHESIS, MelConvention.espnet(window=None, n_fft=256, hop_length=64, n_mels=20))


def test_files_of_a_model_carry_it(vocoder, mel, tmp_path):
    carrying = Vocoder(vocoder.flow, SMALL, refine=RESYNTHESIS)
    expected = carrying(mel, seed=0)
    assert torch.equal(expected, vocoder(mel, seed=0, refine=RESYNTHESIS))
    carrying.save_pretrained(tmp_path / "folder")
    to_espnet(carrying.checkpoint, tmp_path / "espnet")
    to_coqui(carrying.checkpoint, tmp_path / "coqui")
    for path in ("folder", "espnet/checkpoint.pkl", "coqui/model.pth"):
        back = any_file.load(tmp_path / path)
        assert back.refine == RESYNTHESIS
        assert torch.equal(Vocoder.from_checkpoint(back)(mel, seed=0), expected)
