"""The command line: files in, files out, one line and status 2 on bad input."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import speech, stir

from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.checkpoint import pretrained
from melglow_plugin.cli import main
from melglow_plugin.cli.synthesis import MEL
from melglow_plugin.inference.chunks import look_ahead

ROOT = Path(__file__).parent.parent
CONVENTION = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)


@pytest.fixture
def model(tmp_path):
    flow = stir(MelGlow(n_mels=20, hop_length=64, n_flows=2, channels=4, n_layers=2), 0.02)
    Vocoder(flow, CONVENTION, {"steps": 3}).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, speech(0.3).numpy(), 22_050)
    return path


def test_synthesize_equals_the_vocoder(model, tmp_path):
    mels = {name: torch.randn(20, frames) - 2 for name, frames in (("a", 7), ("b", 12), ("c", 9))}
    for name, mel in mels.items():
        np.save(tmp_path / f"{name}.npy", mel.numpy())
    files = [str(tmp_path / f"{name}.npy") for name in mels]
    assert (
        main(["synthesize", *files, "--checkpoint", str(model), "-o", str(tmp_path / "out"), "--batch-size", "2"]) == 0
    )
    vocoder = Vocoder.from_pretrained(model)
    for name, mel in mels.items():
        wav, rate = soundfile.read(tmp_path / "out" / f"{name}.wav", dtype="float32")
        assert rate == 22_050
        np.testing.assert_allclose(wav, vocoder(mel, seed=0).numpy(), atol=2e-4)


def test_synthesize_converts_a_named_convention_and_reads_a_feats_scp(model, tmp_path):
    mel = torch.randn(20, 8) - 2
    natural = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20, log_base=None)
    np.save(tmp_path / "x.npy", CONVENTION.convert(mel, natural).numpy())
    (tmp_path / "natural.json").write_text(json.dumps(natural.to_dict()))
    (tmp_path / "feats.scp").write_text(f"utt {tmp_path / 'x.npy'}\n")
    arguments = ["--checkpoint", str(model), "-o", str(tmp_path), "--convention", str(tmp_path / "natural.json")]
    assert main(["synthesize", str(tmp_path / "feats.scp"), *arguments]) == 0
    wav, _ = soundfile.read(tmp_path / "utt.wav", dtype="float32")
    np.testing.assert_allclose(wav, Vocoder.from_pretrained(model)(mel, seed=0).numpy(), atol=2e-4)


@pytest.fixture
def later(tmp_path):
    """A mel whose frames lie half a hop later than the model's, as HiFi-GAN's do, and its convention."""
    convention = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)
    convention = MelConvention.from_dict(convention.to_dict() | {"center": False, "pad": 96})
    (tmp_path / "later.json").write_text(json.dumps(convention.to_dict()))
    np.save(tmp_path / "x.npy", (torch.randn(20, 8) - 2).numpy())
    return ["synthesize", str(tmp_path / "x.npy"), "--convention", str(tmp_path / "later.json"), "-o", str(tmp_path)]


def test_an_approximation_is_named_and_needs_consent(later, model, tmp_path, capsys, recwarn):
    assert main([*later, "--checkpoint", str(model)]) == 2
    error = capsys.readouterr().err
    assert "center False -> True; pad 96 -> 0. --approximate accepts this: frames 32 samples later" in error
    assert main([*later, "--checkpoint", str(model), "--approximate"]) == 0
    assert capsys.readouterr().err.startswith("approximate: frames 32 samples later") and not recwarn.list
    mel = torch.from_numpy(np.load(tmp_path / "x.npy"))
    wav, _ = soundfile.read(tmp_path / "x.wav", dtype="float32")
    np.testing.assert_allclose(wav, Vocoder.from_pretrained(model)(mel, seed=0).numpy(), atol=2e-4)


def test_the_bundled_model_nearest_to_the_mel_synthesizes(later, model, tmp_path, monkeypatch):
    other = MelConvention.from_dict(CONVENTION.to_dict() | {"center": False, "pad": 96})
    flow = stir(MelGlow(n_mels=20, hop_length=64, n_flows=2, channels=4, n_layers=2), 0.02)
    Vocoder(flow, other).save_pretrained(tmp_path / "other")
    monkeypatch.setattr(pretrained, "pretrained_models", lambda: [model, tmp_path / "other"])
    assert pretrained.pretrained_model() == pretrained.pretrained_model(CONVENTION) == model
    assert pretrained.pretrained_model(other) == tmp_path / "other"
    assert main(later) == 0
    mel = torch.from_numpy(np.load(tmp_path / "x.npy"))
    wav, _ = soundfile.read(tmp_path / "x.wav", dtype="float32")
    np.testing.assert_allclose(wav, Vocoder.from_pretrained(tmp_path / "other")(mel, seed=0).numpy(), atol=2e-4)


def test_a_convention_that_does_not_fit_is_refused_by_field(model, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros((80, 5), dtype=np.float32))
    options = ["--checkpoint", str(model), "-o", str(tmp_path), "--convention", "hifigan"]
    assert main(["synthesize", str(tmp_path / "x.npy"), *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for field in ("n_fft 1024 -> 256", "hop_length 256 -> 64", "fmax 8000.0 -> 7600.0", "center False -> True"):
        assert field in error
    assert not (tmp_path / "x.wav").exists()


def test_copy_has_the_length_of_the_recording_and_is_logged(model, recording, tmp_path):
    log = tmp_path / "log.csv"
    assert (
        main(["copy", str(recording), "--checkpoint", str(model), "-o", str(tmp_path / "out"), "--log", str(log)]) == 0
    )
    assert soundfile.info(tmp_path / "out" / "clip.wav").frames == soundfile.info(recording).frames
    header, row = log.read_text().splitlines()
    assert header == "id,seconds,rtf,bits_per_sample" and row.startswith("clip,0.3,")


def test_score_prints_bits_per_sample(model, recording, capsys):
    assert main(["score", str(recording), "--checkpoint", str(model)]) == 0
    first, mean = capsys.readouterr().out.splitlines()
    wav = torch.from_numpy(soundfile.read(recording, dtype="float32")[0])
    expected = float(Vocoder.from_pretrained(model).score(wav)[0]) / np.log(2) + 15
    assert float(first.split()[0]) == pytest.approx(expected, abs=2e-3)
    assert "mean of 1" in mean


def test_info_as_json(model, capsys):
    assert main(["info", str(model), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["architecture"] == "melglow" and facts["training"] == {"steps": 3}
    assert facts["parameters"] == sum(p.numel() for p in Vocoder.from_pretrained(model).parameters())
    assert len(facts["sha256"]) == 64
    vocoder = Vocoder.from_pretrained(model)
    frames = look_ahead(vocoder.flow, vocoder.convention, vocoder.refine)
    assert facts["look-ahead"] == f"{frames} frames, {frames * 64 / 22_050:.3f} s"


def test_info_shows_nested_facts_as_rows(tmp_path, model, capsys):
    vocoder = Vocoder.from_pretrained(model)
    vocoder.training_facts = {"metrics": {"eval, ESTOI": "0.838"}}
    vocoder.save_pretrained(tmp_path / "told")
    assert main(["info", str(tmp_path / "told")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["metrics:"] in lines and ["eval,", "ESTOI", "0.838"] in lines


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: soundfile.write(p, np.zeros(9000), 16_000), "16000 Hz, the model 22050 Hz"),
        (lambda p: soundfile.write(p, np.zeros((9000, 2)), 22_050), "2 channels, the model 1"),
        (lambda p: p.write_text("no audio"), "cannot be read"),
        (lambda p: soundfile.write(p, np.zeros(50), 22_050), "50 samples"),
    ],
)
def test_bad_recordings_are_one_line_and_status_2(model, tmp_path, capsys, make, says):
    path = tmp_path / "bad.wav"
    make(path)
    assert main(["copy", str(path), "--checkpoint", str(model), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert says in error.splitlines()[-1]
    assert not (tmp_path / "out" / "bad.wav").exists()


def test_a_recording_of_another_rate_and_two_channels_is_resampled_where_asked(model, tmp_path, capsys):
    t = np.arange(48_000) / 48_000
    stereo = np.stack([0.2 * np.sin(2 * np.pi * 440 * t), 0.1 * np.sin(2 * np.pi * 440 * t)], 1)
    soundfile.write(tmp_path / "stereo.wav", stereo, 48_000, subtype="FLOAT")
    here = np.arange(22_050) / 22_050
    soundfile.write(tmp_path / "mono.wav", 0.15 * np.sin(2 * np.pi * 440 * here), 22_050, subtype="FLOAT")
    copy = ["copy", "--checkpoint", str(model), "-o", str(tmp_path / "out"), "--seed", "1"]
    assert main([*copy, str(tmp_path / "stereo.wav")]) == 2
    assert "has 48000 Hz, the model 22050 Hz (--resample converts it)" in capsys.readouterr().err
    assert main([*copy, "--resample", str(tmp_path / "stereo.wav"), str(tmp_path / "mono.wav")]) == 0
    (a, rate), (b, _) = (soundfile.read(tmp_path / "out" / f"{name}.wav") for name in ("stereo", "mono"))
    assert rate == 22_050 and len(a) == len(b) == 22_050
    middle = slice(4_000, -4_000)
    assert np.abs(a - b)[middle].max() < 0.05 * np.abs(b)[middle].max()
    assert main(["score", "--checkpoint", str(model), "--resample", str(tmp_path / "stereo.wav")]) == 0


def test_export_for_espnet_holds_what_espnet_reads(model, tmp_path):
    import yaml

    assert main(["export", str(model), "--format", "espnet", "-o", str(tmp_path / "espnet")]) == 0
    config = yaml.safe_load((tmp_path / "espnet" / "config.yml").read_text())
    assert config["sampling_rate"] == 22_050 and config["generator_type"] and config["format"]
    state = torch.load(tmp_path / "espnet" / "checkpoint.pkl", weights_only=True)["model"]["generator"]
    assert set(state) == set(Vocoder.from_pretrained(model).flow.state_dict())


def test_rounds_are_a_number_or_auto(model, recording, tmp_path, capsys):
    arguments = ["copy", str(recording), "--checkpoint", str(model), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--refine", "auto"]) == 0
    assert all(main([*arguments, "--refine", each, "--overwrite"]) == 0 for each in ("2", "resynthesis"))
    with pytest.raises(SystemExit) as refused:
        main([*arguments, "--refine", "often"])
    assert refused.value.code == 2 and "'often' is no whole number, not auto" in capsys.readouterr().err


def test_a_strange_mel_is_warned_of_in_one_line_with_its_file(tmp_path):
    flow = stir(MelGlow(n_mels=20, hop_length=64, n_flows=2, channels=4, n_layers=2), 0.02)
    flow.set_mel_statistics(torch.full((20,), -2.0), torch.full((20,), 0.5))
    Vocoder(flow, CONVENTION).save_pretrained(tmp_path / "model")
    for name, mean in (("right", -2), ("wrong", 3)):
        np.save(tmp_path / f"{name}.npy", 0.5 * np.random.default_rng(0).standard_normal((20, 200)) + mean)
    command = [sys.executable, "-m", "melglow_plugin.cli", "synthesize", "right.npy", "wrong.npy"]
    run = subprocess.run(
        [*command, "--checkpoint", "model", "-o", "out"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    said = [line for line in run.stderr.splitlines() if "warning" in line.lower()]
    assert len(said) == 1 and said[0].startswith("melglow synthesize: warning: wrong.npy: this mel"), run.stderr


def test_after_a_command_warnings_look_as_before(capsys):
    before = warnings.formatwarning
    assert main(["info", "nowhere"]) == 2
    assert warnings.formatwarning is before


def test_the_mel_that_is_assumed_is_said(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.load(ROOT / MEL)[:, :60])
    arguments = ["synthesize", str(tmp_path / "x.npy"), "--refine", "0", "-o"]
    assert main([*arguments, str(tmp_path / "assumed")]) == 0
    assert "taken for mels of 80 bins from 0 to 8000 Hz at 22050 Hz, log10; --convention" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "said"), "--convention", "espnet"]) == 0
    assert not capsys.readouterr().err


def test_the_example_of_the_readme_is_told_what_its_mel_is(tmp_path):
    mel = np.load(ROOT / MEL)
    own = Vocoder.from_pretrained(ROOT / "pretrained/melglow_ljspeech")
    for name, stored in (("bins_first", mel[:, :100]), ("frames_first", mel[:, :100].T)):
        np.save(tmp_path / f"{name}.npy", stored)
        assert main(["synthesize", str(tmp_path / f"{name}.npy"), "-o", str(tmp_path), "--convention", "espnet"]) == 0
        wav, _ = soundfile.read(tmp_path / f"{name}.wav", dtype="float32")
        np.testing.assert_allclose(wav, own(torch.from_numpy(mel[:, :100]), seed=0).numpy(), atol=2e-4)


def test_a_clip_that_is_not_written_is_not_in_the_log(model, recording, tmp_path, monkeypatch):
    def full(path, wav, rate):
        raise OSError(13, "Permission denied", str(path))

    monkeypatch.setattr("melglow_plugin.cli.shared.write_wav", full)
    arguments = ["copy", str(recording), "--checkpoint", str(model), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--log", str(tmp_path / "log.csv")]) == 2
    assert not (tmp_path / "log.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["copy", "clip.wav", "-o", "out", "--checkpoint", ""], "--checkpoint is empty"),
        (["copy", "clip.wav", "-o", "clip.wav"], "clip.wav is a file, wanted a folder"),
        (["copy", "pipe.wav", "-o", "out"], "pipe.wav: a pipe or device, wanted a file"),
        (["bench", "-o", "clip.wav"], "clip.wav is a file, wanted a folder"),
        (["eval", "clip.wav", "clip.wav", "-o", "out", "--log", "other.csv"], "other.csv is none of melglow copy"),
        (["info", "here"], "name the model: checkpoint.pkl"),
        (["synthesize", "two.npy", "-o", "out"], "two.npy cannot be read: it holds a, b: name one as two.npy:NAME"),
        (["synthesize", "broken.npy", "-o", "out"], "broken.npy is a damaged archive"),
        (["synthesize", "two.npz:c", "-o", "out"], "two.npz cannot be read: it holds a, b: name one as two.npz:NAME"),
        (["synthesize", "words.zip", "-o", "out"], "words.zip is an archive of words.txt, wanted a .npz of arrays"),
        (["synthesize", "objects.npz", "-o", "out"], "objects.npz cannot be read: it holds Python objects"),
        (["synthesize", "model.pt", "-o", "out"], "model.pt cannot be read: it holds a, b: name one as model.pt:NAME"),
        (["synthesize", "list.pt", "-o", "out"], "list.pt holds a list, wanted a plain tensor"),
        (["synthesize", "wide.pt", "-o", "out"], "wide.pt: a tensor of shape (80, 4000000) is larger than"),
        (["synthesize", "text.pt", "-o", "out"], "text.pt holds more than tensors, or is damaged"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_computed(arguments, says, recording, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "checkpoint.pkl").write_bytes(b"")
    (tmp_path / "other.csv").write_text("name,score\na,1\n")
    os.mkfifo(tmp_path / "pipe.wav")
    with open("two.npy", "wb") as file:
        np.savez(file, a=np.zeros(2), b=np.zeros(2))
    shutil.copy("two.npy", "two.npz")
    np.savez("objects.npz", np.array([None, {}]))
    with zipfile.ZipFile("words.zip", "w") as archive:
        archive.writestr("words.txt", "a")
    torch.save({"a": torch.zeros(2), "b": torch.zeros(2), "step": 1}, "model.pt")
    torch.save([1, 2], "list.pt")
    torch.save(torch.zeros(80, 1).expand(80, 4_000_000), "wide.pt")
    (tmp_path / "text.pt").write_text("no tensor")
    (tmp_path / "broken.npy").write_bytes(b"PK\x03\x04 and no more")
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("module, extra", [("onnxscript", "export"), ("pysptk", "eval"), ("nothing", "")])
def test_a_missing_package_is_named_with_the_extra_that_installs_it(tmp_path, monkeypatch, capsys, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("melglow_plugin.cli.models.load_vocoder", lambda *_: importlib.import_module(module))
    assert main(["export", "--format", "onnx", "-o", str(tmp_path)]) == 2
    says = f'sys.modules: pip install "melglow-plugin[{extra}]"\n' if extra else "None in sys.modules\n"
    assert capsys.readouterr().err.endswith(says)
