import math
from random import Random

import numpy as np
import pytest
import torch

from melglow_plugin import MelConvention
from melglow_plugin.training.crops import segment_samples
from melglow_plugin.training.variation import VariationConfig, at_speed, varied_crop

RATE = 22_050


def tone(frequency, samples=8000):
    return torch.sin(2 * math.pi * frequency * torch.arange(samples, dtype=torch.float64) / RATE)


@pytest.mark.parametrize("speed", [1 / 1.15, 1.0, 1.07, 1.15])
@pytest.mark.parametrize("frequency", [100.0, 1000.0, 7000.0])
def test_a_tone_is_moved_by_the_speed(speed, frequency):
    found = at_speed(tone(frequency), speed, 100.5, 4000)
    time = (100.5 + speed * torch.arange(4000, dtype=torch.float64)) / RATE
    assert (found - torch.sin(2 * math.pi * frequency * time)).abs().max() < 0.005


def test_speed_one_is_the_recording():
    wav = tone(440)
    torch.testing.assert_close(at_speed(wav, 1.0, 50, 1000), wav[50:1050])


def test_what_would_lie_above_half_the_rate_is_left_out():
    assert at_speed(tone(10_500), 1.15, 200, 4000).abs().max() < 0.02


def test_outside_the_recording_is_silence():
    assert not at_speed(torch.ones(100), 1.0, 200, 50).any()


def test_levels_are_uniform_in_decibels_and_never_clip():
    variation, place = VariationConfig(level=12), Random(0)
    wav = torch.tensor([0.1, -0.3])
    peaks = [float(variation.levelled(wav, place).abs().max()) for _ in range(2000)]
    assert 0.3 * 10 ** (-12 / 20) <= min(peaks) < 0.08
    assert max(peaks) == pytest.approx(0.99)
    assert sum(peak < 0.3 for peak in peaks) / 2000 == pytest.approx(0.5, abs=0.05)


def test_a_full_scale_recording_is_only_turned_down():
    wav = torch.tensor([1.0, -1.0])
    assert max(float(VariationConfig(level=12).levelled(wav, Random(i)).max()) for i in range(50)) <= 1.0


def test_speeds_lie_within_their_range_and_share():
    variation, place = VariationConfig(pitch=0.15, share=0.4), Random(0)
    speeds = [variation.draw_speed(place) for _ in range(2000)]
    changed = [speed for speed in speeds if speed != 1]
    assert len(changed) / 2000 == pytest.approx(0.4, abs=0.05)
    assert 1 / 1.15 <= min(changed) < 0.88 and 1.13 < max(changed) <= 1.15
    assert sum(map(math.log, changed)) / len(changed) == pytest.approx(0, abs=0.01)


def test_nothing_varies_by_default():
    wav = torch.tensor([0.2])
    assert VariationConfig().levelled(wav, Random(0)) is wav and VariationConfig().draw_speed(Random(0)) == 1


def test_a_limited_band_is_empty_outside_and_whole_inside():
    variation, noise = VariationConfig(band=1.0), torch.randn(16_384, generator=torch.Generator().manual_seed(0))
    before = torch.fft.rfft(noise).abs().square()
    for seed in range(10):
        after = torch.fft.rfft(variation.limited(noise, Random(seed))).abs().square()
        share = [float(after[slice(*each)].sum() / before[slice(*each)].sum()) for each in ((600, 2000), (7000, None))]
        assert share[0] == pytest.approx(1, abs=0.02) and share[1] < 0.001
    assert VariationConfig(band=0.3).limited(noise, Random(0)) is noise


@pytest.mark.parametrize("field", [{"level": -1.0}, {"pitch": 0.6}, {"share": 1.5}, {"band": -0.1}])
def test_values_out_of_range_are_refused(field):
    with pytest.raises(ValueError, match="variation_conf"):
        VariationConfig(**field)


def test_a_varied_crop_lies_within_the_recording():
    variation, place = VariationConfig(pitch=0.15, share=1.0), Random(0)
    wav = torch.ones(5000)
    for _ in range(50):
        crop = varied_crop(wav, 4000, variation, place)
        assert crop.shape == (4000,) and crop[100:-100].sub(1).abs().max() < 0.01
    assert varied_crop(torch.ones(4000), 4000, VariationConfig(), place) is None
    short = [varied_crop(wav[:4100], 4000, variation, place) for _ in range(50)]
    assert any(each is None for each in short) and any(each is not None for each in short)


def test_a_crop_of_the_trainer_varies_in_training_alone():
    task = pytest.importorskip("melglow_plugin.espnet.task")
    wav = 0.2 * tone(300, 30_000).float().numpy()
    variation = VariationConfig(level=12, pitch=0.15, share=1.0)
    train = task.Crop(MelConvention(), 16, True, variation)
    crops = [train("a", wav)["speech"] for _ in range(10)]
    levels = [float(crop.square().mean().sqrt()) for crop in crops]
    crossings = [int((crop[1:] * crop[:-1] < 0).sum()) for crop in crops]
    assert max(levels) > 2 * min(levels) and max(crossings) > 1.1 * min(crossings)
    assert {len(crop) for crop in crops} == {segment_samples(MelConvention(), 16)}
    valid = task.Crop(MelConvention(), 16, False, variation)
    assert torch.equal(valid("a", wav)["speech"], task.Crop(MelConvention(), 16, False)("a", wav)["speech"])
    feats = np.zeros((MelConvention().n_frames(len(wav)), 80), dtype=np.float32)
    with pytest.raises(ValueError, match="no variation_conf"):
        train("a", wav, feats)
