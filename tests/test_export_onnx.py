"""The exported graph gives the vocoder's audio, at lengths and batches it was not exported at."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import speech, stir, vocoder_of

from melglow_plugin import MelConvention, MelGlow, WaveGlow

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).parents[1]
CONVENTION = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)
SIZES = {"n_mels": 20, "hop_length": 64, "n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 2, "lpc_order": 8}


@pytest.fixture(scope="module", params=[MelGlow, WaveGlow], ids=["melglow", "waveglow"])
def exported(request, tmp_path_factory):
    from melglow_plugin.checkpoint.onnx import to_onnx

    torch.manual_seed(0)
    vocoder = vocoder_of(request.param, CONVENTION, **SIZES)
    (path,) = to_onnx(vocoder.checkpoint, tmp_path_factory.mktemp("onnx"))
    return vocoder, onnxruntime.InferenceSession(str(path))


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (1, 7), (3, 50), (1, 400), (3, 2000)])
def test_any_length_and_batch(exported, batch, frames):
    vocoder, session = exported
    mel, z = 0.5 * torch.randn(batch, 20, frames) - 2.5, 0.6 * torch.randn(batch, frames * 64)
    (wav,) = session.run(None, {"mel": mel.numpy(), "z": z.numpy()})
    assert wav.dtype == np.float32
    np.testing.assert_allclose(wav, vocoder(mel, z=z).numpy(), atol=1e-4)


def test_the_file_says_what_its_mel_means(exported):
    vocoder, session = exported
    metadata = session.get_modelmeta().custom_metadata_map
    assert MelConvention.from_dict(json.loads(metadata["convention"])) == vocoder.convention
    assert (metadata["sample_rate"], metadata["hop_length"], metadata["refine"]) == ("22050", "64", "0")
    assert json.loads(metadata["training"]) == vocoder.training_facts


@pytest.mark.parametrize("kind", [MelGlow, WaveGlow])
def test_a_torch_program_gives_the_same_audio_at_any_length_and_batch(kind, tmp_path):
    from melglow_plugin.checkpoint.onnx import to_program

    torch.manual_seed(0)
    vocoder = vocoder_of(kind, CONVENTION, **SIZES, postfilter_channels=2)
    (path,) = to_program(vocoder.checkpoint, tmp_path)
    facts = {"facts.json": ""}
    program = torch.export.load(path, extra_files=facts).module()
    for batch, frames in [(1, 7), (3, 50), (2, 300)]:
        mel, z = 0.5 * torch.randn(batch, 20, frames) - 2.5, 0.6 * torch.randn(batch, frames * 64)
        torch.testing.assert_close(program(mel, z), vocoder(mel, z=z), rtol=0, atol=1e-4)
    facts = json.loads(facts["facts.json"])
    assert facts["hop_length"] == 64 and len(facts["filterbank"]) == 20
    assert torch.equal(torch.tensor(facts["postfilter"][0]["weight"]), vocoder.flow.postfilter.convs[0].weight)


def test_the_example_synthesizes_without_torch(exported, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    vocoder, session = exported
    mel = torch.randn(20, 33)
    np.save(tmp_path / "mel.npy", mel.numpy())
    example = ROOT / "egs" / "ljspeech" / "onnx" / "synthesize.py"
    no_torch = (
        "import sys, os, runpy; sys.modules['torch'] = None; sys.path.insert(0, os.path.dirname(sys.argv[1])); "
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    arguments = [session._model_path, str(tmp_path / "mel.npy"), str(tmp_path / "out.wav")]
    subprocess.run([sys.executable, "-c", no_torch, str(example), *arguments], check=True)
    wav, rate = soundfile.read(tmp_path / "out.wav")
    assert (len(wav), rate) == (33 * 64, 22_050) and np.abs(wav).max() > 1e-4


@pytest.mark.parametrize("mel", [np.zeros((1, 20, 5)), np.zeros((5, 20)), np.zeros((20, 0)), np.full((20, 5), np.nan)])
def test_the_example_refuses_what_is_no_mel(exported, tmp_path, mel):
    pytest.importorskip("soundfile")
    np.save(tmp_path / "mel.npy", mel)
    example, out = ROOT / "egs" / "ljspeech" / "onnx" / "synthesize.py", tmp_path / "out.wav"
    command = [sys.executable, str(example), exported[1]._model_path, str(tmp_path / "mel.npy"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    wanted = f"{tmp_path / 'mel.npy'} has shape {mel.shape}, wanted (20, frames) of finite values\n"
    assert done.returncode == 1 and done.stderr == wanted and not out.exists()


def test_the_example_without_its_three_files_says_which(tmp_path):
    pytest.importorskip("soundfile")
    example = ROOT / "egs" / "ljspeech" / "onnx" / "synthesize.py"
    done = subprocess.run([sys.executable, str(example), "model.onnx", "mel.npy"], capture_output=True, text=True)
    assert done.returncode and done.stderr == "usage: synthesize.py model.onnx mel.npy out.wav\n"


@pytest.mark.parametrize(
    "convention",
    [
        MelConvention.espnet(),
        MelConvention.espnet(n_fft=1000, hop_length=240, win_length=800),
        MelConvention.hifigan(),
        MelConvention.preset("constant_memory"),
        MelConvention.preset("wg_wavenet"),
        MelConvention.from_dict(MelConvention.waveglow().to_dict() | {"mean": [-3.0] * 80, "std": [0.7] * 80}),
    ],
    ids=["espnet", "other sizes", "hifigan", "power", "pre-emphasis", "statistics"],
)
def test_the_example_sharpens_and_refines_as_the_vocoder_does(convention, monkeypatch):

    from melglow_plugin.checkpoint.onnx import _filters, _layers
    from melglow_plugin.inference.full_scale import FullScale
    from melglow_plugin.inference.refine import refine
    from melglow_plugin.inference.resynthesis import RESYNTHESIS, resynthesize
    from melglow_plugin.inference.sharpening import sharpened
    from melglow_plugin.inference.sharpness import bend_of_noise
    from melglow_plugin.model.postfilter import Postfilter

    monkeypatch.syspath_prepend(str(ROOT / "egs" / "ljspeech" / "onnx"))
    for name in ("refine", "resynthesis", "sharpen"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import refine as example
    import resynthesis
    import sharpen

    mel = convention.extract(speech(0.4))
    wav = speech(0.5)[: mel.shape[1] * convention.hop_length].float() + 0.02 * torch.randn(
        mel.shape[1] * convention.hop_length
    )
    facts = {"convention": json.dumps(convention.to_dict()), "refine": "3",
             "filterbank": json.dumps(_filters(convention))}  # fmt: skip
    expected = refine(wav[None], mel[None], convention, 3)[0].clamp(-1, 1)
    found = example.refine(wav.numpy(), mel.float().numpy(), facts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found - wav.numpy()).max() > 1e-3
    for postfilter in (None, stir(Postfilter(3), 0.2)):
        expected = resynthesize(wav[None], mel[None], convention, postfilter=postfilter)[0].numpy()
        facts |= {"refine": json.dumps(RESYNTHESIS), "postfilter": json.dumps(_layers(postfilter))}
        found = example.refine(wav.numpy(), mel.float().numpy(), facts)
        error = np.square(found - expected).sum() / np.square(expected).sum()
        assert found.dtype == np.float32 and error < 1e-4  # rounding decides between neighbours that are as loud
    loud, hop = (4 * wav / wav.abs().max())[None], convention.hop_length
    expected = FullScale(hop)(loud, ends=True)[0].numpy()
    np.testing.assert_allclose(resynthesis.within_full_scale(loud[0].numpy(), hop), expected, atol=1e-4)
    blurred = torch.nn.functional.avg_pool1d(mel.float().T, 7, 1, 3, count_include_pad=False).T - 5.0
    facts |= {"sharpen": "0.8", "bend_of_noise": json.dumps(bend_of_noise(convention))}
    expected = sharpened(blurred[None], convention, 0.8)[0].numpy()
    np.testing.assert_allclose(sharpen.sharpen(blurred.numpy(), facts), expected, atol=1e-3)
    assert np.abs(expected - blurred.numpy()).max() > 0.01
    huge = blurred.numpy() + 1e4
    for kind in ("3", json.dumps(RESYNTHESIS)):
        facts |= {"refine": kind}
        assert np.isfinite(example.refine(wav.numpy(), sharpen.sharpen(huge, facts), facts)).all()
