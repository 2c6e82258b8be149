"""The postfilter: it learns from samples and recordings, reaches as far as it says, and goes where its model goes."""

import json

import pytest
import torch
from conftest import speech, stir
from test_resynthesis import SMALL, snr

from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.checkpoint import any_file
from melglow_plugin.checkpoint.coqui import to_coqui
from melglow_plugin.checkpoint.espnet import to_espnet
from melglow_plugin.cli import main
from melglow_plugin.files import write_wav
from melglow_plugin.inference.resynthesis import RESYNTHESIS, resynthesize
from melglow_plugin.model.postfilter import Postfilter
from melglow_plugin.training.postfilter import CROP_FRAMES, Example, examples, fit, with_postfilter

SIZES = {"n_mels": 20, "hop_length": 64, "n_flows": 2, "channels": 4, "n_layers": 2}


@pytest.fixture(scope="module")
def plain():
    return Vocoder(stir(MelGlow(**SIZES), 0.02), SMALL, refine=RESYNTHESIS)


@pytest.fixture(scope="module")
def vocoder(plain):
    flow = with_postfilter(plain.flow, 3)
    stir(flow.postfilter, 0.2)
    return Vocoder(flow, SMALL, refine=RESYNTHESIS)


@pytest.fixture(scope="module")
def mel():
    return SMALL.extract(speech(0.5).float())


def test_untrained_it_changes_nothing_and_asks_for_no_gradients():
    postfilter = Postfilter(4)
    log_magnitude, envelope = torch.randn(2, 2, 9, 33).unbind()
    assert not postfilter(log_magnitude, envelope).any()
    assert not any(parameter.requires_grad for parameter in postfilter.parameters())


@pytest.mark.parametrize("bin_", [0, 16, 32])
def test_it_reaches_as_far_as_it_says(bin_):
    postfilter = stir(Postfilter(4), 0.3)
    log_magnitude, envelope = torch.randn(2, 1, 15, 33, generator=torch.Generator().manual_seed(0)).unbind()
    before = postfilter(log_magnitude, envelope)
    log_magnitude[0, 7, bin_] += 1.0
    changed = (postfilter(log_magnitude, envelope) != before).any(-1)[0].nonzero()[:, 0]
    assert (changed.min(), changed.max()) == (7 - postfilter.reach, 7 + postfilter.reach)


def test_it_learns_from_samples_and_recordings():
    """Of recordings with noise it makes spectra nearer to the recordings, also of noise that it has not met."""
    convention = MelConvention.espnet()
    wav, mel = speech(1.5).float(), convention.extract(speech(1.5).float())
    wav = torch.nn.functional.pad(wav, (0, mel.shape[-1] * 256 - len(wav)))

    def noisy(seed):
        return wav + 0.03 * wav.std() * torch.randn(wav.shape, generator=torch.Generator().manual_seed(seed))

    torch.manual_seed(0)
    postfilter, lines = Postfilter(4), []
    ratio = fit(postfilter, [Example(noisy(seed), wav, mel) for seed in range(3)], convention, 60, report=lines.append)
    assert ratio < 0.9 and lines[-1].startswith("step 60 of 60: error 0.")
    assert not any(parameter.requires_grad for parameter in postfilter.parameters())
    other = noisy(7)[None]
    errors = [_log_error(resynthesize(other, mel[None], convention, None, each)[0], wav) for each in (None, postfilter)]
    assert errors[1] < 0.95 * errors[0]


def _log_error(found, wanted):
    window = torch.hann_window(1024)
    found, wanted = (torch.stft(wav, 1024, 256, window=window, return_complex=True).abs() for wav in (found, wanted))
    return float((found.clamp(min=0.01).log() - wanted.clamp(min=0.01).log()).square().mean())


