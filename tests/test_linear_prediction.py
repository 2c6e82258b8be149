"""Linear prediction from the mel: filters, exact inverse, determinant, beginnings, memory, every convention's power."""

import math

import pytest
import torch
from conftest import speech

from melglow_plugin import MelConvention, MelGlow
from melglow_plugin.mel.systems import PRESETS
from melglow_plugin.model.linear_prediction import LinearPrediction, NoPrediction, Prediction

CONVENTION = MelConvention.espnet()


def made_for(convention: MelConvention, order: int = 32) -> LinearPrediction:
    prediction = LinearPrediction(convention.n_mels, convention.hop_length, order)
    prediction.set_bands(*convention.band_powers())
    return prediction.double()


def spoken(seconds: float = 1.0, convention: MelConvention = CONVENTION) -> tuple[torch.Tensor, torch.Tensor]:
    """A sound like speech (1, T) in whole hops, and its mel (1, M, F)."""
    wav = speech(seconds, convention.sample_rate)
    frames = len(wav) // convention.hop_length
    return wav[None, : frames * convention.hop_length], convention.extract(wav)[None, :, :frames]


def residual_of(prediction: LinearPrediction, wav: torch.Tensor, filters: Prediction) -> torch.Tensor:
    return prediction(wav, None, cond=filters)[0]


def wav_of(prediction: LinearPrediction, residual: torch.Tensor, filters: Prediction) -> torch.Tensor:
    return prediction.inverse(residual, None, cond=filters)


def autocorrelations(prediction: LinearPrediction, mel: torch.Tensor) -> torch.Tensor:
    """(B, F, order + 1), with the power of rounding, straight from the definition."""
    power = (mel * prediction.log_power[:, None]).exp()
    r = torch.einsum("km,bmf->bfk", prediction.band_autocorrelations, power)
    r[..., 0] += prediction.QUANTISATION
    return r


@pytest.mark.parametrize(("hop", "order"), [(256, 32), (256, 1), (240, 24), (300, 16), (64, 64), (127, 16)])
@pytest.mark.parametrize("level", [0.0, 1.0, 3.0])
def test_the_inverse_is_exact_at_any_hop_and_however_wild_the_mel(hop, order, level):
    convention = MelConvention.espnet(n_mels=40, hop_length=hop)
    prediction = made_for(convention, order)
    filters = prediction.condition(level * torch.randn(2, 40, 9, dtype=torch.float64) - 2)
    wav = 0.1 * torch.randn(2, 9 * hop, dtype=torch.float64)
    again = wav_of(prediction, residual_of(prediction, wav, filters), filters)
    torch.testing.assert_close(again, wav, rtol=0, atol=1e-9)


def test_speech_comes_back_within_a_rounding_of_float32():
    wav, mel = spoken(3.0)
    prediction = made_for(CONVENTION)
    filters = prediction.condition(mel)
    again = wav_of(prediction, residual_of(prediction, wav.float(), filters), filters)
    assert again.dtype == torch.float32
    assert (again - wav).abs().max() < 2e-7


def test_the_filters_solve_the_normal_equations():
    mel = spoken(0.2)[1]
    prediction = made_for(CONVENTION, 12)
    filters, r = prediction.condition(mel), autocorrelations(prediction, mel)
    lag = (torch.arange(12)[:, None] - torch.arange(12)).abs()
    expected = torch.linalg.solve(r[..., lag], r[..., 1:])
    widened = expected * prediction.WIDENING ** torch.arange(1, 13)
    torch.testing.assert_close(filters.coefficients, widened, rtol=1e-6, atol=1e-9)
    error = r[..., 0] - (expected * r[..., 1:]).sum(-1)
    torch.testing.assert_close(filters.log_gain, -0.5 * error.log(), rtol=0, atol=1e-6)


