"""The public face: shapes, seeds, batches, chunks, likelihoods, refusals."""

import concurrent.futures
import itertools
import random

import numpy as np
import pytest
import torch
from conftest import speech, vocoder_of

from melglow_plugin import MelConvention, MelGlow, Vocoder, WaveGlow
from melglow_plugin.inference import chunks as streaming
from melglow_plugin.inference.chunks import forward_in_chunks, inverse_in_chunks

CONVENTION = MelConvention.espnet(fs=22_050, n_fft=256, hop_length=64, n_mels=20)
SIZES = {"n_mels": 20, "hop_length": 64, "n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 3, "lpc_order": 8}


@pytest.fixture(params=[(MelGlow, 8), (MelGlow, 0), (WaveGlow, 8)], ids=["melglow", "without_prediction", "waveglow"])
def vocoder(request) -> Vocoder:
    kind, lpc_order = request.param
    return vocoder_of(kind, CONVENTION, **{**SIZES, "lpc_order": lpc_order})


@pytest.fixture
def mel() -> torch.Tensor:
    return CONVENTION.extract(speech(0.5).float())[:, :150]


def test_one_mel_and_a_batch(vocoder, mel):
    assert vocoder(mel).shape == (150 * 64,)
    wav = vocoder(mel[None].expand(3, -1, -1))
    assert wav.shape == (3, 150 * 64) and wav.dtype == torch.float32 and wav.abs().max() <= 1


def test_same_seed_same_samples(vocoder, mel):
    assert torch.equal(vocoder(mel, seed=5), vocoder(mel, seed=5))
    assert not torch.equal(vocoder(mel, seed=5), vocoder(mel, seed=6))
    assert not torch.equal(vocoder(mel), vocoder(mel))


def test_a_padded_batch_equals_single_runs(vocoder, mel):
    lengths = [150, 31, 1, 90]
    batch = torch.full((4, 20, 150), 3.0)  # padding that would be heard
    for row, length in zip(batch, lengths, strict=True):
        row[:, :length] = mel[:, :length]
    wavs = vocoder(batch, lengths, seed=[1, 2, 3, 4])
    for i, length in enumerate(lengths):
        single = vocoder(mel[:, :length], seed=i + 1)
        torch.testing.assert_close(wavs[i, : length * 64], single, atol=1e-5, rtol=0)
        assert not wavs[i, length * 64 :].any()


def test_one_seed_serves_every_row_alike(vocoder, mel):
    wavs = vocoder(torch.stack([mel, mel]), seed=9)
    assert torch.equal(wavs[0], wavs[1])


@pytest.mark.parametrize("sizes", [[150], [1] * 150, [40, 3, 57, 50], [0, 10, 140]])
def test_a_stream_equals_the_offline_result(vocoder, mel, sizes):
    pieces = list(vocoder.stream(mel.split(sizes, dim=1), seed=4))
    torch.testing.assert_close(torch.cat(pieces), vocoder(mel, seed=4), atol=1e-5, rtol=0)


def test_fifty_random_chunkings_equal_the_offline_result(mel):
    vocoder = vocoder_of(MelGlow, CONVENTION, **SIZES)
    offline = vocoder(mel, seed=4)
    draw = random.Random(0)
    for _ in range(50):
        sizes = [draw.choice([1, 2, 7, 30, 80]) for _ in range(150)]
        pieces = [mel[:, a : a + n] for a, n in zip(itertools.accumulate(sizes, initial=0), sizes, strict=False)]
        torch.testing.assert_close(torch.cat(list(vocoder.stream(pieces, seed=4))), offline, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [MelGlow, WaveGlow])
def test_a_stream_with_less_context_synthesizes_sooner_and_comes_close(kind, mel):
    vocoder = vocoder_of(kind, CONVENTION, 0.08, **SIZES)
    full = vocoder.flow.context_frames
    offline, heard, worst = vocoder(mel, seed=4), [], []
    for context in (0, full // 2, full):
        pieces = list(vocoder.stream(mel.split(10, dim=1), seed=4, context_frames=context))
        heard.append(len(pieces[0]) // 64)
        worst.append((torch.cat(pieces) - offline).abs().max().item())
    assert heard == [10, 10 - full // 2, 10 - full]
    assert worst[0] > worst[1] > worst[2] < 1e-5
    for wrong in (-1, 1.5, True, "2"):
        with pytest.raises(ValueError, match=f"context_frames {wrong!r} is no whole number"):
            next(vocoder.stream([mel], context_frames=wrong))


def test_a_stream_synthesizes_before_the_mel_has_ended(vocoder, mel):
    heard = 0

    def frames():
        for i in range(150):
            yield mel[:, i : i + 1]
            assert heard == max(0, i + 1 - vocoder.flow.context_frames) * 64

    for piece in vocoder.stream(frames(), seed=0):
        heard += len(piece)
    assert heard == 150 * 64


def test_an_empty_stream_is_refused(vocoder):
    with pytest.raises(ValueError, match="no frames"):
        list(vocoder.stream([]))


def test_chunks_change_nothing_also_in_a_padded_batch(vocoder, mel):
    batch, lengths = torch.stack([mel, mel.flip(1)]), torch.tensor([150, 77])
    z = torch.randn(2, 150 * 64)
    with torch.no_grad():
        whole = vocoder.flow.inverse(z, batch, lengths)
        pieces = inverse_in_chunks(vocoder.flow.inverse, vocoder.flow, z, batch, lengths, chunk_frames=17)
    torch.testing.assert_close(pieces[0], whole[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(pieces[1, : 77 * 64], whole[1, : 77 * 64], atol=1e-5, rtol=0)


def test_nothing_beyond_the_stated_context_is_heard(vocoder, mel):
    """And the last frame inside it is: the stated receptive field is tight to one frame of rounding each way."""
    context = vocoder.flow.context_frames
    changed = mel.clone()
    changed[:, 75 + context + 1 :] += 1
    z = torch.randn(1, 150 * 64)
    with torch.no_grad():
        a, b = (vocoder.flow.inverse(z, m[None])[0] for m in (mel, changed))
    assert torch.equal(a[: 76 * 64], b[: 76 * 64])
    assert not torch.equal(a, b)


def test_encode_then_decode_is_the_recording(vocoder):
    wav = speech(0.2).float()
    mel = CONVENTION.extract(wav)
    z = vocoder.encode(wav)
    assert z.shape == (mel.shape[1] * 64,)
    torch.testing.assert_close(vocoder.decode(z, mel)[: len(wav)], wav, atol=1e-4, rtol=0)
    torch.testing.assert_close(vocoder.encode(wav, mel), z)


def test_score_is_the_likelihood_of_each_recording(vocoder):
    wavs = torch.stack([speech(0.2).float(), 0.1 * torch.randn(4410)])
    nats = vocoder.score(wavs)
    frames = 4410 // 64
    mel = CONVENTION.extract(wavs)[..., :frames]
    with torch.no_grad():
        z, log_det = vocoder.flow(wavs[:, : frames * 64], mel)
    expected = -(torch.distributions.Normal(0, 1).log_prob(z).sum(1) + log_det) / (frames * 64)
    torch.testing.assert_close(nats, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [7, 20, 59, 1000])
def test_chunks_change_neither_latent_nor_likelihood(vocoder, mel, chunk):
    flow, wavs = vocoder.flow.double(), 0.3 * torch.randn(2, 150 * 64, dtype=torch.float64)
    mels = torch.stack([mel, mel.flip(1)]).double()
    with torch.no_grad():
        expected = flow(wavs, mels)
        found = forward_in_chunks(flow, wavs, mels, chunk)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


def test_a_long_recording_is_encoded_in_windows(vocoder, mel, monkeypatch):
    monkeypatch.setattr(streaming.forward_in_chunks, "__defaults__", (20,))
    longest, forward = 0, vocoder.flow.forward

    def recorded(wav, mel, *args):
        nonlocal longest
        longest = max(longest, mel.shape[-1])
        return forward(wav, mel, *args)

    monkeypatch.setattr(vocoder.flow, "forward", recorded)
    vocoder.encode(0.3 * torch.randn(150 * 64), mel)
    vocoder.score(0.3 * torch.randn(150 * 64), mel)
    assert longest == 20 + 2 * vocoder.flow.context_frames + vocoder.flow.memory_frames < 150


def test_given_latent_is_used_as_it_is(vocoder, mel):
    z = 0.1 * torch.randn(150 * 64)
    torch.testing.assert_close(vocoder(mel, z=z), vocoder.decode(z, mel).clamp(-1, 1))


def test_loud_output_is_clamped_and_never_wraps(vocoder, mel):
    wav = vocoder(mel, sigma=50.0, seed=0)
    assert wav.abs().max() == 1


def test_reduced_precision_stays_close_and_float32(vocoder, mel):
    reduced = Vocoder(vocoder.flow, CONVENTION, dtype=torch.bfloat16)
    wav = reduced(mel, seed=1)
    assert wav.dtype == torch.float32
    assert 0 < (wav - vocoder(mel, seed=1)).abs().max() < 0.1


def test_sixteen_threads_agree_with_one(vocoder, mel):
    expected = [vocoder(mel, seed=s) for s in range(16)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda s: vocoder(mel, seed=s), range(16)))
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mel": torch.zeros(150, 20)}, r"\(150, 20\).*exchanged"),
        ({"mel": torch.zeros(20, 4).numpy()}, r"mel is a ndarray of shape \(20, 4\), wanted a tensor"),
        ({"mel": torch.zeros(20, 4, dtype=torch.bool)}, "mel is torch.bool .*, wanted floats"),
        ({"mel": torch.zeros(20, 4, dtype=torch.int64)}, "mel is torch.int64 .*, wanted floats"),
        ({"mel": torch.zeros(20, 4).to_sparse()}, "mel is torch.sparse_coo on cpu, wanted a dense tensor"),
        ({"mel": torch.zeros(20, 4, device="meta")}, "mel is torch.strided on meta, wanted .* values in memory"),
        ({"mel": torch.zeros(20, 4), "z": torch.zeros(256, device="meta")}, "z is torch.strided on meta"),
        ({"mel": torch.zeros(20, 0)}, "empty"),
        ({"mel": torch.full((20, 4), float("nan"))}, "80 values that are not finite"),
        ({"mel": torch.zeros(2, 20, 4), "lengths": [5, 1]}, r"\[5, 1\].*4 frames"),
        ({"mel": torch.zeros(2, 20, 4), "lengths": [4]}, "wanted 2"),
        ({"mel": torch.zeros(2, 20, 4), "seed": [1, 2, 3]}, "3 seeds for a batch of 2"),
        ({"mel": torch.zeros(20, 4), "sigma": -1.0}, "sigma -1"),
        ({"mel": torch.zeros(20, 4), "z": torch.zeros(3)}, r"z has shape \(3,\).*256"),
    ],
)
def test_bad_input_is_refused_by_name(vocoder, arguments, says):
    with pytest.raises(ValueError, match=says):
        vocoder(**arguments)


def test_numbers_of_numpy_and_torch_are_those_of_python(vocoder, mel):
    expected = vocoder(mel, seed=3, sigma=0.5, refine=1)
    for whole, real in ((np.int64, np.float32), (np.uint8, np.float16), (np.array, np.array), (torch.tensor,) * 2):
        assert torch.equal(vocoder(mel, seed=whole(3), sigma=real(0.5), refine=whole(1)), expected)
        pieces = vocoder.stream([mel], seed=whole(3), sigma=real(0.5), refine=whole(1), context_frames=whole(200))
        torch.testing.assert_close(torch.cat(list(pieces)), expected, atol=1e-5, rtol=0)
    batch = mel.expand(2, -1, -1)
    for seeds in (np.arange(3, 5), torch.arange(3, 5), range(3, 5), [np.int16(3), 4]):
        assert torch.equal(vocoder(batch, seed=seeds), vocoder(batch, seed=[3, 4]))
    assert type(Vocoder(vocoder.flow, CONVENTION, refine=np.int64(2)).checkpoint.refine) is int


@pytest.mark.parametrize("wrong", [True, np.bool_(True), torch.tensor(True), "1", 1j, [[1]], 10**400])
@pytest.mark.parametrize("name", ["seed", "sigma", "refine"])
def test_a_truth_value_is_no_number(vocoder, mel, name, wrong):
    with pytest.raises(ValueError, match=f"{name} .* is no "):
        vocoder(mel, **{name: wrong})


@pytest.mark.parametrize("path", [None, 3, b"model"])
def test_what_names_no_model_is_refused(path):
    with pytest.raises(ValueError, match="path_or_hub_id .* is neither a path nor a name"):
        Vocoder.from_pretrained(path)


@pytest.mark.parametrize("device", ["meta", "nonsense", {}])
def test_a_device_that_computes_nothing_is_refused(vocoder, tmp_path, device):
    vocoder.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"device {device}: "):
        Vocoder.from_pretrained(tmp_path, device)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.float8_e4m3fn, None, "float16"])
