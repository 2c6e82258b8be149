"""The recipe of Coqui's FastPitch: tokens and their durations, batches, and the released folder."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("TTS")
pytest.importorskip("gruut")

import torch

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "egs" / "ljspeech" / "coqui"
SENTENCE = "Dr. Jones, the judge, paid $3."


@pytest.fixture
def recipe(monkeypatch):
    """A module of the recipe, by name."""
    monkeypatch.syspath_prepend(str(RECIPE))
    return importlib.import_module


@pytest.fixture
def config(recipe, tmp_path):
    """The recipe's configuration, as small as it can be."""
    config = recipe("train_fastpitch").configuration(tmp_path, str(tmp_path))
    args = config.model_args
    args.hidden_channels = args.pitch_predictor_hidden_channels = args.duration_predictor_hidden_channels = 8
    for sizes in (args.encoder_params, args.decoder_params):
        sizes.update(hidden_channels_ffn=8, num_layers=1)
    return config


def test_every_token_of_gruut_has_a_phone_and_a_duration(recipe, config):
    pytest.importorskip("pocketsphinx")
    align = recipe("align_fastpitch")
    tokenizer, _ = align.TTSTokenizer.init_from_config(config)
    tokens = align.tokens_of(tokenizer, SENTENCE)
    assert "".join(tokens).replace("<space>", " ") == "dɑktɚ dʒoʊnz, ðə dʒʌdʒ, peɪd θɹi dɑlɚz."
    words = align.words_by_id({"a": tokens})["a"]
    assert align.pronunciation(words[3]) == "JH AH JH"
    times = [[(i + j / 10, i + j / 10 + 0.1) for j in range(sum(len(s.phones.split()) for s in word))]
             for i, word in enumerate(words, 1)]  # fmt: skip
    counts = align.durations(tokens, align.boundaries(words, times), offset=0.9, frames=600)
    frames = align.at_least_one([0, *counts])
    assert len(frames) == len(tokenizer.text_to_ids(SENTENCE, language="en")), (
        "with the tokens of the beginning and the end"
    )
    assert sum(frames) == 600 and min(frames) == 1


@pytest.mark.parametrize(
    ("frames", "wanted"),
    [([0, 5, 0, 2], [1, 3, 1, 2]), ([3, 0, 9], [3, 1, 8]), ([1, 0, 1, 3], [1, 1, 1, 2]), ([4], [4])],
)
def test_tokens_without_time_get_a_frame_of_the_nearest(recipe, frames, wanted):
    pytest.importorskip("pocketsphinx")
    assert recipe("align_fastpitch").at_least_one(frames) == wanted


def test_fewer_frames_than_tokens_are_refused(recipe):
    pytest.importorskip("pocketsphinx")
    with pytest.raises(ValueError, match="3 tokens in 2 frames"):
        recipe("align_fastpitch").at_least_one([0, 2, 0])


def test_what_cannot_be_aligned_is_refused_by_name_or_leaves_no_file(recipe, tmp_path, monkeypatch):
    pytest.importorskip("pocketsphinx")
    align, corpus = recipe("align_fastpitch"), tmp_path / "corpus"
    (corpus / "wavs").mkdir(parents=True)
    for key, wav in {"a": 0.1 * np.ones(500), "b": 0.1 * np.ones((30_000, 2))}.items():
        align.soundfile.write(corpus / "wavs" / f"{key}.flac", wav, 22_050)
    (corpus / "metadata.csv").write_text("a|The judge paid.\nb|The judge paid.\n")
    monkeypatch.setattr(sys, "argv", ["align_fastpitch.py", str(corpus), str(tmp_path / "data")])
    with pytest.raises(ValueError, match="b.flac has 2 channels, the model 1"):
        align.main()
    times = [[(0.01 * i, 0.01 * i + 0.01)] * 9 for i in range(3)]
    with pytest.raises(ValueError, match="tokens in 2 frames"):
        tokens = list("pan")
        align.prepare(np.ones(500, np.float32), align.words_by_id({"a": tokens})["a"], tokens, lambda *_: times[:1],
                      tmp_path / "a.wav")  # fmt: skip
    assert not (tmp_path / "a.wav").exists() and not list((tmp_path / "data" / "wavs").iterdir())


def test_durations_of_other_texts_are_refused_by_name(recipe, config, tmp_path):
    fastpitch = recipe("fastpitch")
    (tmp_path / "durations.csv").write_text("a|1 2 3\n")
    model, recordings = recipe("train_fastpitch").ForwardTTS.init_from_config(config), fastpitch.Recordings(tmp_path)
    for key, count in (("a", 3), ("b", 0)):
        with pytest.raises(ValueError, match=rf"durations.csv: {key} has {count} durations, its text has \d\d tokens"):
            recordings.speak(model, key, SENTENCE)


