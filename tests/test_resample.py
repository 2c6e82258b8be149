"""Resampling: soxr and scipy are referees, and a sine must stay a sine."""

import math

import numpy as np
import pytest
import torch
from conftest import speech

from melglow_plugin.training import resample as module
from melglow_plugin.training.resample import resample

PAIRS = [(44_100, 22_050), (48_000, 22_050), (22_050, 24_000), (20, 17), (20, 23), (16_000, 48_000)]


@pytest.mark.parametrize("old, new", PAIRS)
def test_soxr_agrees_below_the_rolloff(old, new):
    soxr = pytest.importorskip("soxr")
    wav = speech(0.6, 44_100)  # harmonics up to 4 kHz, noise 50 dB below
    found = resample(wav, old, new).numpy()
    expected = soxr.resample(wav.numpy(), old, new, "VHQ")
    assert abs(len(found) - len(expected)) <= 1
    inner = slice(200, min(len(found), len(expected)) - 200)
    error = found[inner] - expected[inner]
    # What they treat otherwise is the noise between rolloff and half the rate.
    assert np.sqrt(np.mean(error**2)) < 0.3 * 1e-3


@pytest.mark.parametrize("old, new", PAIRS)
def test_scipy_agrees_on_a_band_that_both_pass(old, new):
    signal = pytest.importorskip("scipy.signal")
    time = np.arange(6000) / old
    wav = sum(np.sin(2 * np.pi * f * min(old, new) * time) / 3 for f in (0.01, 0.13, 0.31))
    found = resample(torch.from_numpy(wav), old, new).numpy()
    expected = signal.resample_poly(wav, new, old, window=("kaiser", 12.0))
    assert len(found) == len(expected)
    inner = slice(len(found) // 4, 3 * len(found) // 4)
    assert np.abs(found[inner] - expected[inner]).max() < 2e-3  # of scipy's own short filter


@pytest.mark.parametrize("old, new", PAIRS)
def test_a_sine_stays_a_sine(old, new):
    frequency = 0.4 * min(old, new)
    wav = torch.sin(2 * math.pi * frequency / old * torch.arange(8000, dtype=torch.float64))
    found = resample(wav, old, new)
    expected = torch.sin(2 * math.pi * frequency / new * torch.arange(len(found), dtype=torch.float64))
    middle = slice(len(found) // 4, 3 * len(found) // 4)
    assert (found[middle] - expected[middle]).abs().max() < 2e-4


@pytest.mark.parametrize("old, new", [(48_000, 22_050), (20, 17)])
def test_what_the_new_rate_cannot_hold_is_left_out(old, new):
    frequency = 0.56 * new  # would be heard as 0.44 * new
    wav = torch.sin(2 * math.pi * frequency / old * torch.arange(8000, dtype=torch.float64))
    found = resample(wav, old, new)
    assert found[200:-200].abs().max() < 1e-3


def test_chunks_and_batches_change_nothing(monkeypatch):
    wav = torch.randn(2, 3, 5000, dtype=torch.float64)
    whole = resample(wav, 20, 23)
    monkeypatch.setattr(module, "CHUNK", 700)
    torch.testing.assert_close(resample(wav, 20, 23), whole, rtol=0, atol=1e-13)
    torch.testing.assert_close(resample(wav[1, 2], 20, 23), whole[1, 2], rtol=0, atol=1e-13)


def test_the_same_rate_is_the_same_wav_and_none_is_refused():
    wav = torch.randn(100)
    assert resample(wav, 22_050, 22_050) is wav
    with pytest.raises(ValueError, match="rates 0 and 5 Hz"):
        resample(wav, 0, 5)
