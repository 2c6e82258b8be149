"""A model folder: exact round trip, nothing executes, every damage is named."""

import json

import pytest
import torch
from conftest import stir

from melglow_plugin import MelConvention, MelGlow, Vocoder, WaveGlow
from melglow_plugin.cli import main

CONVENTION = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)
SIZES = {"n_mels": 20, "hop_length": 64, "n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 2}


@pytest.fixture
def folder(tmp_path):
    Vocoder(stir(MelGlow(**SIZES)), CONVENTION, {"steps": 3}).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("kind", [MelGlow, WaveGlow])
def test_round_trip_is_exact(kind, tmp_path):
    flow = stir(kind(**SIZES))
    flow.set_mel_statistics(torch.randn(20), torch.rand(20) + 0.5)
    before = Vocoder(flow, CONVENTION, {"steps": 3})
    before.save_pretrained(tmp_path)
    after = Vocoder.from_pretrained(tmp_path)
    mel = torch.randn(20, 9)
    assert torch.equal(after(mel, seed=1), before(mel, seed=1))
    assert after.convention == CONVENTION and after.training_facts == {"steps": 3}
    assert after.flow.hyperparameters == flow.hyperparameters


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_torchs_default_dtype_and_device_do_not_reach_a_model(folder, dtype):
    mel = torch.randn(20, 9)
    before = Vocoder.from_pretrained(folder)(mel, seed=1)
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            vocoder = Vocoder.from_pretrained(folder)
        after = vocoder(mel, seed=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {(value.dtype, value.device.type) for value in vocoder.state_dict().values()} == {(torch.float32, "cpu")}
    assert torch.equal(after, before)


def test_16_bit_weights_halve_the_file_and_leave_the_meaning_of_the_mel_alone(tmp_path):
    flow = stir(MelGlow(**SIZES, lpc_order=8))
    flow.set_mel_bands(*CONVENTION.band_powers())
    vocoder = Vocoder(flow, CONVENTION)
    vocoder.save_pretrained(tmp_path / "32")
    assert main(["convert", str(tmp_path / "32"), "-o", str(tmp_path / "16"), "--weights", "float16"]) == 0
    sizes = [(tmp_path / bits / "model.safetensors").stat().st_size for bits in ("16", "32")]
    assert sizes[0] < 0.75 * sizes[1]
    after = Vocoder.from_pretrained(tmp_path / "16").flow
    for name, value in flow.named_parameters():
        assert torch.equal(after.get_parameter(name), value.half().float()), name
    for name, value in flow.named_buffers():
        assert torch.equal(after.get_buffer(name), value), name


def test_a_weight_beyond_16_bits_is_refused_by_name(tmp_path):
    flow = MelGlow(**SIZES)
    flow.couplings[1].net.start.bias.data[0] = -1e5
    with pytest.raises(ValueError, match=r"couplings.1.net.start.bias reaches 1e\+05, torch.float16 ends at 6.55e\+04"):
        Vocoder(flow, CONVENTION).save_pretrained(tmp_path / "model", torch.float16)
    assert not (tmp_path / "model").exists()


def test_an_old_card_is_kept_and_nothing_else_is_left_behind(folder):
    (folder / "README.md").write_text("mine")
    Vocoder.from_pretrained(folder).save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema": 99}, "schema 99, this version reads 1"),
        ({"format": "other"}, "no melglow model.*other"),
        ({"architecture": "os.system"}, "architecture 'os.system' is none of melglow"),
        ({"surprise": 1}, "unknown surprise"),
        ({"model": {**SIZES, "chanels": 4}}, "chanels"),
        ({"model": {**SIZES, "channels": 8}}, r"has shape .* the model wants"),
        ({"model": {**SIZES, "hop_length": 128}}, "hop_length 128 in model, 64 in convention"),
        ({"model": [1]}, "model is a list"),
        ({"convention": {"fmni": 1}}, "fmni"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(folder, changes, says):
    edit(folder, **changes)
    with pytest.raises(ValueError, match=says):
        Vocoder.from_pretrained(folder)


def test_no_folder_and_no_hub_name(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        Vocoder.from_pretrained(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        Vocoder.from_pretrained(tmp_path / "empty")