def test_examples_are_as_long_as_their_mels_and_no_shorter_than_a_crop():
    convention = MelConvention.espnet()
    wavs = [speech(1.0).float(), speech(0.1).float(), speech(0.7).float()[:-77]]
    seeds = []

    def synthesize(mel, seed):
        seeds.append(seed)
        return torch.zeros(mel.shape[-1] * 256)

    found = examples(synthesize, wavs, convention)
    assert seeds == [0, 2]
    for example, wav in zip(found, wavs[::2], strict=True):
        assert example.sample.shape == example.recording.shape == (example.mel.shape[-1] * 256,)
        assert example.mel.shape[-1] >= CROP_FRAMES and torch.equal(example.recording[: len(wav)], wav)
    with pytest.raises(ValueError, match="no recording has 40 frames"):
        fit(Postfilter(2), [], convention, 10)


def test_it_is_trained_with_frames_longer_than_a_crop():
    """Short hops: a crop is as long as it must be for some of its frames to lie in it whole."""
    convention = MelConvention.espnet(n_fft=2048, hop_length=40)
    wav, mel = speech(0.6).float(), convention.extract(speech(0.6).float())
    wav = torch.nn.functional.pad(wav, (0, mel.shape[-1] * 40 - len(wav)))
    postfilter = Postfilter(2)
    assert fit(postfilter, [Example(0.5 * wav, wav, mel)], convention, 2, report=lambda line: None) > 0
    assert postfilter.output.bias.isfinite().all()


def test_the_model_itself_stays(plain, vocoder, mel):
    assert torch.equal(vocoder(mel, seed=1, refine=0), plain(mel, seed=1, refine=0))
    assert snr(vocoder(mel, seed=1), plain(mel, seed=1)) < 20
    again = with_postfilter(vocoder.flow, 5)
    assert again.hyperparameters["postfilter_channels"] == 5 and not again.postfilter.output.weight.any()


@pytest.mark.parametrize("size", [1, 9])
def test_streams_and_batches_are_the_call(vocoder, mel, size):
    whole = vocoder(mel, seed=3)
    assert snr(torch.cat(list(vocoder.stream(mel.split(size, dim=1), seed=3))), whole) > 40
    batch = vocoder(torch.stack([mel, mel.flip(1)]), [mel.shape[1], 30], seed=3)
    assert snr(batch[0], whole) > 40 and snr(batch[1, : 30 * 64], vocoder(mel.flip(1)[:, :30], seed=3)) > 40


def test_files_of_a_model_carry_it(vocoder, mel, tmp_path):
    expected = vocoder(mel, seed=0)
    vocoder.save_pretrained(tmp_path / "folder")
    to_espnet(vocoder.checkpoint, tmp_path / "espnet")
    to_coqui(vocoder.checkpoint, tmp_path / "coqui")
    for path in ("folder", "espnet/checkpoint.pkl", "coqui/model.pth"):
        assert torch.equal(Vocoder.from_checkpoint(any_file.load(tmp_path / path))(mel, seed=0), expected)


def test_a_model_for_another_mel_keeps_it(vocoder):
    other = vocoder.adapted(MelConvention.espnet(n_fft=256, hop_length=64, n_mels=24))
    for name, value in vocoder.flow.postfilter.state_dict().items():
        assert torch.equal(other.flow.postfilter.state_dict()[name], value)


def test_an_optimizer_of_the_model_leaves_it_alone(vocoder):
    trained = {id(each) for group in vocoder.flow.parameter_groups(1e-3) for each in group["params"]}
    own = {id(each) for each in vocoder.flow.postfilter.parameters()}
    assert trained | own == {id(each) for each in vocoder.flow.parameters()} and not trained & own


def test_the_command_writes_a_model_with_one(plain, mel, tmp_path, capsys):
    plain.save_pretrained(tmp_path / "model")
    (tmp_path / "wavs").mkdir()
    for name in "ab":
        write_wav(tmp_path / "wavs" / f"{name}.wav", speech(0.5), 22_050)
    arguments = ["postfilter", str(tmp_path / "wavs"), "--checkpoint", str(tmp_path / "model"), "--steps", "5"]
    assert main([*arguments, "--channels", "2", "-o", str(tmp_path / "new")]) == 0
    assert "step 5 of 5: error" in capsys.readouterr().out
    written = Vocoder.from_pretrained(tmp_path / "new")
    assert written.refine == RESYNTHESIS and written.flow.postfilter.output.weight.any()
    assert torch.equal(written(mel, seed=0, refine=0), plain(mel, seed=0, refine=0))
    facts = json.loads((tmp_path / "new" / "config.json").read_text())
    assert facts["model"]["postfilter_channels"] == 2 and facts["training"]["postfilter"]["recordings"] == 2
    assert main([*arguments, "-o", str(tmp_path / "model")]) == 2
    assert "is the input" in capsys.readouterr().err


