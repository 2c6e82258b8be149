"""Sharpening: blurred frames get the contrast of a recording's, sharp ones stay, whatever the units and the company."""

import pytest
import torch
from conftest import speech, stir

from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.checkpoint import any_file
from melglow_plugin.checkpoint.coqui import to_coqui
from melglow_plugin.checkpoint.espnet import to_espnet
from melglow_plugin.cli import main
from melglow_plugin.files import read_mapping, write_json, write_yaml
from melglow_plugin.inference.cuda_graphs import GraphedSynthesis
from melglow_plugin.inference.sharpening import BLURRED, LARGEST, RAISE, sharpened
from melglow_plugin.inference.sharpness import sharpness

BANDS = MelConvention.espnet(n_fft=1024, hop_length=64, n_mels=80)
OTHERS = {
    "base, gain, shift": {"log_base": 2.0, "gain": 3.0, "shift": -1.0},
    "statistics": {"mean": [float(m) / 80 - 2 for m in range(80)], "std": [0.5 + m / 80 for m in range(80)]},
    "added floor": {"eps": 1e-6},
}


@pytest.fixture(scope="module")
def vocoder():
    return Vocoder(stir(MelGlow(n_mels=80, hop_length=64, n_flows=2, channels=4, n_layers=2), 0.02), BANDS, refine=1)


@pytest.fixture(scope="module")
def sharp():
    """Noise, whose frames are sharp: (80, F)."""
    return BANDS.extract(0.1 * torch.randn(22_050 // 2, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def blurred():
    """A mel as of an acoustic model: means over bins and frames of a recording's, (80, F)."""
    mel = BANDS.extract(speech(0.4).float())
    return torch.nn.functional.avg_pool2d(mel[None], 7, 1, 3, count_include_pad=False)[0]


def test_a_blurred_frame_s_contrast_over_the_upper_bins_is_raised(blurred):
    found = sharpened(blurred[None], BANDS, 1.0)[0]
    assert all(sharpness(frame[None, :, None], BANDS) < BLURRED for frame in blurred.T)
    weights = torch.tensor([1.0, 3.0, 4.0, 3.0, 1.0]) / 12
    mean = torch.nn.functional.conv1d(blurred.T[:, None], weights[None, None], padding=2)[:, 0].T
    nats = BANDS.nats_per_unit
    change = (RAISE * (blurred - mean) * nats)[40:78].clamp(-LARGEST, LARGEST)
    moved = (found - blurred)[40:78] * nats - change  # by as much in all bins of a frame
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), atol=1e-3, rtol=0)
    kept = [BANDS.to_linear(mel)[40:].sum(0) for mel in (found, blurred)]
    torch.testing.assert_close(*kept, atol=0, rtol=1e-4)
    assert torch.equal(found[:40], blurred[:40])
    assert 2 < sharpness(found[None], BANDS) / sharpness(blurred[None], BANDS) < 1 + RAISE
    half = sharpened(blurred[None], BANDS, 0.5)[0]
    assert 1.5 < sharpness(half[None], BANDS) / sharpness(blurred[None], BANDS) < 1 + RAISE / 2


def test_no_change_is_larger_than_the_limit(blurred):
    wide = blurred[:, :40] + 0.4 * torch.sin(torch.arange(80) / 4.0)[:, None] / BANDS.nats_per_unit
    assert sharpness(wide[None], BANDS) < BLURRED
    nats = (sharpened(wide[None], BANDS, 4.0)[0] - wide) * BANDS.nats_per_unit
    spread = nats[40:].amax(0) - nats[40:].amin(0)
    assert 1.9 * LARGEST < spread.max() < 2 * LARGEST + 1e-3


def test_sharp_frames_and_silence_stay_bit_by_bit(sharp, blurred):
    silence = torch.full((80, 7), BANDS.extract(torch.zeros(4096)).min().item())
    for mel in (sharp, silence):
        torch.testing.assert_close(sharpened(mel[None], BANDS, 1.0)[0], mel, atol=1e-5, rtol=0)
    assert torch.equal(sharpened(sharp[None], BANDS, 1.0)[0], sharp)
    assert torch.equal(sharpened(blurred[None], BANDS, 0.0)[0], blurred)
    few = torch.zeros(1, 5, 9)
    assert torch.equal(sharpened(few, MelConvention.espnet(n_fft=256, hop_length=64, n_mels=5), 1.0), few)


@pytest.mark.parametrize("name", OTHERS)
def test_the_units_of_a_mel_change_nothing(blurred, name):
    other = MelConvention.from_dict(BANDS.to_dict() | OTHERS[name])
    found = sharpened(BANDS.convert(blurred, other)[None], other, 1.0)[0]
    expected = BANDS.convert(sharpened(blurred[None], BANDS, 1.0)[0], other)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_no_value_falls_below_the_mel_s_floor(blurred):
    low = blurred - blurred.max() - 12.0
    lowest = BANDS.extract(torch.zeros(4096)).min()
    low = low.clamp(min=lowest)
    assert (low == lowest).any() and sharpened(low[None], BANDS, 4.0).min() >= lowest - 1e-5


