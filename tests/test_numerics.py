"""Where numbers could go wrong: precision, near-singular weights, poisoned batches, averages, bad recordings."""

import math

import pytest
import torch
from conftest import speech, stir, tiny, vocoder_of

from melglow_plugin import MelConvention, MelGlow, flow_nll
from melglow_plugin.model.flow import InvertibleConv1x1

SIZES = {"n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 3}
# Of a full scale of 1. A conditioner in 16 bits rounds what the flow hands it differently there and back.
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("before", [{}, {"lpc_order": 32}], ids=str)
def test_the_error_of_inversion_stays_within_its_published_limit(dtype, before):
    vocoder = vocoder_of(MelGlow, MelConvention.espnet(), 0.02, **SIZES, **before)
    vocoder._engine.dtype = dtype
    wav = speech(1.0).float()
    mel = vocoder.convention.extract(wav)
    error = (vocoder.decode(vocoder.encode(wav, mel), mel)[: len(wav)] - wav).abs().max()
    assert error < LIMITS[dtype]


@pytest.mark.parametrize("determinant", [-1.0, -1e-6, 1e-6, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_near_singular_and_negative_weights(determinant, dtype):
    """One singular value carries the determinant: 1e-6 is the condition number of a broken layer."""
    step = InvertibleConv1x1(8).to(dtype)
    u, _, v = torch.linalg.svd(step.weight.detach())
    values = torch.ones(8, dtype=dtype)
    values[-1] = abs(determinant)
    weight = u @ torch.diag(values) @ v
    if (torch.linalg.det(weight) < 0) != (determinant < 0):
        weight[:, 0] *= -1
    with torch.no_grad():
        step.weight.copy_(weight)
    x = torch.randn(2, 30, 8, dtype=dtype)
    z, log_det = step(x)
    torch.testing.assert_close(
        log_det, torch.full((2,), 30 * math.log(abs(determinant)), dtype=dtype), rtol=1e-2, atol=1e-2
    )
    condition = max(abs(determinant), 1 / abs(determinant))
    assert (step.inverse(z) - x).abs().max() < 20 * condition * torch.finfo(dtype).eps
    log_det.sum().backward()
    assert torch.isfinite(step.weight.grad).all()


def test_a_singular_weight_is_an_error_and_no_noise():
    step = InvertibleConv1x1(4)
    with torch.no_grad():
        step.weight[0] = step.weight[1]
    log_det = step(torch.randn(1, 3, 4))[1]
    assert not torch.isfinite(log_det).all() or log_det.max() < -30
    with torch.no_grad():
        step.weight.zero_()
    with pytest.raises(RuntimeError, match="singular"):
        step.inverse(torch.randn(1, 3, 4))


@pytest.mark.parametrize("refine", [0, 2])
@pytest.mark.parametrize("signal", [0.0, 1.0, -1.0, "square"])
def test_silent_constant_and_full_scale_recordings_have_finite_loss_and_gradient(signal, refine):
    from melglow_plugin.training.objective import FlowObjective, LossConfig

    flow, convention = stir(MelGlow(**SIZES), 0.02), MelConvention.espnet()
    wav = torch.sign(torch.sin(torch.arange(4096.0) / 20)) if signal == "square" else torch.full((4096,), signal)
    mel = convention.extract(wav)[None, :, :16]
    loss, _ = FlowObjective(convention, LossConfig(windows=(512, 256), refine=refine))(flow, wav[None], mel)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in flow.parameters() if p.grad is not None)


@pytest.mark.parametrize("weight", [0.5, 0.9, 0.999])
def test_an_average_of_two_models_inverts(weight):
    """The mean of two rotations may be singular; that of a model and itself a little later is not."""
    first, second = tiny(), stir(tiny(), 0.02)
    with torch.no_grad():
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            a.lerp_(b, weight)
    mel, wav = torch.randn(1, 5, 6, dtype=torch.float64), torch.randn(1, 96, dtype=torch.float64)
    z, log_det = first(wav, mel)
    torch.testing.assert_close(first.inverse(z, mel), wav, atol=1e-9, rtol=0)
    assert torch.isfinite(flow_nll(z, log_det))


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_poisoned_batch_leaves_weights_and_optimizer_bit_identical_and_is_counted(poison):
    """On the Coqui route; on ESPnet's, through its trainer's own loop, test_espnet_model."""
    pytest.importorskip("TTS")
    from test_coqui import make

    model, mel = make(), torch.randn(2, 80, 8) - 2.4
    criterion, optimizer = model.get_criterion(), torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(wav):
        losses = model.train_step({"waveform": wav, "input": mel}, criterion)[1]
        if losses is not None:
            losses["loss"].backward()
            model.before_gradient_clipping()
            optimizer.step()
            optimizer.zero_grad()

    wav = 0.1 * torch.randn(2, 2048)
    step(wav)
    before = [p.detach().clone() for p in model.parameters()]
    moments = [state["exp_avg"].clone() for state in optimizer.state.values()]
    bad = wav.clone()
    bad[1, 77] = poison
    step(bad)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert all(torch.equal(s["exp_avg"], m) for s, m in zip(optimizer.state.values(), moments, strict=True))
    assert model.skipped_steps == 1
    step(wav)
    assert not torch.equal(next(model.parameters()), before[0])
