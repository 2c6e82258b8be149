"""MelGlow and LVCNet inside ESPnet2's joint_text2wav, MelGlow with its likelihood beside the other losses."""

import pytest
import torch
from conftest import speech, stir
from espnet_parts import TACOTRON2

pytest.importorskip("espnet2")

HOP, FRAMES, SEGMENT = 64, 24, 8
LOSS = {"fs": 22_050, "n_fft": 256, "hop_length": HOP, "window": "hann", "n_mels": 20, "fmin": 0, "fmax": None}


@pytest.fixture(scope="module")
def joint():
    """Makes a model with random weights; arguments are those of the generator."""
    from melglow_plugin import hook

    hook.install()
    from espnet2.gan_tts.joint.joint_text2wav import JointText2Wav

    def make(vocoder_type="melglow_generator", **vocoder_params):
        torch.manual_seed(0)
        sizes = {"n_mels": 20, "hop_length": HOP, "channels": 4, "n_layers": 2}
        sizes |= {"n_flows": 4, "early_every": 2} if vocoder_type == "melglow_generator" else {"n_blocks": 2}
        return JointText2Wav(
            idim=7, odim=20, segment_size=SEGMENT, text2mel_type="tacotron2", vocoder_type=vocoder_type,
            text2mel_params={**TACOTRON2, "dropout_rate": 0.0, "zoneout_rate": 0.0},
            vocoder_params={**sizes, **vocoder_params}, discriminator_type="hifigan_period_discriminator",
            discriminator_params={"period": 2, "channels": 4, "max_downsample_channels": 8}, mel_loss_params=LOSS,
            use_feat_match_loss=False,
        )  # fmt: skip

    return make


@pytest.fixture
def batch() -> dict:
    wav = speech(0.2).float()[: FRAMES * HOP]
    return {
        "text": torch.randint(1, 6, (2, 5)), "text_lengths": torch.tensor([5, 4]),
        "feats": torch.randn(2, FRAMES, 20), "feats_lengths": torch.tensor([FRAMES, FRAMES - 4]),
        "speech": torch.stack([wav, 0.5 * wav]), "speech_lengths": torch.tensor([len(wav), len(wav) - 4 * HOP]),
    }  # fmt: skip


def generator_turn(model, batch) -> dict:
    torch.manual_seed(1)
    return model(**batch, forward_generator=True)


def test_the_likelihood_is_added_with_its_weight(joint, batch):
    results = [generator_turn(joint(lambda_nll=weight), batch) for weight in (0.0, 3.0)]
    assert torch.isfinite(results[1]["stats"]["nll"]).all()
    torch.testing.assert_close(results[1]["loss"], results[0]["loss"] + 3.0 * results[1]["stats"]["nll"])
    torch.testing.assert_close(results[1]["stats"]["loss"], results[1]["loss"].detach())


def test_it_is_that_of_the_recordings_segment_given_the_acoustic_models_mel(joint, batch, monkeypatch):
    model, seen = joint(), []
    flow = model.generator["vocoder"].flow
    forward = flow.forward
    monkeypatch.setattr(flow, "forward", lambda wav, mel: seen.append((wav, mel)) or forward(wav, mel))
    generator_turn(model, batch)
    [(wav, mel)] = seen
    assert wav.shape == (2, SEGMENT * HOP) and mel.shape == (2, 20, SEGMENT)
    for row, recording in zip(wav, batch["speech"], strict=True):  # dequantised: half a 16-bit step away
        distances = [(row - part).abs().max() for part in recording.unfold(0, SEGMENT * HOP, HOP)]
        assert min(distances) < 2**-15


def test_it_teaches_flow_and_acoustic_model(joint, batch):
    model = joint(lambda_nll=1.0)
    stir(model.generator["vocoder"])  # a fresh flow does not listen to its mel
    model.lambda_adv = model.lambda_text2mel = model.lambda_mel = 0.0
    generator_turn(model, batch)["loss"].backward()
    moved = {name for name, p in model.generator.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert "vocoder.flow.convs_1x1.0.weight" in moved and any(name.startswith("text2mel.dec") for name in moved)


def test_the_discriminator_learns_as_before_and_inference_gives_a_wav(joint, batch):
    model = joint()
    output = model(**batch, forward_generator=False)
    assert output["optim_idx"] == 1 and torch.isfinite(output["loss"]).all()
    with torch.no_grad():
        result = model.eval().inference(batch["text"][0], maxlenratio=2.0, threshold=1.0)
    assert result["wav"].shape == (len(result["feat_gen"]) * HOP, 1)
    assert model.generator["vocoder"].upsample_factor == HOP


def test_lvcnet_learns_with_the_acoustic_model_from_espnets_losses_alone(joint, batch):
    model = joint("lvcnet_generator")
    output = generator_turn(model, batch)
    assert "nll" not in output["stats"]
    output["loss"].backward()
    unmoved = [name for name, p in model.generator["vocoder"].named_parameters() if not p.grad.abs().sum() > 0]
    assert unmoved == [] and model.generator["text2mel"].dec.feat_out.weight.grad.abs().sum() > 0
    assert model(**batch, forward_generator=False)["optim_idx"] == 1
    with torch.no_grad():
        result = model.eval().inference(batch["text"][0], maxlenratio=2.0, threshold=1.0)
    assert result["wav"].shape == (len(result["feat_gen"]) * HOP, 1) and result["wav"].abs().max() <= 1


def test_other_generators_stay_as_they_are(joint, batch):
    from espnet2.gan_tts.joint.joint_text2wav import AVAILABLE_VOCODER

    assert set(AVAILABLE_VOCODER) > {"hifigan_generator", "melgan_generator", "melglow_generator", "lvcnet_generator"}
