"""Old models: every spelling of one model gives equal output, nothing executes, every schema still loads."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import stir, vocoder_of
from torch import nn

from melglow_plugin import MelConvention, MelGlow, Vocoder, WaveGlow
from melglow_plugin.checkpoint.coqui import to_coqui
from melglow_plugin.checkpoint.espnet import to_espnet
from melglow_plugin.checkpoint.folder import SCHEMA
from melglow_plugin.checkpoint.tensors import plain_weights
from melglow_plugin.cli import main
from melglow_plugin.model.melglow import architecture

GOLDEN = Path(__file__).parent / "golden"
CONF = {"fs": 22_050, "n_fft": 256, "hop_length": 64, "n_mels": 20}
CONVENTION = MelConvention.espnet(**CONF)
SIZES = {"n_mels": 20, "hop_length": 64, "n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 2}
NAMES = {"melglow": MelGlow, "waveglow": WaveGlow}


def normalised(flow, legacy):
    """The same model under a weight norm, in torch's older or newer spelling."""
    make = nn.utils.weight_norm if legacy else nn.utils.parametrizations.weight_norm
    for module in list(flow.modules()):
        if isinstance(module, nn.Conv1d | nn.Linear) and module.weight.norm() > 0:
            make(module)
    return flow


def folded(flow, legacy):
    for module in list(flow.modules()):
        if legacy and hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
        elif not legacy and nn.utils.parametrize.is_parametrized(module):
            nn.utils.parametrize.remove_parametrizations(module, "weight")
    return flow


def spelled(name, spelling):
    """The same stirred flow each time, under one of three spellings."""
    torch.manual_seed(0)
    flow = stir(NAMES[name](**SIZES), 0.02)
    return flow if spelling == "plain" else normalised(flow, spelling == "weight_g")


def espnet_folder(path, name, state):
    conf = {"vocoder": name, "vocoder_conf": SIZES, "feats_extract_conf": CONF, "loss_conf": {}, "batch_size": 2}
    path.mkdir()
    (path / "config.yaml").write_text(yaml.safe_dump(conf))
    torch.save({f"flow.{key}": value for key, value in state.items()}, path / "best.pth")
    return path / "best.pth"


@pytest.mark.parametrize("name", NAMES)
def test_three_spellings_are_one_model(name, tmp_path):
    said = {}
    mel = torch.randn(20, 9) - 2
    for spelling in ("plain", "weight_g", "original0"):
        flow = spelled(name, spelling)
        keys = " ".join(flow.state_dict())
        assert ("weight_g" in keys, "original0" in keys) == (spelling == "weight_g", spelling == "original0")
        said[spelling] = Vocoder.from_pretrained(espnet_folder(tmp_path / spelling, name, flow.state_dict()))(
            mel, seed=0, refine=1
        )
    assert said["plain"].abs().max() > 0.01
    torch.testing.assert_close(said["weight_g"], said["plain"], rtol=0, atol=1e-5)
    assert torch.equal(said["weight_g"], said["original0"])


@pytest.mark.parametrize("legacy", [True, False])
def test_folding_is_torchs_own(legacy):
    flow = normalised(stir(WaveGlow(**SIZES)), legacy)
    with torch.no_grad():
        for parameter_name, parameter in flow.named_parameters():
            if parameter_name.endswith(("weight_g", "original0")):
                parameter.mul_(1.7)  # so that the lengths are not those of the directions
    found = plain_weights(flow.state_dict())
    expected = folded(flow, legacy).state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_folding_twice_changes_nothing():
    once = plain_weights(spelled("waveglow", "original0").state_dict())
    twice = plain_weights(once)
    assert set(once) == set(twice) and all(torch.equal(once[key], twice[key]) for key in once)


@pytest.mark.parametrize("dim", [0, 1, None])
def test_lengths_may_run_along_any_axis(dim):
    layer = nn.utils.weight_norm(nn.Linear(3, 4), dim=dim)
    expected = layer.weight.detach().clone()
    torch.testing.assert_close(plain_weights(layer.state_dict())["weight"], expected)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"a.weight_g": torch.ones(2, 1)}, "a.weight has only the length"),
        ({"a.parametrizations.weight.original1": torch.ones(2, 1)}, "a.weight has only the direction"),
        ({"a.weight_g": torch.ones(2, 1), "a.weight_v": torch.ones(2, 1), "a.weight": torch.ones(2, 1)}, "both"),
        ({"a.weight_g": torch.ones(3, 1), "a.weight_v": torch.ones(2, 4)}, r"\(3, 1\).*\(2, 4\)"),
    ],
)
def test_half_a_weight_norm_is_refused_by_name(weights, says):
    with pytest.raises(ValueError, match=says):
        plain_weights(weights)