def test_the_company_of_a_frame_changes_nothing(vocoder, sharp, blurred):
    whole = vocoder(blurred, seed=3)
    assert not torch.equal(whole, vocoder(blurred, seed=3, sharpen=0))
    streamed = torch.cat(list(vocoder.stream(blurred.split([5, 1, 40, blurred.shape[1] - 46], dim=1), seed=3)))
    torch.testing.assert_close(streamed, whole, atol=1e-5, rtol=0)
    mels = [sharp[:, :90], blurred]
    padded = torch.nn.utils.rnn.pad_sequence([m.T for m in mels], batch_first=True, padding_value=9.0).mT
    _, found = vocoder(padded, [m.shape[-1] for m in mels], seed=[1, 3])
    torch.testing.assert_close(found[: len(whole)], whole, atol=1e-5, rtol=0)
    graphed = GraphedSynthesis(vocoder.flow.inverse, BANDS, capture=lambda run, *example: run)
    with torch.no_grad():
        found, _ = graphed.synthesize(blurred[None], None, [3], 0.6, 1, 1.0)
    torch.testing.assert_close(found[0], whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(vocoder(blurred, seed=3, refine="auto"), whole, atol=1e-5, rtol=0)
    assert torch.equal(vocoder(blurred, seed=3, refine="auto", sharpen=0), vocoder(blurred, seed=3, sharpen=0))


@pytest.mark.parametrize("refine", [0, 1, "resynthesis"])
@pytest.mark.parametrize("value", [40.0, 1e4, 1e30])
def test_huge_values_behind_a_length_reach_no_sample(vocoder, sharp, blurred, value, refine):
    mels = [sharp[:, : blurred.shape[1]], blurred[:, :9]]
    batch = torch.nn.utils.rnn.pad_sequence([m.T for m in mels], batch_first=True, padding_value=value).mT
    found = vocoder(batch, [m.shape[-1] for m in mels], seed=[1, 3], refine=refine)
    for row, mel, seed in zip(found, mels, [1, 3], strict=True):
        alone = vocoder(mel, seed=seed, refine=refine)
        torch.testing.assert_close(row[: len(alone)], alone, atol=1e-3, rtol=0)


@pytest.mark.parametrize("refine", [0, 1, "resynthesis"])
@pytest.mark.parametrize("value", [40.0, 1e4, 1e30])
def test_audio_of_huge_values_is_finite(vocoder, sharp, value, refine):
    for mel in (sharp + value, sharp.where(torch.arange(sharp.shape[1]) != 30, value)):
        wav = vocoder(mel, seed=0, refine=refine)
        assert torch.isfinite(wav).all() and wav.abs().max() <= 1


def test_the_flow_and_its_refinement_get_the_sharpened_mel(vocoder, blurred):
    expected = vocoder(sharpened(blurred[None], BANDS, 1.0)[0], seed=3, sharpen=0)
    torch.testing.assert_close(vocoder(blurred, seed=3), expected)


def test_a_latent_that_is_given_is_inverted_with_the_mel_as_it_is(vocoder, blurred):
    z = vocoder.noise(1, 0.6, 1, blurred.shape[-1])[0]
    torch.testing.assert_close(vocoder(blurred, z=z), vocoder.decode(z, blurred).clamp(-1, 1))
    assert not torch.equal(vocoder(blurred, z=z, sharpen=1), vocoder(blurred, z=z))


@pytest.mark.parametrize("wrong", [-1, float("nan"), "1", True, 5])
def test_no_other_strength(vocoder, blurred, wrong):
    for call in (lambda: vocoder(blurred, sharpen=wrong), lambda: list(vocoder.stream([blurred], sharpen=wrong)),
                 lambda: Vocoder(vocoder.flow, BANDS, sharpen=wrong)):  # fmt: skip
        with pytest.raises(ValueError, match="sharpen .* is no number from 0 to 4"):
            call()


def test_every_format_keeps_the_strength_and_older_files_have_the_whole(vocoder, blurred, tmp_path):
    unsharpened = Vocoder(vocoder.flow, BANDS, refine=1, sharpen=0)
    unsharpened.save_pretrained(tmp_path / "folder")
    files = [tmp_path / "folder" / "config.json", *(write(unsharpened.checkpoint, tmp_path / name)[1]
             for name, write in (("espnet", to_espnet), ("coqui", to_coqui)))]  # fmt: skip
    for config in files:
        values = read_mapping(config)
        held = values.get("melglow", values)
        model = config.parent if config.parent.name == "folder" else next(config.parent.glob("*.p*"))
        assert any_file.load(model).sharpen == 0 == held.pop("sharpen")
        (write_yaml if config.suffix == ".yml" else write_json)(config, values)
        assert any_file.load(model).sharpen == 1
    assert torch.equal(unsharpened(blurred, seed=1), vocoder(blurred, seed=1, sharpen=0))


def test_the_commands_take_a_strength(vocoder, blurred, tmp_path):
    import numpy as np

    vocoder.save_pretrained(tmp_path / "model")
    main(["convert", str(tmp_path / "model"), "--sharpen", "0", "-o", str(tmp_path / "plain")])
    assert any_file.load(tmp_path / "plain").sharpen == 0
    np.save(tmp_path / "mel.npy", blurred.numpy())
    for name, options in (("default", []), ("none", ["--sharpen", "0"]), ("whole", ["--sharpen", "1"])):
        call = ["synthesize", str(tmp_path / "mel.npy"), "--checkpoint", str(tmp_path / "model"), *options]
        main([*call, "-o", str(tmp_path / name)])
    default, none, whole = ((tmp_path / name / "mel.wav").read_bytes() for name in ("default", "none", "whole"))
    assert default == whole != none
