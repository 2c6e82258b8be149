"""Refinement: nearer to the mel, the same in any company, and none where the flow itself is asked for."""

import copy
import json

import pytest
import torch
from conftest import speech, stir

from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.checkpoint.coqui import to_coqui
from melglow_plugin.checkpoint.espnet import to_espnet
from melglow_plugin.inference.refine import LARGEST_FALL, LARGEST_RISE, LARGEST_SHORTFALL, reach_frames, refine
from melglow_plugin.inference.sharpness import ROUNDS_BLURRED, ROUNDS_SHARP, rounds_of, sharpness
from melglow_plugin.training.objective import FlowObjective, LossConfig, smoothed

CONVENTIONS = {
    "espnet": MelConvention.espnet(),
    "hifigan": MelConvention.hifigan(),
    "a window shorter than the FFT": MelConvention.espnet(win_length=800),
    "a hop that does not divide the FFT": MelConvention.espnet(n_fft=1000, hop_length=240),
    "power": MelConvention.preset("constant_memory"),
    "pre-emphasis, clipped range": MelConvention.preset("wg_wavenet"),
    "no padding": MelConvention.waveglow(center=False),
    "statistics": MelConvention.espnet().to_dict() | {"mean": [-2.0] * 80, "std": [0.7] * 80},
}
CONVENTIONS["statistics"] = MelConvention.from_dict(CONVENTIONS["statistics"])
SMALL = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)


def pair(convention, seconds=0.7):
    """A recording's mel, and other audio of its length."""
    mel = convention.extract(speech(seconds))
    length = mel.shape[-1] * convention.hop_length
    noise = torch.randn(length, generator=torch.Generator().manual_seed(0))
    return mel, 0.05 * noise + 0.5 * torch.nn.functional.pad(speech(seconds), (0, length))[:length]


def distance(wav, mel, convention):
    found = convention.extract(wav)[:, : mel.shape[-1]]
    return ((found - mel[:, : found.shape[-1]]) * convention.nats_per_unit)[:, 4:-4].abs().mean()


@pytest.fixture(scope="module")
def vocoder():
    flow = stir(MelGlow(n_mels=20, hop_length=64, n_flows=2, channels=4, n_layers=2), 0.02)
    return Vocoder(flow, SMALL, refine=2)


@pytest.fixture(scope="module")
def mel():
    return SMALL.extract(speech(0.5).float())


@pytest.mark.parametrize("name", CONVENTIONS)
def test_every_round_comes_nearer_to_the_mel(name):
    convention = CONVENTIONS[name]
    mel, wav = pair(convention)
    off = [distance(refine(wav[None], mel[None], convention, rounds)[0], mel, convention) for rounds in (0, 1, 2, 8)]
    assert off[1] < 0.7 * off[0] and off[2] < off[1] and off[3] < off[2] and off[3] < 0.4 * off[0]


@pytest.mark.parametrize("name", ["espnet", "hifigan", "a hop that does not divide the FFT"])
def test_what_has_the_mel_already_stays(name):
    convention = CONVENTIONS[name]
    wav = speech(0.7)
    mel = convention.extract(wav)
    wav = torch.nn.functional.pad(wav, (0, convention.n_fft))[: mel.shape[-1] * convention.hop_length]
    middle = slice(2 * convention.n_fft, -2 * convention.n_fft)  # the recording's end is padded otherwise
    found = refine(wav[None], mel[None], convention, 3)[0]
    assert (found - wav)[middle].abs().max() < 1e-4


def test_no_round_changes_nothing():
    mel, wav = pair(SMALL)
    assert torch.equal(refine(wav[None], mel[None], SMALL, 0)[0], wav)


@pytest.mark.parametrize(("nats", "gain"), [(12, LARGEST_RISE * LARGEST_SHORTFALL), (-12, 1 / LARGEST_FALL)])
def test_a_round_changes_a_magnitude_by_no_more_than_it_may(nats, gain):
    convention = MelConvention.espnet(fmin=0, fmax=11_025)  # what lies outside of the bands stays as it is
    mel, wav = pair(convention)
    found = refine(wav[None], mel[None] + nats / convention.nats_per_unit, convention, 1)[0]
    assert found.square().mean().sqrt() / wav.square().mean().sqrt() == pytest.approx(gain, rel=0.05)


