"""A model adapted to another mel synthesizes from it as from its own."""

import pytest
import torch
from conftest import speech, stir

from melglow_plugin import MelConvention, MelGlow, Vocoder, WaveGlow
from melglow_plugin.checkpoint.adapt import linear_map, without_early_outputs
from melglow_plugin.checkpoint.folder import load
from melglow_plugin.checkpoint.pretrained import pretrained_model, pretrained_models

OWN = MelConvention.espnet()
OTHERS = {
    "natural logarithm": MelConvention.espnet(log_base=None),
    "0 to 8000 Hz": MelConvention.waveglow(),
    "0 to half": MelConvention.espnet(fmin=0, fmax=None),
    "64 bins": MelConvention.espnet(n_mels=64),
    "128 bins, the lowest of which are empty": MelConvention.espnet(n_mels=128, fmin=0, fmax=None),
    "HTK, 100 bins": MelConvention.preset("vocos", 22_050),
    "power": MelConvention.espnet(fmin=0).to_dict() | {"power": 2.0},
    "Coqui's, 0 to 1": MelConvention.preset("lvcnet", 22_050),
    "per-bin statistics": MelConvention.espnet().to_dict() | {"mean": [-2.0] * 80, "std": [0.7] * 80},
}
OTHERS = {k: MelConvention.from_dict(v) if isinstance(v, dict) else v for k, v in OTHERS.items()}


@pytest.mark.parametrize("name", OTHERS)
def test_one_mel_is_nearly_a_linear_map_of_the_other(name):
    wav = speech(1.0)
    mel, wanted = OTHERS[name].extract(wav), OWN.extract(wav)
    weight, bias = linear_map(OTHERS[name], OWN)
    off = (weight @ mel + bias[:, None] - wanted).abs() * OWN.nats_per_unit
    assert off.median() < (1e-5 if not OTHERS[name].differences(OWN) else 0.25)


@pytest.mark.parametrize("name", ["natural logarithm", "per-bin statistics"])
@pytest.mark.parametrize("kind", [MelGlow, WaveGlow])
def test_other_units_give_the_same_audio(kind, name):
    flow = stir(kind(n_flows=4, channels=4, n_layers=2), 0.02)
    flow.set_mel_statistics(torch.linspace(-3, -2, 80), torch.linspace(0.5, 1, 80))
    vocoder, wav = Vocoder(flow, OWN, refine=1), speech(0.5).float()
    other = vocoder.adapted(OTHERS[name])
    found = other(OTHERS[name].extract(wav), seed=0)
    torch.testing.assert_close(found, vocoder(OWN.extract(wav), seed=0), rtol=0, atol=1e-4)
    assert other.refine == 1 and other.convention == OTHERS[name] and "adapted" in other.training_facts


@pytest.mark.skipif(not pretrained_models(), reason="needs the pretrained model")
@pytest.mark.parametrize("name", ["0 to 8000 Hz", "0 to half", "64 bins", "HTK, 100 bins", "Coqui's, 0 to 1"])
def test_the_bundled_model_likes_a_recording_as_well_by_another_mel(name, recording):
    loaded = load(pretrained_model())
    vocoder = Vocoder(loaded.flow, loaded.convention)
    other = vocoder.adapted(OTHERS[name])
    assert other.score(recording) < vocoder.score(recording) + 0.03  # nats
    mel = loaded.convention.extract(recording)
    spoken = other(OTHERS[name].extract(recording), seed=0)[: len(recording)]
    off = (loaded.convention.extract(spoken) - mel).abs().mean() * loaded.convention.nats_per_unit
    own = (loaded.convention.extract(vocoder(mel, seed=0)[: len(recording)]) - mel).abs().mean()
    assert off < 1.3 * own * loaded.convention.nats_per_unit


@pytest.fixture(scope="module")
def recording():
    from pathlib import Path

    from melglow_plugin.files import read_wav

    wavs = Path(__file__).parents[1] / "egs" / "ljspeech" / "voc1" / "corpus" / "wavs"
    return read_wav(sorted(wavs.glob("*.flac"))[0], 22_050)[: 22_050 * 4]


