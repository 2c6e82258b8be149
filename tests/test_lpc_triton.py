"""Linear prediction's fused kernels against ``LinearPrediction``: on a GPU where there is one, else interpreted."""

import pytest
import torch
from conftest import interpreted, speech

from melglow_plugin import MelConvention
from melglow_plugin.model.linear_prediction import LinearPrediction

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONVENTION = MelConvention.espnet(n_fft=64, hop_length=16, n_mels=10)


@pytest.fixture(scope="module")
def kernels():
    with interpreted("model.kernels.lpc") as module:
        yield module


@pytest.fixture(params=[4, 5, 16])
def lpc(request):
    lpc = LinearPrediction(10, 16, request.param)
    lpc.set_bands(*CONVENTION.band_powers())
    lpc.reach_frames = 5  # of the interpreter's patience
    return lpc.to(DEVICE)


@pytest.fixture
def mel():
    mel = CONVENTION.extract(speech(0.02).float())[:, :9]
    return torch.stack([mel, mel.flip(-1) - 1]).to(DEVICE)


def test_the_filters_are_the_same(kernels, lpc, mel):
    found, expected = kernels.condition(lpc, mel), lpc.condition(mel)
    torch.testing.assert_close(found[:3], expected[:3], atol=1e-9, rtol=1e-9)


def test_a_mel_out_of_bounds_gives_finite_filters(kernels, lpc, mel):
    for value in (-1e6, 1e6):
        assert all(part.isfinite().all() for part in kernels.condition(lpc, torch.full_like(mel, value))[:3])


def test_synthesis_is_the_same(kernels, lpc, mel):
    z = torch.randn(2, mel.shape[-1] * 16, dtype=torch.float64, device=DEVICE)
    filters = lpc.condition(mel)
    expected = lpc.inverse(z, None, cond=filters)
    found = kernels.inverse(lpc, z, filters)
    assert found.dtype == torch.float32 and expected.abs().max() > 1e-3
    torch.testing.assert_close(found.double(), expected, atol=1e-6 * float(expected.abs().max()), rtol=0)
