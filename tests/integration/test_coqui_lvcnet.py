"""LVCNet as a generator of Coqui's own GAN: its trainer, losses, discriminators, Synthesizer and commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import speech

pytest.importorskip("TTS")

from coqui_parts import (
    AUDIO,
    SENTENCE,
    SILENCE,
    UNITS,
    export_vocoder,
    glow_tts,
    options,
    python,
    synthesizer,
    train,
    train_from,
    train_on,
    weights,
)
from TTS.config import load_config
from TTS.vocoder.models import setup_model
from TTS.vocoder.models.gan import GAN

from melglow_plugin import LVCNetGenerator, MelConvention, Vocoder
from melglow_plugin.checkpoint.coqui import from_coqui
from melglow_plugin.cli import main as melglow
from melglow_plugin.coqui.gan_config import LVCnetConfig

SIZES = {"n_blocks": 2, "channels": 4, "n_layers": 2, "predictor_channels": 8, "lpc_order": 8}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Of the two epochs, which have two steps each, the second one has the discriminator."""
    values = {
        "generator_model": "lvcnet_generator", "generator_model_params": SIZES,
        "discriminator_model_params": {"num_layers": 4}, "steps_to_start_discriminator": 2,
    }  # fmt: skip
    return train(tmp_path_factory.mktemp("train"), values)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    return export_vocoder(tmp_path_factory.mktemp("exported"), LVCNetGenerator(**SIZES))


def test_it_trains_continues_and_what_it_learned_synthesizes(trained, tmp_path):
    early, before = weights(trained / "checkpoint_2.pth"), weights(trained / "best_model.pth")
    statistics = "model_g.vocoder.flow.mel_mean"
    assert not torch.equal(early[statistics], torch.zeros(80)) and torch.equal(early[statistics], before[statistics])
    assert any(name.startswith("model_d.") and not torch.equal(early[name], before[name]) for name in before)

    newest = train_on(trained)
    assert melglow(["convert", str(newest), "-o", str(tmp_path)]) == 0
    vocoder, mel = Vocoder.from_pretrained(tmp_path), torch.randn(80, 7) - 2.4
    model = setup_model(load_config(trained / "config.json"))
    model.load_checkpoint(model.config, newest, eval=True)
    assert type(model) is GAN and model.model_d is None
    assert torch.equal(model.inference(mel[None])[0, 0], vocoder(mel, seed=0))


def test_training_starts_from_an_exported_model(exported, trained, tmp_path):
    adversarial = {"discriminator_model": "hifigan_discriminator", "use_feat_match_loss": True}
    best = train_from(exported, trained, tmp_path, **adversarial, lr_gen=1e-9, steps_to_start_discriminator=100)
    assert from_coqui(best).convention == Vocoder.from_pretrained(exported / "model").convention


@pytest.mark.parametrize("units", UNITS)
def test_the_synthesizer_gives_what_the_vocoder_called_directly_gives(exported, tmp_path, units):
    host = synthesizer(exported, glow_tts(tmp_path, **UNITS[units]))
    wav = torch.tensor(np.array(host.tts(SENTENCE))).float()
    mel = host.tts_model.synthesize(text=SENTENCE)["outputs"]["model_outputs"][0].T
    vocoder = Vocoder.from_pretrained(exported / "model")
    expected = vocoder(MelConvention.coqui({**AUDIO, **UNITS[units]}).convert(mel, vocoder.convention), seed=0)
    assert len(wav) == mel.shape[1] * 256 + SILENCE and mel.shape[1] > 10
    torch.testing.assert_close(wav[:-SILENCE], expected, atol=1e-3 * float(expected.std()), rtol=0)


def test_another_filterbank_is_refused_by_field_before_any_audio(exported, tmp_path):
    with pytest.raises(ValueError, match="fmin 0.0 -> 80.0; fmax 8000.0 -> 7600.0"):
        synthesizer(exported, glow_tts(tmp_path, mel_fmin=0.0, mel_fmax=8000.0))


def test_the_command_line_and_the_python_api_synthesize(exported, tmp_path):
    from TTS.api import TTS

    acoustic = glow_tts(tmp_path, **UNITS["recipes"])
    paths = {option.lstrip("-"): value for option, value in zip(*[iter(options(exported, acoustic))] * 2, strict=True)}
    expected = np.array(TTS(**paths, progress_bar=False).to("cpu").tts(SENTENCE))
    said = ["--text", SENTENCE, "--out_path", "out.wav"]
    python("-m", "TTS.bin.synthesize", *said, *options(exported, acoustic), cwd=tmp_path)
    wav, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == 22_050 and len(wav) == len(expected)
    np.testing.assert_allclose(wav / np.abs(wav).max(), expected / np.abs(expected).max(), atol=1e-4)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"generator_model_parms": {}}, "generator_model_parms: no field of LVCnetConfig"),
        ({"generator_model_params": {"n_flows": 3}}, "generator_model_params.n_flows: no field of LVCnetArgs"),
        ({"seq_len": 1000}, "seq_len 1000 is no multiple of audio.hop_length 256"),
    ],
)
def test_a_mistaken_configuration_is_refused_by_field(tmp_path, changes, message):
    (tmp_path / "config.json").write_text(json.dumps({"generator_model": "lvcnet_generator", **changes}))
    with pytest.raises(ValueError, match=message):
        setup_model(load_config(tmp_path / "config.json"))


@pytest.mark.parametrize("discriminator", ["hifigan_discriminator", "univnet_discriminator"])
def test_other_discriminators_of_coqui_teach_every_layer(discriminator):
    config = LVCnetConfig(
        generator_model_params=SIZES, discriminator_model=discriminator, use_feat_match_loss=True, use_stft_loss=False
    )
    model = setup_model(config).train()
    model.train_disc = True
    batch = {"input": torch.randn(1, 80, 16) - 2.4, "waveform": speech(16 * 256 / 22_050).float()[None, None]}
    criteria = model.get_criterion()
    _, judged = model.train_step(batch, criteria[0], 0)
    judged["loss"].backward()
    _, losses = model.train_step(batch, criteria[1], 1)
    losses["loss"].backward()
    assert losses["G_feat_match_loss"] > 0 and losses["G_mse_fake_loss"] > 0
    for name, weight in model.named_parameters():
        assert not weight.requires_grad or (weight.grad is not None and torch.isfinite(weight.grad).all()), name


def test_coquis_own_generators_are_made_as_before():
    from TTS.vocoder.configs import ParallelWaveganConfig

    assert type(setup_model(ParallelWaveganConfig()).model_g).__name__ == "ParallelWaveganGenerator"