@pytest.mark.parametrize("kind", [MelGlow, WaveGlow])
@pytest.mark.parametrize("n_flows, early_every, early_size", [(3, 1, 2), (6, 2, 2), (4, 2, 4), (6, 5, 2)])
def test_without_early_outputs_it_computes_the_same_and_learns_more(kind, n_flows, early_every, early_size):
    sizes = {"n_mels": 5, "hop_length": 16, "channels": 4, "n_layers": 2}
    flow = stir(kind(n_flows=n_flows, early_every=early_every, early_size=early_size, **sizes)).double().eval()
    other = without_early_outputs(flow)
    mel, wav = torch.randn(2, 5, 3).double(), torch.randn(2, 48).double()
    z, log_det = flow(wav, mel)
    other_z, other_log_det = other(wav, mel)
    torch.testing.assert_close(other_log_det, log_det)
    steps, other_steps = (each.view(2, -1, flow.squeeze_factor).sort(-1).values for each in (z, other_z))
    torch.testing.assert_close(other_steps, steps)
    torch.testing.assert_close(other.inverse(other_z, mel), wav)
    assert other.hyperparameters == {**flow.hyperparameters, "early_every": n_flows} and not other.training
    other_z.square().sum().backward()
    last = other.couplings[-1].net
    assert last.end.weight.grad.unflatten(0, (2, -1))[:, -1].abs().max() > 0  # of a channel that had left
    assert without_early_outputs(other) is other


def test_what_no_map_bridges_is_refused_by_field():
    vocoder = Vocoder(MelGlow(n_flows=4, channels=4, n_layers=2), OWN)
    with pytest.raises(ValueError, match="can be adapted to the other: hop_length 256 -> 300$"):
        vocoder.adapted(MelConvention.espnet(hop_length=300, fmax=8000))


def test_the_command_line_makes_one_for_a_named_mel(tmp_path, capsys):
    from melglow_plugin.cli import main

    Vocoder(MelGlow(n_flows=4, channels=4, n_layers=2), OWN).save_pretrained(tmp_path / "model")
    assert not main(["convert", str(tmp_path / "model"), "--convention", "hifigan", "-o", str(tmp_path / "new")])
    said = capsys.readouterr().out
    assert "fmin 80.0 -> 0.0" in said and "128 samples later" in said
    assert load(tmp_path / "new").convention == MelConvention.hifigan()


VOCOS = MelConvention.preset("vocos")  # 24,000 Hz, 100 bins


@pytest.mark.parametrize("kind", [MelGlow, WaveGlow])
def test_another_rate_shifts_what_was_learned_by_the_ratio(kind):
    """The same samples, taken for 24,000 Hz, are as likely as before, and are spoken nearly as before."""
    flow = stir(kind(n_flows=4, channels=4, n_layers=2, lpc_order=16), 0.02)
    flow.set_mel_statistics(torch.linspace(-3, -2, 80), torch.linspace(0.5, 1, 80))
    flow.set_mel_bands(*OWN.band_powers())
    vocoder, wav = Vocoder(flow, OWN), speech(0.5).float()
    with pytest.raises(ValueError, match="sample_rate 22050 -> 24000"):
        vocoder.adapted(VOCOS)
    other = vocoder.adapted(VOCOS, other_rate=True)
    assert other.sample_rate == 24_000 and other.convention == VOCOS and other.flow.n_mels == 100
    assert other.score(wav) == pytest.approx(vocoder.score(wav), abs=0.1)  # nats
    fresh = Vocoder(kind(n_mels=100, n_flows=4, channels=4, n_layers=2, lpc_order=16), VOCOS)
    assert abs(fresh.score(wav) - vocoder.score(wav)) > 0.5
    for name, weight in other.flow.named_parameters():
        if not name.endswith(("input_conv.weight", "input_conv.bias", "mel_conv.weight", "mel_conv.bias")):
            assert torch.equal(weight, flow.get_parameter(name)), name


def test_another_rate_is_not_another_hop():
    flow = stir(MelGlow(n_flows=4, channels=4, n_layers=2))
    with pytest.raises(ValueError, match="hop_length 256 -> 300") as error:
        Vocoder(flow, OWN).adapted(MelConvention.espnet(fs=24_000, hop_length=300), other_rate=True)
    assert "sample_rate" not in str(error.value)


@pytest.mark.skipif(not pretrained_models(), reason="needs the pretrained model")
def test_melglow_convert_tells_what_another_rate_does(tmp_path, capsys):
    from melglow_plugin.cli import main

    command = ["convert", str(pretrained_model(OWN)), "--convention", "vocos", "-o", str(tmp_path)]
    assert main(command) == 2 and "sample_rate 22050 -> 24000" in capsys.readouterr().err
    assert not main([*command, "--rate-adapt"])
    assert "its pitch and tempo are 1.0884 times as high" in capsys.readouterr().out
    assert load(tmp_path).convention == VOCOS