def test_a_ddp_prefix_is_taken_off():
    assert set(plain_weights({"module.a": torch.ones(1), "module.b.weight": torch.ones(1)})) == {"a", "b.weight"}


@pytest.mark.parametrize("spelling", ["plain", "weight_g", "original0"])
def test_every_shape_of_file_becomes_the_same_folder(spelling, tmp_path):
    mel = torch.randn(20, 9) - 2
    vocoder = Vocoder(spelled("melglow", "plain"), CONVENTION, {"steps": 3})
    expected = vocoder(mel, seed=0)
    state = spelled("melglow", spelling).state_dict()
    to_espnet(vocoder.checkpoint, tmp_path / "pwg")
    torch.save({"model": {"generator": state}}, tmp_path / "pwg" / "checkpoint.pkl")
    to_coqui(vocoder.checkpoint, tmp_path / "coqui")
    old = torch.load(tmp_path / "coqui" / "model.pth", weights_only=True)
    prefix = next(iter(old["model"])).split("mixes")[0].split("mel_mean")[0]
    torch.save(
        {**old, "model": {f"{prefix}{key}": value for key, value in state.items()}}, tmp_path / "coqui/model.pth"
    )
    vocoder.save_pretrained(tmp_path / "ours")
    for old in ("pwg/checkpoint.pkl", "coqui/model.pth", "ours"):
        out = tmp_path / f"new_{Path(old).parts[0]}"
        assert main(["convert", str(tmp_path / old), "-o", str(out)]) == 0
        assert sorted(p.name for p in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
        found = Vocoder.from_pretrained(out)
        assert found.convention == CONVENTION
        torch.testing.assert_close(found(mel, seed=0), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("write", "weights", "config"),
    [
        (lambda vocoder, folder: vocoder.save_pretrained(folder), "model.safetensors", "config.json"),
        (lambda vocoder, folder: to_espnet(vocoder.checkpoint, folder), "checkpoint.pkl", "config.yml"),
        (lambda vocoder, folder: to_coqui(vocoder.checkpoint, folder), "model.pth", "config.json"),
    ],
)
def test_weights_of_another_mel_are_refused_with_both_files(write, weights, config, dtype, tmp_path):
    """Two mels that differ in their range alone: nothing else in the files shows it."""
    for name, fmax in (("a", 7600.0), ("b", 8000.0)):
        vocoder = vocoder_of(MelGlow, MelConvention.espnet(**CONF, fmin=80, fmax=fmax), **SIZES, lpc_order=8)
        vocoder.flow.to(dtype)
        write(vocoder, tmp_path / name)
        Vocoder.from_pretrained(tmp_path / name / weights)
    (tmp_path / "a" / config).write_bytes((tmp_path / "b" / config).read_bytes())
    says = rf"a.{weights} was trained on another mel than that of .*a.{config}: lpc.band_autocorrelations differs by"
    with pytest.raises(ValueError, match=says):
        Vocoder.from_pretrained(tmp_path / "a" / weights)


# Schemas


def test_there_is_a_golden_folder_of_every_schema():
    assert {p.name.split("_")[0] for p in GOLDEN.glob("schema*")} == {f"schema{n}" for n in range(1, SCHEMA + 1)}


@pytest.mark.parametrize("folder", sorted(GOLDEN.glob("schema*")), ids=lambda path: path.name)
def test_a_golden_folder_synthesizes_as_on_the_day_it_was_written(folder):
    from golden.make import CONVENTION as OF_THE_DAY
    from golden.make import golden_vocoder, mel_and_z

    mel, z = mel_and_z()
    expected = torch.tensor(json.loads((folder / "expected.json").read_text())["wav"])
    old = Vocoder.from_pretrained(folder)
    assert expected.abs().max() > 0.05 and old.convention == OF_THE_DAY and old.training_facts == {"steps": 3}
    torch.testing.assert_close(old(mel, z=z), expected, rtol=0, atol=1e-5)
    new = golden_vocoder(architecture(old.flow), lpc_order=old.flow.hyperparameters["lpc_order"])
    torch.testing.assert_close(new(mel, z=z), expected, rtol=0, atol=1e-5)