def test_the_inverse_is_the_recursion_sample_by_sample():
    prediction = made_for(CONVENTION, 8)
    filters = prediction.condition(spoken(0.1)[1][..., :3])
    residual = torch.randn(1, 3 * 256, dtype=torch.float64)
    wav = [0.0] * 8
    for t in range(3 * 256):
        a, log_gain = filters.coefficients[0, t // 256], filters.log_gain[0, t // 256]
        past = torch.tensor(wav[-8:], dtype=torch.float64).flip(0)
        if t < 8:
            row = filters.start[0, t]
            wav.append(float((residual[0, t] - (row[:t] * torch.tensor(wav[8:], dtype=torch.float64)).sum()) / row[t]))
        else:
            wav.append(float(residual[0, t] * (-log_gain).exp() + (a * past).sum()))
    torch.testing.assert_close(
        wav_of(prediction, residual, filters)[0], torch.tensor(wav[8:], dtype=torch.float64), rtol=0, atol=1e-9
    )


def test_log_det_is_that_of_the_jacobian():
    prediction = LinearPrediction(5, 16, 4).double()
    prediction.set_bands(torch.linspace(1, 2, 5), torch.rand(5, 33))
    filters = prediction.condition(torch.randn(1, 5, 3, dtype=torch.float64))
    jacobian = torch.autograd.functional.jacobian(
        lambda w: residual_of(prediction, w[None], filters)[0], torch.randn(48).double()
    )
    expected = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(filters.log_det[0], expected, rtol=0, atol=1e-9)


def test_what_is_left_of_speech_is_flat_and_of_unit_level():
    wav, mel = spoken(2.0)
    prediction = made_for(CONVENTION)
    residual = prediction(wav, mel)[0]

    def flatness(x):  # geometric over arithmetic mean of the power spectrum, 1 for white noise
        power = torch.stft(x[0], 512, window=torch.hann_window(512).double(), return_complex=True).abs().square()
        return float((power.log().mean(0).exp() / power.mean(0)).median())

    assert flatness(residual) > 5 * flatness(wav)
    assert 0.3 < residual.square().mean().sqrt() < 3


def test_a_crop_that_begins_in_a_vowel_is_no_surprise():
    """Without the filters of lower orders its first samples stand 20 dB and more above the rest."""
    wav, mel = spoken(1.0)
    prediction = made_for(CONVENTION)
    loud = int(wav[0].unfold(0, 256, 256).square().mean(1).argmax())
    filters = prediction.condition(mel[..., loud:])
    residual = residual_of(prediction, wav[:, loud * 256 :], filters)
    plain = filters._replace(start=torch.eye(32).double()[None] * filters.log_gain[0, 0].exp())
    assert residual[0, :32].abs().max() < 6
    assert residual_of(prediction, wav[:, loud * 256 :], plain)[0, 0].abs() > 10


def test_what_is_said_is_forgotten_within_the_stated_memory():
    prediction = made_for(CONVENTION)
    filters = prediction.condition(spoken(1.0)[1])
    residual = torch.randn(1, 80 * 256, dtype=torch.float64)
    filters = filters._replace(coefficients=filters.coefficients[:, :80], log_gain=filters.log_gain[:, :80])
    other = residual.clone()
    other[:, : 40 * 256] += 1
    change = (wav_of(prediction, other, filters) - wav_of(prediction, residual, filters)).abs()[0]
    loudest = change[: 40 * 256].max()
    assert change[(40 + prediction.reach_frames + 1) * 256 :].max() < 1e-6 * loudest
    assert change[40 * 256 : 41 * 256].max() > 1e-3 * loudest


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("level", [0.3, 3e-3])
def test_every_convention_tells_the_level_of_noise(name, level):
    """White noise of standard deviation ``level`` leaves a residual of about 1, whatever the units of the mel."""
    convention = MelConvention.preset(name)
    if convention.clip is not None and level < 0.1:
        pytest.skip("clipped mels do not know how quiet it is")
    wav = level * torch.randn(convention.sample_rate, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mel = convention.extract(wav)[None]
    frames = len(wav) // convention.hop_length
    prediction = made_for(convention, 16)
    residual, _ = prediction(wav[None, : frames * convention.hop_length], mel[..., :frames])
    assert abs(math.log(residual.std())) < 0.35


def test_statistics_of_a_normalised_mel_are_undone():
    plain = MelConvention.espnet(n_mels=20)
    fields = {"mean": tuple(torch.linspace(-3, -1, 20).tolist()), "std": tuple(torch.linspace(0.5, 2, 20).tolist())}
    normalised = MelConvention.from_dict({**plain.to_dict(), **fields})
    wav, mel = spoken(0.3, plain)
    a, b = (made_for(c)(wav, c.extract(wav)[..., : mel.shape[-1]])[0] for c in (plain, normalised))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [-1e4, 1e4, 0.0])
def test_no_mel_makes_it_anything_but_finite(value):
    prediction = made_for(CONVENTION)
    filters = prediction.condition(torch.full((1, 80, 3), value, dtype=torch.float64))
    for verb in (residual_of, wav_of):
        assert verb(prediction, torch.zeros(1, 768).double(), filters).isfinite().all()
    assert all(part.isfinite().all() for part in filters)


def test_gradients_reach_mel_and_residual():
    prediction = LinearPrediction(5, 16, 4).double()
    prediction.set_bands(torch.linspace(1, 2, 5), torch.rand(5, 33))
    mel, residual = torch.randn(1, 5, 3).double(), torch.randn(1, 48).double()
    speak = lambda m, e: prediction.inverse(e, m)  # noqa: E731
    assert torch.autograd.gradcheck(speak, (mel.requires_grad_(), residual.requires_grad_()))


def test_until_it_knows_the_mel_it_predicts_nothing():
    model, plain = MelGlow(n_mels=5, hop_length=16, lpc_order=4), MelGlow(n_mels=5, hop_length=16)
    plain.load_state_dict(model.state_dict(), strict=False)
    wav, mel = torch.randn(1, 48), torch.randn(1, 5, 3)
    residual, _ = model.lpc(wav, mel)
    torch.testing.assert_close(residual / residual[0, 0], wav / wav[0, 0])


def test_an_order_above_the_hop_is_refused():
    with pytest.raises(ValueError, match="lpc_order 17 is above hop_length 16"):
        MelGlow(n_mels=5, hop_length=16, lpc_order=17)


def test_order_0_leaves_the_audio_as_it_is(wav, mel):
    step = NoPrediction()
    assert step(wav, mel)[0] is wav and step(wav, mel)[1] == 0 and step.inverse(wav, mel) is wav
    assert step.reach_frames == 0 and not step.state_dict()