def test_gaps_of_a_frame_that_is_loud_enough_rise_less_than_a_frame_that_is_too_quiet():
    mel, _ = pair(SMALL)
    wav = torch.randn(1, mel.shape[-1] * 64) * 0.1
    level = SMALL.extract(wav[0])[:, : mel.shape[-1]]
    gap = level - 0.1
    gap[10] += 1.1  # 20 dB above what is there
    quiet = (refine(wav, level[None] + 1.5, SMALL, 1) / wav).abs().median()
    found = SMALL.extract(refine(wav, gap[None], SMALL, 1)[0])[:, : mel.shape[-1]]
    assert 10 < quiet < LARGEST_RISE * LARGEST_SHORTFALL + 1
    assert (found - level)[10].mean() < 0.6


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_a_few_frames_and_silence_are_refined_too(frames):
    for wav in (torch.zeros(1, frames * 64), torch.randn(1, frames * 64) * 0.1):
        found = refine(wav, torch.full((1, 20, frames), -3.0), SMALL, 3)
        assert found.shape == wav.shape and found.isfinite().all()


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "1", 10**6])
def test_no_other_number_of_rounds(vocoder, mel, wrong):
    for call in (lambda: vocoder(mel, refine=wrong), lambda: list(vocoder.stream([mel], refine=wrong)),
                 lambda: Vocoder(vocoder.flow, SMALL, refine=wrong)):  # fmt: skip
        with pytest.raises(ValueError, match="refine .* is no whole number from 0 to"):
            call()


def test_a_call_speaks_with_the_models_rounds_or_with_those_it_names(vocoder, mel):
    plain = vocoder(mel, seed=1, refine=0)
    z = vocoder.noise(1, 0.6, 1, mel.shape[-1])
    torch.testing.assert_close(plain, vocoder.flow.inverse(z, mel[None])[0].clamp(-1, 1))
    expected = refine(plain[None], mel[None], SMALL, 2)[0].clamp(-1, 1)
    assert torch.equal(vocoder(mel, seed=1), expected) and not torch.equal(expected, plain)
    assert torch.equal(vocoder(mel, seed=1, refine=2), expected)


def test_a_callers_autocast_changes_nothing(mel):
    wav = torch.randn(1, mel.shape[-1] * 64) * 0.1
    with torch.autocast("cpu", torch.bfloat16):
        found = refine(wav, mel[None], SMALL, 2)
    assert torch.equal(found, refine(wav, mel[None], SMALL, 2))


def test_a_latent_that_is_given_is_inverted_exactly(vocoder, mel):
    wav = speech(0.5).float()
    z = vocoder.encode(wav, mel)
    torch.testing.assert_close(vocoder(mel, z=z)[: len(wav)], wav, atol=1e-4, rtol=0)
    torch.testing.assert_close(vocoder(mel, z=z), vocoder.decode(z, mel).clamp(-1, 1))
    assert not torch.equal(vocoder(mel, z=z, refine=1), vocoder(mel, z=z))


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_a_padded_batch_equals_the_single_runs(vocoder, mel, rounds):
    mels = [mel, mel[:, :31], mel[:, 7:], mel[:, :3]]
    lengths = [m.shape[-1] for m in mels]
    padded = torch.nn.utils.rnn.pad_sequence([m.T for m in mels], batch_first=True, padding_value=-1.0).mT
    batch = vocoder(padded, lengths, seed=3, refine=rounds)
    for wav, one, frames in zip(batch, mels, lengths, strict=True):
        torch.testing.assert_close(wav[: frames * 64], vocoder(one, seed=3, refine=rounds), atol=1e-5, rtol=0)
        assert not wav[frames * 64 :].any()


@pytest.mark.parametrize("rounds", [1, 3])
def test_chunks_and_streams_equal_the_whole(vocoder, mel, rounds, monkeypatch):
    long = torch.cat([mel, mel.flip(-1), mel], dim=-1)
    whole = vocoder(long, seed=5, refine=rounds)
    for sizes in ((1,), (7, 50, 1), (1000,), (40,)):
        pieces, start = [], 0
        while start < long.shape[-1]:
            size = sizes[len(pieces) % len(sizes)]
            pieces.append(long[:, start : start + size])
            start += size
        joined = torch.cat(list(vocoder.stream(pieces, seed=5, refine=rounds)))
        torch.testing.assert_close(joined, whole, atol=1e-5, rtol=0)
    from melglow_plugin.inference.chunks import refine_in_chunks

    plain = vocoder(long, seed=5, refine=0)[None]
    for chunk in (16, 100):
        found = refine_in_chunks(plain, long[None], None, SMALL, rounds, chunk)
        torch.testing.assert_close(found[0].clamp(-1, 1), whole, atol=1e-5, rtol=0)