def test_a_folder_without_durations_is_refused_before_the_training(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        recipe("train_fastpitch").main()
    assert stopped.value.code == 2 and f"--data {tmp_path}: no durations.csv there" in capsys.readouterr().err


def test_a_setting_for_a_run_that_goes_on_is_refused(recipe, config, tmp_path, monkeypatch, capsys):
    import argparse

    config.save_json(tmp_path / "config.json")
    monkeypatch.setattr(sys, "argv", ["train.py", "--continue_path", str(tmp_path), "--coqpit.epochs", "9"])
    with pytest.raises(SystemExit):
        recipe("train_melglow").read_arguments(config, argparse.ArgumentParser())
    assert "--coqpit.epochs: a run goes on with its own config.json, change it there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--continue_path", "--continue_path nowhere: no such folder"),
        ("--restore_path", "--restore_path nowhere: no such file"),
        ("--corpus", "nowhere"),
    ],
)
def test_what_the_training_of_a_vocoder_begins_with_must_be_there(recipe, tmp_path, monkeypatch, capsys, option, says):
    train_melglow = recipe("train_melglow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", option, "nowhere"])
    with pytest.raises(SystemExit) as stopped:
        train_melglow.train(train_melglow.MelglowConfig(), train_melglow.Melglow, "")
    assert stopped.value.code == 2 and says in capsys.readouterr().err.splitlines()[-1]


def test_batches_hold_recordings_of_similar_length_in_another_order_each_epoch(recipe):
    lengths = np.random.default_rng(0).permutation(np.arange(100, 1100, 10))
    sampler = recipe("train_fastpitch").Batches(lengths.tolist(), 8)
    epochs = [list(sampler) for _ in range(2)]
    assert epochs[0] != epochs[1]
    for order in epochs:
        assert len(order) == len(sampler) == len({*order}) == 96
        spans = np.ptp(lengths[order].reshape(-1, 8), axis=1)
        assert spans.mean() < 250, "of lengths that span 1000"
    assert sorted(recipe("train_fastpitch").Batches([700, 900, 800], 8)) == [0, 1, 2]  # a small dev set


def test_durations_that_do_not_fit_name_the_recording(recipe, config, monkeypatch):
    train = recipe("train_fastpitch")
    model = train.AlignedFastPitch.init_from_config(config)
    batch = {"audio_unique_names": ["lj#wavs/A"], "text_lengths": torch.tensor([2]), "mel_lengths": torch.tensor([9])}
    monkeypatch.setattr(train.ForwardTTS, "format_batch", lambda self, batch: dict(batch))
    model.frames = {"lj#wavs/A": torch.tensor([4, 5])}
    assert model.format_batch(batch)["durations"].tolist() == [[4, 5]]
    model.frames = {"lj#wavs/A": torch.tensor([4, 4])}
    with pytest.raises(ValueError, match="lj#wavs/A: 2 durations of 8 frames, 2 tokens of 9 frames"):
        model.format_batch(batch)


def test_variance_of_spoken_mels_becomes_that_of_recordings(recipe):
    fastpitch = recipe("fastpitch")
    torch.manual_seed(0)
    layer = torch.nn.Conv1d(16, 3, 1)
    hidden, recorded = torch.randn(1, 16, 500), 1.7 * torch.randn(3, 400)
    before = layer(hidden)[0].detach()
    state = {f"{fastpitch.LAST}.{name}": value for name, value in layer.state_dict().items()}
    fastpitch.match_variance(state, before, recorded)
    layer.load_state_dict({name.rpartition(".")[2]: value for name, value in state.items()})
    after = layer(hidden)[0]
    torch.testing.assert_close(after.std(1), recorded.std(1))
    torch.testing.assert_close(after.mean(1), before.mean(1))


def test_the_released_folder_gives_back_the_mean_of_the_checkpoints(recipe, config, tmp_path, monkeypatch):
    fastpitch = recipe("fastpitch")
    model = fastpitch.ForwardTTS.init_from_config(config)
    config.save_json(tmp_path / "config.json")
    for number, shift in enumerate((-0.5, 0.5)):
        state = {k: v + shift if v.is_floating_point() else v for k, v in model.state_dict().items()}
        torch.save({"model": state}, tmp_path / f"checkpoint_{number}.pth")
    checkpoints = [str(tmp_path / f"checkpoint_{number}.pth") for number in range(2)]
    monkeypatch.setattr(sys, "argv", ["fastpitch.py", "release", *checkpoints, "-o", str(tmp_path / "folder")])
    fastpitch.main()
    _, written = fastpitch.export(tmp_path / "folder", tmp_path / "coqui")
    again = torch.load(tmp_path / "coqui" / "model.pth", weights_only=True)["model"]
    for name, value in model.state_dict().items():
        if name != "emb.weight":
            torch.testing.assert_close(again[name], value, atol=1e-3, rtol=1e-3)
    index = model.tokenizer.characters.char_to_id
    assert torch.equal(again["emb.weight"][index("?")], again["emb.weight"][index(".")])
    assert str(tmp_path) not in written.read_text()