def test_weights_are_saved_as_what_can_be_loaded(vocoder, tmp_path, dtype):
    with pytest.raises(ValueError, match=f"dtype {dtype} is none of torch.float16, torch.bfloat16"):
        vocoder.save_pretrained(tmp_path / "model", dtype)
    assert not (tmp_path / "model").exists()


def test_a_mel_that_does_not_fit_the_recording_is_refused(vocoder):
    wav = torch.zeros(64 * 20)
    with pytest.raises(ValueError, match=r"1280 samples.*frames"):
        vocoder.encode(wav, torch.zeros(20, 40))
    with pytest.raises(ValueError, match="20 hops"):
        vocoder.score(wav, torch.zeros(20, 40))


def test_model_and_convention_must_agree():
    with pytest.raises(ValueError, match="hop_length 64 in model, 256 in convention"):
        Vocoder(MelGlow(**SIZES), MelConvention.espnet(n_mels=20))


@pytest.mark.parametrize(
    ("cast", "dtype"),
    [("half", torch.float16), ("bfloat16", torch.bfloat16), ("float", torch.float32), ("double", None)],
)
def test_a_cast_chooses_the_precision_of_the_conditioners(mel, cast, dtype):
    vocoder = vocoder_of(MelGlow, CONVENTION, **SIZES)
    expected = vocoder(mel, seed=0)
    assert getattr(vocoder, cast)() is vocoder and vocoder.dtype == dtype
    wav = vocoder(mel, seed=0)
    assert wav.dtype == vocoder.flow.mel_mean.dtype == torch.float32
    assert torch.equal(wav, expected) == (dtype in (None, torch.float32))
    torch.testing.assert_close(wav, expected, atol=0.05 * float(expected.std()), rtol=0)
    assert vocoder.score(wav).isfinite().all()
    assert vocoder.to("cpu").dtype == dtype and torch.equal(vocoder.float()(mel, seed=0), expected)


@pytest.fixture
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_the_default_type_of_the_program_changes_nothing(tmp_path, mel, request):
    vocoder_of(MelGlow, CONVENTION, **SIZES).save_pretrained(tmp_path)
    wav = speech(0.3).float()

    def results():
        vocoder = Vocoder.from_pretrained(tmp_path)
        z = vocoder.encode(wav)
        return [
            vocoder(mel, seed=0, refine=1), torch.cat(list(vocoder.stream([mel], seed=0))), vocoder.score(wav), z,
            vocoder.convention.extract(wav), vocoder.decode(z, vocoder.convention.extract(wav)),
        ]  # fmt: skip

    expected = results()
    request.getfixturevalue("float64_by_default")
    for found, wanted in zip(results(), expected, strict=True):
        assert torch.equal(found, wanted)