def test_a_stream_awaits_the_rounds(vocoder, mel):
    fed = 0

    def chunks():
        nonlocal fed
        for frame in range(mel.shape[-1]):
            fed += 1
            yield mel[:, frame : frame + 1]

    first = {}
    for rounds in (0, 1, 2):
        fed = 0
        next(vocoder.stream(chunks(), seed=0, context_frames=4, refine=rounds))
        first[rounds] = fed
    assert first == {rounds: 5 + reach_frames(SMALL, rounds) for rounds in (0, 1, 2)}
    assert reach_frames(SMALL, 2) == 2 * 256 // 64


def test_the_rounds_stay_with_the_model(vocoder, mel, tmp_path):
    expected = vocoder(mel, seed=2)
    vocoder.save_pretrained(tmp_path / "model")
    to_espnet(vocoder.checkpoint, tmp_path / "espnet")
    to_coqui(vocoder.checkpoint, tmp_path / "coqui")
    loaded = (
        Vocoder.from_pretrained(tmp_path / "model"),
        Vocoder.from_pretrained(tmp_path / "espnet" / "checkpoint.pkl"),
        Vocoder.from_pretrained(tmp_path / "coqui" / "model.pth"),
    )
    for other in loaded:
        assert other.refine == 2 and torch.equal(other(mel, seed=2), expected)


def test_a_folder_that_says_nothing_of_rounds_has_none(vocoder, tmp_path):
    vocoder.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["refine"]
    path.write_text(json.dumps(config))
    assert Vocoder.from_pretrained(tmp_path).refine == 0
    path.write_text(json.dumps(config | {"refine": -1}))
    with pytest.raises(ValueError, match=r"config.json: refine -1 is no whole number"):
        Vocoder.from_pretrained(tmp_path)


def objective_of(vocoder, mel, rounds, frames=16):
    wav = speech(0.5).float()[None, : frames * 64]
    objective = FlowObjective(SMALL, LossConfig(windows=(128,), refine=rounds))
    return objective(vocoder.flow, wav, mel[None, :, :frames], generator=torch.Generator().manual_seed(0))


def test_training_compares_refined_samples(vocoder, mel):
    (_, plain), (loss, refined) = objective_of(vocoder, mel, 0), objective_of(vocoder, mel, 2)
    assert refined["nll"] == plain["nll"] and refined["mel"] < 0.8 * plain["mel"]
    assert torch.isfinite(loss)


def test_crops_of_training_must_be_longer_than_their_ends(vocoder, mel):
    assert torch.isfinite(objective_of(vocoder, mel, 1, 8)[0])
    with pytest.raises(ValueError, match="refine 1: crops of 448 samples are shorter than two FFTs, 512"):
        objective_of(vocoder, mel, 1, 7)


def test_every_second_sample_of_training_is_compared_without_refinement(mel):
    objective, wavs = FlowObjective(SMALL, LossConfig(windows=(128,), refine=2)), speech(0.5).float()[: 3 * 1024]
    wavs, mels = wavs.view(3, -1), torch.stack([mel[:, first : first + 16] for first in (0, 4, 8)])
    refined = refine(wavs, mels, SMALL, 2)[:, 128:-128]
    cut = wavs[:, 128:-128]
    found, recording = objective._refined(wavs.requires_grad_(), wavs, mels, 2)
    found.square().sum().backward()
    assert torch.equal(recording, cut) and (wavs.grad.abs().amax(1) > 0).all()
    torch.testing.assert_close(found, torch.stack([refined[0], cut[1], refined[2]]))
    torch.testing.assert_close(objective._refined(wavs, wavs, mels, 1)[0], refined)


def test_a_share_of_the_mels_of_training_is_smoothed(vocoder, mel):
    batch = torch.randn(400, 20, 12, generator=torch.Generator().manual_seed(1))
    found = smoothed(batch, 0.3, torch.Generator().manual_seed(0))
    changed = (found != batch).flatten(1).any(1)
    assert 80 < changed.sum() < 160
    rough, before = (each[changed].diff(dim=1).square().mean() for each in (found, batch))
    assert rough < 0.6 * before and found[changed].diff(dim=2).square().mean() < 0.6 * before
    assert torch.equal(smoothed(batch, 0.0), batch)
    torch.testing.assert_close(smoothed(torch.full((8, 20, 12), -3.0), 1.0), torch.full((8, 20, 12), -3.0))


