"""Noise is a function of seed and position."""

import shutil

import pytest
import torch

from melglow_plugin.inference.noise import noise_rows

GOLDEN = [-0.2920317, 0.8077853, 1.36992, -0.9063022]


def noise_of_seed(seed, start, length):
    return noise_rows(torch.tensor([seed]), start, length)[0]


def test_a_piece_equals_that_piece_of_the_whole():
    whole = noise_of_seed(7, 0, 5000)
    assert torch.equal(noise_of_seed(7, 1234, 100), whole[1234:1334])


def test_it_is_standard_normal_and_white():
    noise = noise_of_seed(0, 0, 400_000).double()
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert (noise**4).mean() == pytest.approx(3, abs=0.1)
    assert abs((noise[:-1] * noise[1:]).mean()) < 0.01


@pytest.mark.parametrize("other", [1, 2, -1, 2**62])
def test_seeds_are_unrelated(other):
    a, b = noise_of_seed(0, 0, 100_000), noise_of_seed(other, 0, 100_000)
    assert abs((a * b).mean()) < 0.02


def test_the_sequence_is_the_same_in_every_version():
    # Whoever keeps a seed keeps the samples. Made again with: noise_of_seed(1, 0, 4).
    torch.testing.assert_close(noise_of_seed(1, 0, 4), torch.tensor(GOLDEN), atol=1e-6, rtol=0)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler on a CPU")
def test_it_can_be_compiled():
    def halves(seeds):  # as the flow takes them: the product of 8 positions and the hash's constant has 66 bits
        return noise_rows(seeds, 0, 64).view(1, 8, 8).chunk(2, dim=-1)[1].exp()

    seeds = torch.tensor([0])
    torch.testing.assert_close(torch.compile(halves)(seeds), halves(seeds))
