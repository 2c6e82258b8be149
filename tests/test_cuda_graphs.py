"""Buckets, padding, replay and eviction, with a stand-in for the capture of a graph; captures where there is a GPU."""

import concurrent.futures

import pytest
import torch
from conftest import vocoder_of

from melglow_plugin import MelConvention, MelGlow, Vocoder, WaveGlow
from melglow_plugin.inference.cuda_graphs import GraphedInverse, bucket

CONVENTION = MelConvention.espnet(fs=22_050, n_fft=256, hop_length=64, n_mels=20)
SIZES = {"n_mels": 20, "hop_length": 64, "n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 3, "lpc_order": 8}


class Recorder:
    """In the place of ``Capture``: a replay reads and writes the same tensors every time, as a graph does."""

    def __init__(self):
        self.captured = []

    def __call__(self, run, *example):
        inputs = [torch.empty_like(tensor) for tensor in example]
        out = torch.empty_like(run(*example))
        self.captured.append(tuple(inputs[1].shape))

        def replay(*arguments):
            for mine, given in zip(inputs, arguments, strict=True):
                assert mine.dtype == given.dtype
                mine.copy_(given)
            return out.copy_(run(*inputs)).clone()

        return replay


@pytest.fixture(params=[MelGlow, WaveGlow], ids=["melglow", "waveglow"])
def vocoder(request) -> Vocoder:
    return vocoder_of(request.param, CONVENTION, **SIZES)


def graphed(vocoder, **options) -> tuple[Vocoder, Recorder]:
    """The same vocoder, by graphs as far as a CPU can."""
    recorder, other = Recorder(), Vocoder(vocoder.flow, CONVENTION)
    flow = vocoder.flow.with_constant_inverses()
    other._graphed = GraphedInverse(flow.inverse, 64, recorder, **options)
    return other, recorder


def test_buckets_grow_by_at_most_a_quarter():
    sizes = [bucket(frames) for frames in range(1, 1200)]
    assert sizes[:32] == [32] * 32 and sizes == sorted(sizes)
    assert all(size >= frames for frames, size in enumerate(sizes, 1))
    assert all(size <= 1.25 * frames + 8 for frames, size in enumerate(sizes, 1) if frames > 32)
    assert len(set(sizes)) <= 20


def test_any_length_and_batch_equals_the_plain_call(vocoder):
    fast, recorder = graphed(vocoder)
    mel = torch.randn(3, 20, 70)
    for frames in (1, 31, 32, 33, 70):
        torch.testing.assert_close(
            fast(mel[0, :, :frames], seed=1), vocoder(mel[0, :, :frames], seed=1), atol=1e-5, rtol=0
        )
    for lengths in (None, [70, 4, 33]):
        torch.testing.assert_close(fast(mel, lengths, seed=1), vocoder(mel, lengths, seed=1), atol=1e-5, rtol=0)
    assert recorder.captured == [(1, 20, 32), (1, 20, 40), (1, 20, 72), (3, 20, 72)]


def test_a_stream_and_a_latent_go_the_same_way(vocoder):
    fast, recorder = graphed(vocoder)
    mel = torch.randn(20, 150)
    pieces = list(fast.stream(mel.split(30, dim=1), seed=4))
    torch.testing.assert_close(torch.cat(pieces), vocoder(mel, seed=4), atol=1e-5, rtol=0)
    z = torch.randn(150 * 64)
    torch.testing.assert_close(fast.decode(z, mel), vocoder.decode(z, mel), atol=1e-5, rtol=0)
    assert len(recorder.captured) == len(set(recorder.captured))


def test_results_are_not_overwritten(vocoder):
    fast, _ = graphed(vocoder)
    first = fast(torch.zeros(20, 10), seed=1)
    kept = first.clone()
    fast(torch.ones(20, 10), seed=2)
    assert torch.equal(first, kept)


def test_the_graph_not_used_for_longest_makes_room(vocoder):
    fast, recorder = graphed(vocoder, limit=2)
    for frames in (10, 35, 10, 45, 10, 35):  # buckets 32, 40, 32, 50 -> 56, 32, 40
        fast(torch.zeros(20, frames), seed=1)
    assert [shape[-1] for shape in recorder.captured] == [32, 40, 56, 40]


def test_threads_agree_with_one(vocoder):
    fast, recorder = graphed(vocoder)
    mel = torch.randn(20, 40)
    expected = [fast(mel, seed=s) for s in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda s: fast(mel, seed=s), range(8)))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert len(recorder.captured) == 1


def test_a_cpu_is_refused_and_moving_ends_it(vocoder):
    with pytest.raises(ValueError, match="CUDA.*cpu"):
        vocoder.use_graphs()
    fast, _ = graphed(vocoder)
    assert fast.to("cpu")._graphed is None
    assert vocoder.use_graphs(False)._graphed is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_captured_graphs_equal_the_plain_call(vocoder, dtype):
    plain = Vocoder(vocoder.flow, CONVENTION, dtype=dtype).cuda()
    fast = Vocoder(vocoder.flow, CONVENTION, dtype=dtype).cuda().use_graphs()
    mel = torch.randn(3, 20, 70)
    for _ in range(2):
        for frames in (70, 20, 33):
            found, expected = fast(mel[..., :frames], seed=1), plain(mel[..., :frames], seed=1)
            torch.testing.assert_close(found, expected, atol=1e-4 if dtype is None else 0.05, rtol=0)
