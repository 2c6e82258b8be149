"""Many small inverses at once: torch.linalg is the referee."""

import torch
from conftest import stir, tiny

from melglow_plugin.model.inverse import inverses_and_log_dets
from melglow_plugin.model.melglow import MelGlow


def matrices(*sizes: int) -> list[torch.Tensor]:
    return [torch.randn(n, n, dtype=torch.float64, requires_grad=True) for n in sizes]


def test_inverses_and_log_dets_are_those_of_linalg():
    given = matrices(8, 6, 8, 4, 2)
    for matrix, (inverse, log_det) in zip(given, inverses_and_log_dets(given), strict=True):
        expected = torch.linalg.inv(matrix)
        assert (inverse - expected).abs().max() < 1e-13 * expected.abs().max() * torch.linalg.cond(matrix)
        torch.testing.assert_close(log_det, torch.linalg.slogdet(matrix).logabsdet, rtol=1e-13, atol=1e-13)


def test_a_zero_on_the_diagonal_is_no_obstacle():
    exchange = torch.eye(8, dtype=torch.float64).flip(0)
    ((inverse, log_det),) = inverses_and_log_dets([exchange])
    torch.testing.assert_close(inverse, exchange, rtol=0, atol=0)
    assert log_det == 0


def test_their_gradients_are_those_of_linalg():
    given = matrices(8, 4)
    pairs = inverses_and_log_dets(given)
    weights = [torch.randn_like(matrix) for matrix in given]
    ours = torch.autograd.grad(sum((w * i).sum() + 3 * d for w, (i, d) in zip(weights, pairs, strict=True)), given)
    linalg = sum(
        (w * torch.linalg.inv(m)).sum() + 3 * torch.linalg.slogdet(m).logabsdet
        for w, m in zip(weights, given, strict=True)
    )
    for a, b in zip(ours, torch.autograd.grad(linalg, given), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_float32_is_as_exact_as_its_rounding():
    matrix = torch.randn(8, 8)
    ((inverse, log_det),) = inverses_and_log_dets([matrix])
    assert inverse.dtype == log_det.dtype == torch.float32
    torch.testing.assert_close(inverse, torch.linalg.inv(matrix.double()).float(), rtol=2e-7, atol=0)


def test_a_flow_that_inverts_them_together_computes_the_same(wav, mel):
    flow = tiny(MelGlow, lpc_order=4)
    expected = results(flow, wav, mel)
    flow.joint_inverses = True
    for a, b in zip(results(flow, wav, mel), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def results(flow: MelGlow, wav: torch.Tensor, mel: torch.Tensor) -> list[torch.Tensor]:
    """z, log_det, the wav of another z, and all gradients of the three."""
    flow.zero_grad()
    cond = flow.condition(mel)
    z, log_det = flow(wav, mel, cond=cond)
    back = flow.inverse(wav.flip(1), mel, cond=cond)
    (z.square().mean() + log_det.mean() + back.square().mean()).backward()
    return [z, log_det, back, *(p.grad for p in flow.parameters())]


def test_only_training_on_a_gpu_asks_for_it():
    assert stir(MelGlow(n_mels=5, hop_length=16)).condition(torch.randn(1, 5, 3)).convs_1x1[0] is None