def test_the_command_takes_a_long_recording_in_parts(plain, tmp_path, monkeypatch):
    monkeypatch.setattr("melglow_plugin.cli.models.PART_SECONDS", 1)
    plain.save_pretrained(tmp_path / "model")
    write_wav(tmp_path / "long.wav", speech(3.2), 22_050)
    arguments = ["postfilter", str(tmp_path / "long.wav"), "--checkpoint", str(tmp_path / "model"), "--steps", "1"]
    for clips, used in (("500", 4), ("2", 2)):
        assert main([*arguments, "--clips", clips, "-o", str(tmp_path / clips)]) == 0
        facts = json.loads((tmp_path / clips / "config.json").read_text())
        assert facts["training"]["postfilter"]["recordings"] == used


def test_the_command_says_what_it_cannot_take(plain, tmp_path, capsys):
    plain.save_pretrained(tmp_path / "model")
    write_wav(tmp_path / "short.wav", speech(0.05), 22_050)
    write_wav(tmp_path / "slow.wav", speech(0.5), 16_000)
    arguments = ["postfilter", "--checkpoint", str(tmp_path / "model"), "-o", str(tmp_path / "new")]
    assert main([*arguments, str(tmp_path / "short.wav")]) == 2
    assert "no recording has 40 frames" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "slow.wav")]) == 2
    assert "slow.wav" in (error := capsys.readouterr().err) and "--resample" in error
    assert main([*arguments, "--channels", "65", str(tmp_path / "short.wav")]) == 2
    assert "postfilter_channels 65 does not lie between 0 and 64" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_what_the_command_leaves_out_is_named_and_the_others_are_trained_on(plain, tmp_path, capsys):
    plain.save_pretrained(tmp_path / "model")
    (tmp_path / "wavs").mkdir()
    for name, seconds, rate in (("good", 0.5, 22_050), ("short", 0.05, 22_050), ("tiny", 0.002, 22_050)):
        write_wav(tmp_path / "wavs" / f"{name}.wav", speech(seconds, rate), rate)
    arguments = ["postfilter", str(tmp_path / "wavs"), "--checkpoint", str(tmp_path / "model"), "--steps", "1"]
    assert main([*arguments, "-o", str(tmp_path / "new")]) == 0
    assert "2 of 3 have fewer than 40 frames of the mel" in capsys.readouterr().err
    write_wav(tmp_path / "wavs" / "slow.wav", speech(0.5, 16_000), 16_000)
    assert main([*arguments, "-o", str(tmp_path / "other")]) == 2
    error = capsys.readouterr().err
    assert "slow.wav has 16000 Hz, the model 22050 Hz" in error and "1 of 4 not trained on: slow" in error
    facts = json.loads((tmp_path / "other" / "config.json").read_text())
    assert facts["training"]["postfilter"]["recordings"] == 1


def test_the_command_says_what_is_not_as_it_was(plain, tmp_path, capsys):
    """Another refine than the model's, and a card that tells of the model that was there before."""
    Vocoder(plain.flow, SMALL, refine=1).save_pretrained(tmp_path / "model")
    plain.save_pretrained(tmp_path / "new")
    write_wav(tmp_path / "a.wav", speech(0.5), 22_050)
    arguments = ["postfilter", str(tmp_path / "a.wav"), "--checkpoint", str(tmp_path / "model"), "--steps", "1"]
    assert main([*arguments, "-o", str(tmp_path / "new"), "--overwrite"]) == 0
    error = capsys.readouterr().err
    assert "its refine is resynthesis" in error and "and was 1" in error and "README.md stays as it was" in error
