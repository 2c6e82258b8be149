"""Input that nobody would send: a defined result, or a ValueError that names it. benchmarks/fuzz.py runs more."""

import json
import os

import numpy as np
import pytest
import torch
from conftest import TINY, tiny
from torch import Tensor

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from melglow_plugin import MelConvention, Vocoder, location_variable_conv
from melglow_plugin.checks import from_dict
from melglow_plugin.cli import main
from melglow_plugin.training.objective import LossConfig

EXAMPLES = int(os.environ.get("MELGLOW_FUZZ_EXAMPLES", 25))
cases = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 100, database=None,
    suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False,
)  # fmt: skip
M, HOP = TINY["n_mels"], TINY["hop_length"]
CONVENTION = MelConvention(sample_rate=8000, n_fft=64, hop_length=HOP, n_mels=M, fmin=0.0, fmax=4000.0)
VOCODER = Vocoder(tiny().float(), CONVENTION)
KINDS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int16, torch.int64, torch.uint8, torch.bool,
         torch.complex64]  # fmt: skip
SPOILT = [float("nan"), float("inf"), -float("inf"), 1e38, -1e38, 0.0]


@st.composite
def tensors(draw, shapes) -> Tensor:
    """A tensor of one of the shapes, in any dtype and layout, perhaps with values that are not finite."""
    shape = draw(shapes)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    tensor = torch.randn(shape, generator=generator)
    if tensor.numel() and draw(st.booleans()):
        tensor.view(-1)[draw(st.integers(0, tensor.numel() - 1))] = draw(st.sampled_from(SPOILT))
    kind = draw(st.sampled_from(KINDS)) if draw(st.booleans()) else torch.float32
    tensor = (
        tensor.nan_to_num(0, 100, -100).clamp(-100, 100).to(kind) if not kind.is_floating_point else tensor.to(kind)
    )
    layout = draw(st.sampled_from(["plain", "transposed", "strided", "expanded", "grad", "numpy"]))
    if layout == "transposed" and tensor.dim() > 1:
        return tensor.transpose(-1, -2)
    if layout == "strided":
        return tensor.repeat_interleave(2, -1)[..., ::2] if tensor.dim() else tensor
    if layout == "expanded" and tensor.dim() and tensor.shape[-1]:
        return tensor[..., :1].expand(tensor.shape)
    if layout == "grad" and tensor.is_floating_point():
        return tensor.requires_grad_()
    if layout == "numpy" and kind != torch.bfloat16 and draw(st.integers(0, 9)) == 0:
        return tensor.numpy()
    return tensor


sizes = st.sampled_from([0, 1, 2, 3, M, M + 1, 8, 17])
mels = tensors(st.one_of(
    st.tuples(st.just(M), sizes), st.tuples(sizes, st.just(M), sizes), st.lists(sizes, max_size=4).map(tuple)
))  # fmt: skip
odd_values = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2000), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.one_of(st.floats(), st.integers(), st.none()), max_size=M + 1),
    st.sampled_from(["hann", "slaney", "htk"]),
)  # fmt: skip


def named(error: ValueError, *names: str) -> None:
    assert any(name in str(error) for name in names), error


def is_wav(wav: Tensor, mel, lengths=None) -> bool:
    frames = mel.shape[-1]
    batch = mel.shape[:-2]
    return (
        wav.shape == (*batch, frames * HOP) and wav.dtype == torch.float32 and not wav.requires_grad
        and bool(torch.isfinite(wav).all()) and float(wav.abs().max()) <= 1
    )  # fmt: skip


@cases
@given(mels, st.one_of(st.none(), st.lists(st.integers(-1, 9), max_size=4), tensors(st.tuples(sizes)), odd_values),
       st.one_of(st.just(0.6), st.floats(), st.none(), st.text(max_size=2)), odd_values)  # fmt: skip
def test_a_call_synthesizes_or_names_the_argument(mel, lengths, sigma, seed):
    try:
        wav = VOCODER(mel, lengths, sigma=sigma, seed=seed)
    except ValueError as error:
        named(error, "mel", "lengths", "sigma", "seed")
    else:
        assert is_wav(wav, mel)


@cases
@given(mels, tensors(st.one_of(st.tuples(sizes.map(lambda n: n * HOP)), st.lists(sizes, max_size=3).map(tuple))))
def test_a_latent_is_decoded_or_named(mel, z):
    for call in (lambda: VOCODER(mel, z=z), lambda: VOCODER.decode(z, mel)):
        try:
            wav = call()
        except ValueError as error:
            named(error, "mel", "z ")
        else:
            assert wav.shape == (*mel.shape[:-2], mel.shape[-1] * HOP) and wav.dtype == torch.float32


