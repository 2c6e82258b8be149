import pytest
import torch
from conftest import speech

from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.training.crops import cut, dequantised, segment_samples, wav_and_mel

KINDS = {
    "centred": lambda hop: MelConvention.espnet(hop_length=hop),
    "padded with zeros": lambda hop: MelConvention.coqui({"hop_length": hop, "stft_pad_mode": "constant"}),
    "half a hop later": lambda hop: MelConvention.hifigan(hop_size=hop),
    "not padded": lambda hop: MelConvention.espnet(hop_length=hop, center=False),
}
FRAMES = 8


@pytest.fixture(params=[200, 256, 300])
def hop(request):
    return request.param


@pytest.fixture(params=KINDS)
def convention(request, hop):
    return KINDS[request.param](hop)


@pytest.fixture
def wav():
    return speech(0.4).float()


def places(convention, wav):
    """First frame of a crop at the start, in the middle and at the end."""
    last = convention.n_frames(len(wav)) - FRAMES
    return [0, 1, last // 2, last - 1, last]


def test_mel_of_a_crop_is_that_of_the_recording(convention, wav):
    whole = convention.extract(wav)
    for start in places(convention, wav):
        _, mel = wav_and_mel(cut(wav, convention, FRAMES, start)[None], convention, FRAMES)
        torch.testing.assert_close(mel[0], whole[:, start : start + FRAMES], rtol=0, atol=1e-6)


def test_wav_of_a_crop_is_that_of_the_recording(convention, wav):
    hop = convention.hop_length
    for start in places(convention, wav):
        crop, _ = wav_and_mel(cut(wav, convention, FRAMES, start)[None], convention, FRAMES)
        expected = wav[start * hop : (start + FRAMES) * hop]  # the last frame may reach behind the end
        assert crop.shape == (1, FRAMES * hop) and len(expected) > (FRAMES - 1) * hop
        assert crop[0, : len(expected)].equal(expected)


@pytest.mark.parametrize("frames", [1, 2, 20])
def test_a_segment_has_the_samples_foretold(convention, wav, frames):
    for start in (0, convention.n_frames(len(wav)) - frames):
        segment = cut(wav, convention, frames, start)
        assert len(segment) == segment_samples(convention, frames)
        crop, mel = wav_and_mel(segment[None], convention, frames)
        assert crop.shape[1] == frames * convention.hop_length and mel.shape[-1] == frames


def test_pre_emphasis_is_exact_or_refused(wav):
    convention = MelConvention.coqui({"preemphasis": 0.97})
    for start in places(convention, wav):
        try:
            segment = cut(wav, convention, FRAMES, start)
        except ValueError as refusal:
            assert "preemphasis 0.97" in str(refusal)
            continue
        _, mel = wav_and_mel(segment[None], convention, FRAMES)
        expected = convention.extract(wav)[:, start : start + FRAMES]
        torch.testing.assert_close(mel[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("samples", [6001, 6599])
def test_a_hop_above_half_the_window_gives_whole_segments_or_is_refused(samples):
    convention = MelConvention.espnet(hop_length=600)
    try:
        segment = cut(torch.randn(samples), convention, 3, convention.n_frames(samples) - 3)
    except ValueError as refusal:
        assert "hop_length 600" in str(refusal)
        return
    assert len(segment) == segment_samples(convention, 3)


def test_crops_of_a_batch_are_those_of_single_recordings(wav):
    convention = MelConvention.espnet()
    segments = torch.stack([cut(wav, convention, FRAMES, start) for start in (0, 5)])
    batch = wav_and_mel(segments, convention, FRAMES)
    for i in range(2):
        for together, alone in zip(batch, wav_and_mel(segments[i : i + 1], convention, FRAMES), strict=True):
            torch.testing.assert_close(together[i], alone[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("start", [-1, 3])
def test_frames_outside_the_recording_are_refused(start):
    convention = MelConvention.espnet()
    wav = torch.randn(9 * 256)  # 10 frames
    with pytest.raises(ValueError, match=f"{start} to {start + 8} .* 10"):
        cut(wav, convention, 8, start)
    cut(wav, convention, 8, 2)


def test_a_recording_shorter_than_a_crop_is_refused():
    with pytest.raises(ValueError, match=r"0 to 30 .* 10"):
        cut(torch.randn(9 * 256), MelConvention.espnet(), 30, 0)


# Dequantisation

HALF_LSB = 0.5 / 2**15


def test_noise_stays_within_half_a_step_and_fills_it():
    noise = dequantised(torch.zeros(2, 20_000, dtype=torch.float64))
    assert noise.abs().max() <= HALF_LSB
    assert noise.max() > 0.99 * HALF_LSB and noise.min() < -0.99 * HALF_LSB
    assert noise.mean().abs() < 0.02 * HALF_LSB


def test_noise_rounds_back_to_the_same_integers():
    integers = torch.arange(-32_768, 32_768, dtype=torch.float64)
    assert (dequantised(integers / 2**15) * 2**15).round().equal(integers)


def test_same_generator_same_noise():
    first, second = (dequantised(torch.zeros(9), torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.equal(second) and not first.equal(dequantised(torch.zeros(9)))