def test_what_validates_hears_the_mel_as_it_is(vocoder, mel):
    wav = speech(0.5).float()[None, : 16 * 64]
    objective = FlowObjective(SMALL, LossConfig(windows=(128,), mel_smoothing_prob=1.0))

    def nll(flow):
        generator = torch.Generator().manual_seed(0)
        return objective(flow, wav, mel[None, :, :16], spectral=False, generator=generator)[1]["nll"]

    assert nll(vocoder.flow.eval()) == objective_of(vocoder, mel, 0)[1]["nll"]
    assert nll(copy.deepcopy(vocoder.flow).train()) > nll(vocoder.flow)


def test_training_refuses_rounds_and_shares_that_are_none():
    with pytest.raises(ValueError, match="refine -1 is no whole number"):
        FlowObjective(SMALL, LossConfig(refine=-1))
    with pytest.raises(ValueError, match="mel_smoothing_prob 1.5 does not lie between 0 and 1"):
        FlowObjective(SMALL, LossConfig(mel_smoothing_prob=1.5))


BANDS = MelConvention.espnet(n_fft=1024, hop_length=64, n_mels=80)


@pytest.fixture(scope="module")
def of_80_bins():
    return Vocoder(stir(MelGlow(n_mels=80, hop_length=64, n_flows=2, channels=4, n_layers=2), 0.02), BANDS, refine=2)


def sharp_and_blurred():
    sharp = BANDS.extract(speech(0.4).float())
    return sharp, torch.nn.functional.avg_pool1d(sharp.T, 7, 1, 3).T


def test_auto_is_more_rounds_for_a_sharp_mel_than_for_a_blurred_one(of_80_bins):
    sharp, blurred = sharp_and_blurred()
    for mel, rounds in ((sharp, ROUNDS_SHARP), (blurred, ROUNDS_BLURRED)):
        assert torch.equal(of_80_bins(mel, seed=1, refine="auto"), of_80_bins(mel, seed=1, refine=rounds))


def test_auto_chooses_for_each_example_of_a_padded_batch(of_80_bins):
    sharp, blurred = sharp_and_blurred()
    mels, seeds = [blurred, sharp[:, :50], blurred[:, :40]], [3, 4, 5]
    padded = torch.nn.utils.rnn.pad_sequence([m.T for m in mels], batch_first=True, padding_value=9.0).mT
    lengths = [m.shape[-1] for m in mels]
    for wav, mel, seed in zip(of_80_bins(padded, lengths, seed=seeds, refine="auto"), mels, seeds, strict=True):
        end = mel.shape[-1] * 64
        torch.testing.assert_close(wav[:end], of_80_bins(mel, seed=seed, refine="auto"), atol=1e-5, rtol=0)
        assert not wav[end:].any()


def test_sharpness_does_not_depend_on_the_units_of_a_mel():
    sharp, _ = sharp_and_blurred()
    other = MelConvention.from_dict(BANDS.to_dict() | {"log_base": 2.0, "gain": 3.0, "shift": -1.0})
    found = [sharpness(mel[None], c) for mel, c in ((sharp, BANDS), (BANDS.convert(sharp, other), other))]
    torch.testing.assert_close(*found)


def test_auto_is_refused_where_there_is_no_whole_mel_or_no_measure(vocoder, of_80_bins, mel):
    few = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=5)
    with pytest.raises(ValueError, match="refine 'auto' needs mels of 6 bins, this one has 5"):
        rounds_of(mel[None, :5], few)
    sharp, _ = sharp_and_blurred()
    for call in (
        lambda: list(of_80_bins.stream([sharp], refine="auto")),
        lambda: of_80_bins(sharp, z=torch.zeros(sharp.shape[-1] * 64), refine="auto"),
        lambda: Vocoder(of_80_bins.flow, BANDS, refine="auto"),
        lambda: FlowObjective(BANDS, LossConfig(refine="auto")),
    ):
        with pytest.raises(ValueError, match="refine 'auto' is for calls with a whole mel; here it is a whole number"):
            call()