@cases
@given(st.lists(mels, max_size=4), st.one_of(st.just(0.6), st.floats()), odd_values)
def test_a_stream_synthesizes_or_names_the_argument(chunks, sigma, seed):
    try:
        pieces = list(VOCODER.stream(iter(chunks), sigma=sigma, seed=seed))
    except ValueError as error:
        named(error, "mel", "sigma", "seed")
    else:
        wav = torch.cat(pieces)
        assert len(wav) == sum(chunk.shape[-1] for chunk in chunks) * HOP and torch.isfinite(wav).all()


@cases
@given(tensors(st.one_of(st.tuples(st.integers(0, 300)), st.tuples(sizes, st.integers(0, 300)))))
def test_recordings_are_scored_and_encoded_or_named(wav):
    for call in (VOCODER.score, VOCODER.encode, CONVENTION.extract):
        try:
            found = call(wav)
        except ValueError as error:
            named(error, "wav")
        else:
            assert found.is_floating_point()


@cases
@given(st.lists(sizes, min_size=2, max_size=4), st.lists(sizes, min_size=4, max_size=5),
       st.none() | st.lists(sizes, max_size=4), st.sampled_from([1, 2, 4, 0, -1, 1000, 1.5, "2"]),
       st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]), st.booleans())  # fmt: skip
def test_a_convolution_is_that_of_its_definition_or_names_the_argument(x, kernel, bias, dilation, kind, fit):
    if fit and len(x) == 3 and len(kernel) == 5:  # half of the cases with shapes that belong together
        x = [kernel[0], kernel[1] * x[1], kernel[3]]
        bias = None if bias is None else [kernel[0], kernel[1], kernel[4]]
    x, kernel, bias = (None if shape is None else torch.randn(shape).to(kind) for shape in (x, kernel, bias))
    try:
        out = location_variable_conv(x, kernel, bias, dilation)
    except ValueError as error:
        named(error, "x ", "kernel", "bias", "dilation")
    else:
        assert out.shape == (x.shape[0], x.shape[1], kernel.shape[-1])


FIELDS = list(CONVENTION.to_dict())


@cases
@given(st.dictionaries(st.one_of(st.sampled_from(FIELDS), st.text(max_size=4)), odd_values, max_size=4))
def test_a_convention_is_one_or_names_the_field(changes):
    try:
        convention = MelConvention.from_dict({**CONVENTION.to_dict(), **changes})
    except ValueError as error:
        named(error, *map(str, changes))
    else:
        assert MelConvention.from_dict(json.loads(json.dumps(convention.to_dict()))) == convention
        if convention.n_fft <= 2048:
            try:
                mel = convention.extract(torch.zeros(4096))
            except ValueError as error:
                named(error, "wav")
            else:
                assert mel.shape[0] == convention.n_mels


@cases
@given(
    st.dictionaries(st.one_of(st.sampled_from(list(LossConfig.__dataclass_fields__)), st.text(max_size=4)), odd_values)
)
def test_a_configuration_is_one_or_names_the_field(values):
    try:
        config = from_dict(LossConfig, values, "loss_conf")
    except ValueError as error:
        named(error, *map(str, values))
    else:
        assert isinstance(config, LossConfig)


@cases
@given(mels)
def test_a_conversion_converts_or_names_the_mel(mel):
    try:
        converted = CONVENTION.convert(mel, MelConvention(**{**CONVENTION.to_dict(), "log_base": 2.0}))
    except ValueError as error:
        named(error, "mel")
    else:
        assert converted.shape == mel.shape


# Values and files that exist, do not, and are not what they are said to be
commands = st.sampled_from(["synthesize", "copy", "score", "info", "convert", "doctor", "export", "eval", "hok", ""])
LINE = """--checkpoint -o out model x.npy x.wav list.scp nothing --sigma --seed nan -1 99999999999999999999 0
    --batch-size --convention espnet hifigan model/config.json --device cuda:77 --json --format onnx coqui
    --training a=b -- --jobs . /dev/null"""
words = st.sampled_from(["", *LINE.split()])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    import soundfile

    folder = tmp_path_factory.mktemp("fuzz")
    VOCODER.save_pretrained(folder / "model")
    np.save(folder / "x.npy", np.zeros((M, 5), np.float32))
    soundfile.write(folder / "x.wav", 0.1 * np.ones(500), 8000)
    (folder / "list.scp").write_text("a x.npy\nb x.wav\n")
    return folder


@cases
@given(command=commands, words=st.lists(words, max_size=8))
def test_a_command_line_ends_in_0_or_in_2_and_one_line(place, command, words):
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    before, said = os.getcwd(), StringIO()
    os.chdir(place)
    try:
        with redirect_stderr(said), redirect_stdout(StringIO()):
            status = main([command, *words])
    except SystemExit as error:
        status = error.code or 0
    finally:
        os.chdir(before)
    text = said.getvalue()
    assert status == 0 or (status == 2 and text.rstrip("\n").split("\r")[-1].count("\n") == 0 and text.strip()), text
