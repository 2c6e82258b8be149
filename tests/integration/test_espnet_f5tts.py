"""ESPnet3's F5-TTS synthesizes through MelGlow, chosen by ``vocoder_path``; its model has random weights."""

import numpy as np
import pytest
import torch
import yaml
from conftest import speech, stir
from espnet_parts import python

pytest.importorskip("espnet3.systems.f5tts", reason="this ESPnet has no F5-TTS")
from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.checkpoint.pretrained import pretrained_models

RATE = 24_000
TEXT = "it is warm in the morning sun."
MODEL = {
    "_target_": "espnet3.systems.f5tts.src.f5tts.F5TTS", "hidden_size": 32, "depth": 1, "attention_heads": 2,
    "attention_head_size": 16, "text_embedding_size": 16, "convolution_layers": 1,
    "feats_extract_config": {"fs": RATE, "n_fft": 1024, "hop_length": 256, "win_length": 1024, "n_mels": 100},
}  # fmt: skip


@pytest.fixture(scope="module")
def universal():
    """The released model of Vocos' mel."""
    return next(model for model in pretrained_models() if model.name == "melglow_universal_24k")


@pytest.fixture(scope="module")
def acoustic(tmp_path_factory):
    """Options of ``F5TTSInference`` for a checkpoint as Lightning writes it."""
    from hydra.utils import instantiate

    folder = tmp_path_factory.mktemp("f5tts")
    tokens = ["<blank>", "<unk>", *"abcdefghijklmnopqrstuvwxyz .", "<sos/eos>"]
    preprocessor = {"token_list": tokens, "token_type": "char", "text_cleaner": None}
    config = {"model": MODEL | {"token_list": tokens}, "dataset": {"preprocessor": preprocessor}}
    (folder / "training.yaml").write_text(yaml.safe_dump(config))
    torch.manual_seed(0)
    model = instantiate(config["model"])
    torch.save({"state_dict": stir(model, 0.02).state_dict()}, folder / "last.ckpt")
    return {
        "train_config": str(folder / "training.yaml"), "checkpoint_path": str(folder / "last.ckpt"),
        "use_ema": False, "ode_solver_steps": 2, "seed": 0,
    }  # fmt: skip


def load(acoustic, vocoder_path, **changes):
    from melglow_plugin.espnet import f5tts_inference

    return f5tts_inference(**acoustic, vocoder_path=str(vocoder_path), **changes)


def reference():
    return speech(1.0, RATE).float().numpy()


def test_the_unmodified_inference_gives_what_the_vocoder_gives_of_its_mel(acoustic, universal, monkeypatch):
    host = load(acoustic, universal)
    mels, decode = [], host.vocoder.decode
    monkeypatch.setattr(host.vocoder, "decode", lambda mel: mels.append(mel) or decode(mel))
    wav = host(text=TEXT, reference_speech=reference(), reference_text="hello there")["wav"]
    (mel,) = mels
    expected = Vocoder.from_pretrained(universal)(mel[0], seed=0).numpy()
    loudness = min(1.0, float(np.sqrt(np.mean(np.square(reference())))) / host.target_rms)  # which the host restores
    assert mel.shape[:2] == (1, 100) and len(wav) == mel.shape[2] * 256 and np.abs(wav).max() > 1e-3
    np.testing.assert_allclose(wav, loudness * expected, atol=1e-5)


def test_the_mel_is_the_models_own(acoustic, universal):
    """A recording's mel, extracted by F5-TTS: its copy has that mel again."""
    host = load(acoustic, universal)
    wav = torch.from_numpy(reference())
    mel = host.cfm.mel_spec(wav[None])
    torch.testing.assert_close(mel[0], host.vocoder.convention.extract(wav), atol=2e-3, rtol=0)
    copy = host.vocoder.decode(mel)
    assert copy.shape == (1, mel.shape[2] * 256)
    found = host.cfm.mel_spec(copy[:, : len(wav)])
    assert (found - mel)[..., 4:-4].abs().mean() < 0.5  # nats


def test_a_mel_of_another_kind_is_refused_by_field(acoustic, tmp_path):
    torch.manual_seed(0)
    flow = MelGlow(n_flows=2, early_every=2, channels=4, n_layers=2)
    Vocoder(flow, MelConvention.espnet(fs=RATE)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"n_mels 100 -> 80.*melglow_universal_24k takes it"):
        load(acoustic, tmp_path)


def test_another_rate_and_a_missing_model_are_refused(acoustic, universal, tmp_path):
    with pytest.raises(ValueError, match="target_sample_rate 22050 Hz, .*_24k has 24000 Hz"):
        load(acoustic, universal, target_sample_rate=22_050)
    with pytest.raises(ValueError, match="config.json is missing: a model folder holds"):
        load(acoustic, tmp_path)


def test_a_folder_of_vocos_is_left_to_espnet(acoustic, tmp_path):
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(Exception, match="feature_extractor"):
        load(acoustic, tmp_path)


def test_with_the_hook_the_class_itself_knows_melglow(acoustic, universal):
    code = (
        "from espnet3.systems.f5tts.inference import F5TTSInference as F\n"
        f"print(type(F(**{acoustic!r}, vocoder_path={str(universal)!r}).vocoder).__name__)"
    )
    assert "F5Vocoder" in python("-m", "melglow_plugin.run", "-c", code).stdout
