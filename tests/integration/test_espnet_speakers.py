"""Speakers in ESPnet2: a FastSpeech2 with speaker numbers and embeddings synthesizes through the universal model."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from espnet_parts import FASTSPEECH2, python, write_acoustic

from melglow_plugin import Vocoder
from melglow_plugin.checkpoint.pretrained import pretrained_model
from melglow_plugin.cli import main as melglow

pytest.importorskip("espnet2")
SPEAKERS = {"spks": 3, "spk_embed_dim": 4, "spk_embed_integration_type": "add"}
EMBEDDING = np.array([0.5, -1.0, 0.2, 2.0], np.float32)


@pytest.fixture(scope="module")
def acoustic(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("acoustic")
    write_acoustic(folder, "fastspeech2", FASTSPEECH2 | SPEAKERS)
    return folder


@pytest.fixture(scope="module")
def universal(acoustic, tmp_path_factory) -> Path:
    """The released model for any voice, exported for the acoustic model's mel."""
    folder = tmp_path_factory.mktemp("universal")
    mel = ["--convention", str(acoustic / "config.yaml")]
    assert melglow(["export", str(pretrained_model()), "--format", "espnet", *mel, "-o", str(folder)]) == 0
    return folder / "checkpoint.pkl"


@pytest.fixture(scope="module")
def speak(acoustic, universal):
    import melglow_plugin.espnet

    model, train_config = str(acoustic / "model.pth"), str(acoustic / "config.yaml")
    return melglow_plugin.espnet.text2speech(train_config=train_config, model_file=model, vocoder_file=str(universal))


def test_each_speaker_has_a_mel_and_a_wav_of_its_own(speak, universal):
    others = {"another number": (2, EMBEDDING), "another embedding": (1, -EMBEDDING)}
    direct = Vocoder.from_pretrained(universal)
    first = speak("HELLO", sids=np.array([1]), spembs=EMBEDDING)
    for name, (number, embedding) in others.items():
        result = speak("HELLO", sids=np.array([number]), spembs=embedding)
        mel = result["feat_gen"]
        torch.testing.assert_close(result["wav"], direct(mel.T, seed=0), atol=1e-6, rtol=0)
        frames = min(len(mel), len(first["feat_gen"]))
        assert (mel[:frames] - first["feat_gen"][:frames]).abs().max() > 1e-3, name
        assert len(result["wav"]) == len(mel) * 256 and speak.fs == 22_050


def test_a_model_of_speakers_still_asks_for_one(speak):
    with pytest.raises(RuntimeError, match="'sids'"):
        speak("HELLO", spembs=EMBEDDING)


def test_a_batch_of_speakers_equals_single_calls(speak):
    embeddings = torch.tensor(np.stack([EMBEDDING, -EMBEDDING]))
    result = speak.batch_call(["HELLO", "HO"], sids=torch.tensor([[0], [2]]), spembs=embeddings)
    direct = Vocoder.from_checkpoint(speak.vocoder.vocoder.checkpoint)
    for wav, mel in zip(result["wav"], result["feat_gen"], strict=True):
        alone = direct(mel.T, seed=0)  # of a single call, whose rounding differs, and so do some choices of resynthesis
        assert (wav - alone).square().sum() < 1e-4 * alone.square().sum()


def test_the_command_line_takes_the_files_of_a_recipe(acoustic, universal, speak, tmp_path):
    """``utt2sid`` and embeddings, as tts.sh hands them over."""
    np.save(tmp_path / "anna.npy", EMBEDDING)
    (tmp_path / "text").write_text("a HELLO\nb HELLO\n")
    (tmp_path / "utt2sid").write_text("a 1\nb 2\n")
    (tmp_path / "spembs.scp").write_text(f"a {tmp_path / 'anna.npy'}\nb {tmp_path / 'anna.npy'}\n")
    command = ["-m", "melglow_plugin.run", "-m", "espnet2.bin.tts_inference", "--output_dir", str(tmp_path / "out")]
    for name, key, kind in (("text", "text", "text"), ("utt2sid", "sids", "text_int"), ("spembs.scp", "spembs", "npy")):
        command += ["--data_path_and_name_and_type", f"{tmp_path / name},{key},{kind}"]
    command += ["--train_config", str(acoustic / "config.yaml"), "--model_file", str(acoustic / "model.pth")]
    python(*command, "--vocoder_file", str(universal), "--num_workers", "0")
    wavs = {key: soundfile.read(tmp_path / "out" / "wav" / f"{key}.wav", dtype="float32")[0] for key in "ab"}
    expected = speak("HELLO", sids=np.array([1]), spembs=EMBEDDING)["wav"].numpy()
    np.testing.assert_allclose(wavs["a"], expected, atol=2e-4)
    assert len(wavs["a"]) != len(wavs["b"]) or np.abs(wavs["a"] - wavs["b"]).max() > 1e-3
