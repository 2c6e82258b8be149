"""Full scale: limited audio is as loud as before, pieces make no difference, and what is below it stays."""

import pytest
import torch

from melglow_plugin.inference.full_scale import FullScale

HOP = 64


def loud(scale, hops=40):
    """(1, T), a burst of noise between quiet ones."""
    shape = torch.linspace(-3, 3, hops * HOP).square().neg().exp()
    return scale * shape * torch.randn(1, hops * HOP, generator=torch.Generator().manual_seed(0))


def level(wav):
    """In dB."""
    return 10 * float(wav.square().mean().log10())


def test_limited_audio_is_as_loud_as_before():
    wav = loud(0.8)
    limited = FullScale(HOP)(wav, ends=True)
    assert limited.shape == wav.shape and limited.abs().max() <= 1
    lost = level(wav) - level(wav.clamp(-1, 1))
    assert lost > 1 and abs(level(wav) - level(limited)) < 0.2 * lost


def test_what_is_below_full_scale_stays():
    wav = loud(0.2)
    assert wav.abs().max() < 1 and torch.equal(FullScale(HOP)(wav, ends=True), wav)
    far_too_loud = torch.cat([wav, torch.full((1, HOP), 1e6), wav], 1)
    limited = FullScale(HOP)(far_too_loud, ends=True)
    assert limited.abs().max() == 1 and torch.equal(limited[:, : wav.shape[1] - HOP], wav[:, :-HOP])


def test_neighbours_in_a_batch_make_no_difference():
    rows = [loud(0.2), loud(0.8)]
    both = FullScale(HOP)(torch.cat(rows), ends=True)
    for row, alone in zip(both, rows, strict=True):
        assert torch.equal(row[None], FullScale(HOP)(alone, ends=True))


@pytest.mark.parametrize("size", [1, 50, 64, 1000])
def test_pieces_make_no_difference_and_come_a_hop_late(size):
    wav, limits = loud(0.8), FullScale(HOP)
    whole, pieces, given = FullScale(HOP)(wav, ends=True), [], 0
    for piece in wav.split(size, 1):
        given += piece.shape[1]
        pieces.append(limits(piece, ends=given == wav.shape[1]))
        returned = sum(each.shape[1] for each in pieces)
        assert returned == (given if given == wav.shape[1] else max(0, given // HOP - 1) * HOP)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=0)
