"""Crops of a corpus in memory: whose, of which samples, at which pitch and level."""

from collections import Counter

import pytest
import soundfile
import torch
from conftest import speech

from melglow_plugin.training.corpus_voices import read_source
from melglow_plugin.training.device_corpus import DeviceCorpus, pitch_lengths
from melglow_plugin.training.resample import resample
from melglow_plugin.training.variation import VariationConfig, band_limited

RATE, SEGMENT = 8000, 600
AS_IS = VariationConfig()


@pytest.fixture
def folder(tmp_path):
    """Two speakers: a minute is a constant 0.25, the other's 15 seconds 0.5."""
    for speaker, level, seconds in (("a", 0.25, 30), ("a", 0.25, 30), ("b", 0.5, 15)):
        (tmp_path / speaker).mkdir(exist_ok=True)
        name = tmp_path / speaker / f"{len(list((tmp_path / speaker).iterdir()))}.flac"
        soundfile.write(name, torch.full((seconds * RATE,), level).numpy(), RATE)
    return tmp_path


def corpus_of(folder, variation=AS_IS, cap=1.0, seed=3, rate=RATE) -> DeviceCorpus:
    return DeviceCorpus(read_source(folder), rate, SEGMENT, variation, cap, torch.device("cpu"), seed)


def test_speakers_are_drawn_as_their_shares_say(folder):
    corpus = corpus_of(folder)
    levels = torch.cat([corpus.crops(step, 32)[:, 0] for step in range(128)])
    assert levels.unique().tolist() == pytest.approx([0.25, 0.5], abs=1e-4)
    assert (levels > 0.4).double().mean() == pytest.approx(1 / 3, abs=0.03)  # roots of 60 and 15 seconds


def test_the_same_step_has_the_same_crops_whatever_came_before(folder):
    run, again = corpus_of(folder, VariationConfig(level=12)), corpus_of(folder, VariationConfig(level=12))
    whole = [run.crops(step, 4) for step in range(70)]
    assert torch.equal(again.crops(69, 4), whole[69]) and torch.equal(again.crops(3, 4), whole[3])
    assert not torch.equal(whole[3], whole[4])
    assert not torch.equal(corpus_of(folder, VariationConfig(level=12), seed=4).crops(3, 4), whole[3])


def test_crops_are_the_recordings_samples(tmp_path):
    wav = speech(1.0, RATE).float()
    soundfile.write(tmp_path / "x.wav", wav.numpy(), RATE)
    crop = corpus_of(tmp_path).crops(0, 1)[0]
    windows = wav.unfold(0, SEGMENT, 1)
    assert (windows - crop).abs().amax(1).min() < 1e-4


def test_versions_are_the_recording_played_slower_and_faster(tmp_path):
    wav = speech(1.0, RATE).float()
    soundfile.write(tmp_path / "x.wav", wav.numpy(), RATE)
    assert pitch_lengths(0.15) == [17, 18, 19, 20, 21, 22, 23] and pitch_lengths(0.0) == [20]
    corpus = corpus_of(tmp_path, VariationConfig(pitch=0.15, share=0.5))
    versions = {length: resample(wav, 20, length).unfold(0, SEGMENT, 1) for length in pitch_lengths(0.15)}
    found = Counter()
    for step in range(40):
        for crop in corpus.crops(step, 4):
            found[min(versions, key=lambda length: (versions[length] - crop).abs().amax(1).min())] += 1
    assert set(found) == set(versions) and found[20] / 160 == pytest.approx(0.5, abs=0.12)


def test_a_share_of_the_crops_lacks_part_of_the_band(tmp_path):
    soundfile.write(tmp_path / "x.wav", 0.1 * torch.randn(4 * RATE).numpy(), RATE)
    corpus = corpus_of(tmp_path, VariationConfig(band=0.3))
    crops = torch.cat([corpus.crops(step, 16) for step in range(32)])
    top = torch.fft.rfft(crops)[:, -60:].abs().mean(1)  # above 0.4 of the sample rate
    assert (top < 0.1 * top.median()).double().mean() == pytest.approx(0.3, abs=0.08)
    torch.manual_seed(0)
    wav = torch.randn(2, 600)
    place = type("", (), {"random": lambda: 0.0, "uniform": lambda low, high: (low + high) / 2})
    found = band_limited(wav, torch.tensor([0.01, -1.0]), torch.tensor([0.27, 1.0]))
    torch.testing.assert_close(found[0], VariationConfig(band=0.5).limited(wav[0], place), rtol=0, atol=1e-5)
    torch.testing.assert_close(found[1], wav[1], rtol=0, atol=1e-5)


def test_levels_vary_up_to_full_scale(folder):
    corpus = corpus_of(folder, VariationConfig(level=20))
    levels = torch.cat([corpus.crops(step, 32)[:, 0] for step in range(64)])
    assert levels.max() <= 0.991 and levels.max() > 0.9 and levels.min() < 0.04


def test_a_higher_rate_is_converted_and_a_lower_one_refused(tmp_path):
    soundfile.write(tmp_path / "x.wav", speech(1.0, 2 * RATE).numpy(), 2 * RATE)
    assert corpus_of(tmp_path).seconds == pytest.approx({tmp_path.name: 1.0})
    with pytest.raises(ValueError, match=r"x\.wav has 16000 Hz, wanted 22050 Hz or more"):
        corpus_of(tmp_path, rate=22_050)


def test_recordings_without_a_crop_are_left_out(tmp_path):
    soundfile.write(tmp_path / "x.wav", torch.zeros(SEGMENT - 1).numpy(), RATE)
    with pytest.raises(ValueError, match="none of 1 recordings has the 600 samples of a crop"):
        corpus_of(tmp_path)
