"""Noise and refinement by fused kernels against torch's operations: on a GPU where there is one, else interpreted."""

import pytest
import torch
from conftest import interpreted, speech

from melglow_plugin import MelConvention
from melglow_plugin.inference.noise import noise_rows, scaled_noise
from melglow_plugin.inference.refine import refine
from melglow_plugin.model.kernels import choice
from melglow_plugin.model.kernels.choice import use_fused

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONVENTIONS = {
    "espnet": MelConvention.espnet(n_fft=64, hop_length=16, n_mels=10),
    "no padding": MelConvention.waveglow(n_fft=64, win_length=64, hop_length=16, n_mels=10, center=False),
    "a hop that does not divide the FFT": MelConvention.espnet(n_fft=60, hop_length=16, n_mels=10, win_length=50),
    "padding of zeros": MelConvention.waveglow(n_fft=64, win_length=64, hop_length=16, n_mels=10, pad_mode="constant"),
}


@pytest.fixture(scope="module")
def kernels():
    with interpreted("inference.noise_triton", "inference.refine_triton") as modules:
        yield modules


@pytest.fixture
def fused(kernels):
    use_fused(True)
    yield
    use_fused(None)


@pytest.mark.filterwarnings("ignore:overflow")  # numpy tells of products that wrap
@pytest.mark.parametrize("start", [0, 5000])
def test_noise_is_the_same(fused, start):
    seeds = torch.tensor([0, 7, -(2**63), 2**63 - 1], device=DEVICE)
    found = scaled_noise(seeds, torch.tensor(start, device=DEVICE), torch.tensor(0.5, device=DEVICE), 1500)
    torch.testing.assert_close(found, 0.5 * noise_rows(seeds, start, 1500), atol=1e-6, rtol=0)


@pytest.mark.parametrize("lengths", [None, [30, 11, 2]])
@pytest.mark.parametrize("name", CONVENTIONS)
@torch.no_grad()
def test_refinement_is_the_same(fused, name, lengths):
    convention = CONVENTIONS[name]
    mel = convention.extract(speech(0.03).float())[:, :30].expand(3, -1, -1).to(DEVICE)
    wav = 0.1 * torch.randn(3, mel.shape[-1] * 16, device=DEVICE)
    ends = None if lengths is None else torch.tensor(lengths, device=DEVICE)
    found = refine(wav, mel, convention, 2, ends)
    use_fused(False)
    expected = refine(wav, mel, convention, 2, ends)
    for row, wanted, end in zip(found, expected, lengths or [mel.shape[-1]] * 3, strict=True):
        assert not torch.equal(wanted, wav[0])
        torch.testing.assert_close(row[: end * 16], wanted[: end * 16], atol=1e-6, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 3])
@torch.no_grad()
def test_a_wav_too_short_to_reflect(fused, frames):
    convention = CONVENTIONS["espnet"]
    wav, mel = 0.1 * torch.randn(1, frames * 16, device=DEVICE), torch.full((1, 10, frames), -2.0, device=DEVICE)
    found = refine(wav, mel, convention, 1)
    use_fused(False)
    torch.testing.assert_close(found, refine(wav, mel, convention, 1), atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_kernel_of_refinement_that_does_not_compile_is_announced_and_replaced(kernels, monkeypatch):
    """It fails when it is called, not when it is imported."""

    def fails(*_, **__):
        raise RuntimeError("ptxas failed")

    convention = CONVENTIONS["espnet"]
    wav, mel = 0.1 * torch.randn(1, 30 * 16, device=DEVICE), torch.full((1, 10, 30), -2.0, device=DEVICE)
    use_fused(False)
    expected = refine(wav, mel, convention, 1)
    use_fused(None)
    monkeypatch.setattr(choice, "takes_fused", lambda *_: not choice._fused_failed)
    monkeypatch.setattr(kernels[1], "audio_of_frames", fails)
    with pytest.warns(UserWarning, match="ptxas failed"):
        found = refine(wav, mel, convention, 1)
    use_fused(None)
    torch.testing.assert_close(found, expected)
