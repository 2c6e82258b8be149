"""ESPnet2's unmodified inference speaks through MelGlow."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import stir

from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.export import to_espnet

pytest.importorskip("espnet2")
ROOT = Path(__file__).parents[2]

SIZES = {"n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 2}
TOKENS = ["<blank>", "<unk>", "H", "E", "L", "O", "<sos/eos>"]


def python(*arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert not check or result.returncode == 0, result.stderr[-3000:]
    return result


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    flow = stir(MelGlow(**SIZES), 0.02)
    flow.set_mel_statistics(torch.full((80,), -2.4), torch.full((80,), 0.8))
    vocoder = Vocoder(flow, MelConvention.espnet())
    folder = tmp_path_factory.mktemp("packed")
    vocoder.save_pretrained(folder / "model")
    to_espnet(vocoder, folder / "espnet")
    return folder


@pytest.fixture(scope="module")
def acoustic(tmp_path_factory) -> Path:
    """FastSpeech2 with random weights, written as ESPnet's trainer would write it."""
    from espnet2.tasks.tts import TTSTask

    folder = tmp_path_factory.mktemp("acoustic")
    sizes = {
        "adim": 8, "aheads": 2, "elayers": 1, "dlayers": 1, "eunits": 8, "dunits": 8, "postnet_layers": 1,
        "postnet_chans": 8, "duration_predictor_chans": 8, "pitch_predictor_chans": 8, "energy_predictor_chans": 8,
    }  # fmt: skip
    mel = {"fs": 22_050, "n_fft": 1024, "hop_length": 256, "fmin": 80, "fmax": 7600}
    tokens = folder / "tokens.txt"
    tokens.write_text("\n".join(TOKENS) + "\n")
    arguments = [
        "--output_dir",
        str(folder),
        "--token_list",
        str(tokens),
        "--token_type",
        "char",
        "--tts",
        "fastspeech2",
    ]
    for name in ("normalize", "pitch_extract", "energy_extract", "pitch_normalize", "energy_normalize"):
        arguments += [f"--{name}", "none"]
    for option, values in (("tts_conf", sizes), ("feats_extract_conf", mel)):
        for key, value in values.items():
            arguments += [f"--{option}", f"{key}={value}"]
    args = TTSTask.get_parser().parse_args(arguments)
    torch.manual_seed(0)
    model = TTSTask.build_model(args)
    with torch.no_grad():  # every token lasts a few frames
        model.tts.duration_predictor.linear.bias.fill_(2.0)
    config = {key: value for key, value in vars(args).items() if key != "config"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), folder / "model.pth")
    return folder


def options(acoustic: Path, packed: Path, out: Path) -> list[str]:
    (out / "text").write_text("a HELLO\nb HO\n")
    return [
        "--output_dir", str(out / "wav"), "--data_path_and_name_and_type", f"{out / 'text'},text,text",
        "--train_config", str(acoustic / "config.yaml"), "--model_file", str(acoustic / "model.pth"),
        "--vocoder_file", str(packed / "espnet" / "checkpoint.pkl"), "--num_workers", "0",
    ]  # fmt: skip


def test_the_unmodified_command_line_speaks_through_the_vocoder(acoustic, packed, tmp_path):
    python("-m", "melglow_plugin.run", "-m", "espnet2.bin.tts_inference", *options(acoustic, packed, tmp_path))
    for key in "ab":
        wav, rate = soundfile.read(tmp_path / "wav" / "wav" / f"{key}.wav", dtype="float32")
        feats_file = next((tmp_path / "wav").glob(f"**/norm/**/{key}.npy"), None) or next(
            (tmp_path / "wav").glob(f"**/{key}.npy")
        )
        feats = np.load(feats_file)
        vocoder = Vocoder.from_pretrained(packed / "model")
        expected = vocoder(torch.from_numpy(feats.T), seed=0)
        assert rate == 22_050 and len(wav) == len(feats) * 256
        torch.testing.assert_close(torch.from_numpy(wav), expected, atol=2e-4, rtol=0)


def test_without_the_hook_espnet_refuses(acoustic, packed, tmp_path):
    result = python("-m", "espnet2.bin.tts_inference", *options(acoustic, packed, tmp_path), check=False)
    assert result.returncode != 0


def load(acoustic, packed, **changes):
    from espnet2.bin.tts_inference import Text2Speech

    return Text2Speech(
        train_config=str(acoustic / "config.yaml"),
        model_file=str(acoustic / "model.pth"),
        vocoder_file=str(packed / "espnet" / "checkpoint.pkl"),
        **changes,
    )


@pytest.fixture(scope="module", autouse=True)
def _registered():
    import melglow_plugin.espnet

    melglow_plugin.espnet.register()
    melglow_plugin.espnet.register()  # twice is once


def test_registered_in_python_it_equals_the_vocoder_called_directly(acoustic, packed):
    speak = load(acoustic, packed)
    result = speak("HELLO")
    expected = Vocoder.from_pretrained(packed / "model")(result["feat_gen"].T, seed=0)
    assert speak.fs == 22_050
    torch.testing.assert_close(result["wav"], expected, atol=1e-6, rtol=0)


def test_half_precision_models_are_tolerated(acoustic, packed):
    vocoder = load(acoustic, packed).vocoder.to(torch.float16)
    wav = vocoder(torch.full((7, 80), -2.0, dtype=torch.float16), f0=torch.zeros(7))
    assert wav.shape == (7 * 256,) and wav.dtype == torch.float32 and torch.isfinite(wav).all()


@pytest.mark.parametrize(
    ("conf", "says"),
    [
        ({"fmin": 0, "fmax": 8000}, ["fmin 0.0 -> 80.0", "fmax 8000.0 -> 7600.0"]),
        ({"fs": 24_000, "hop_length": 300}, ["sample_rate 24000 -> 22050", "hop_length 300 -> 256"]),
        ({"htk": True}, ["mel_scale htk -> slaney"]),
    ],
)
def test_another_filterbank_is_refused_by_field_before_any_audio(acoustic, packed, tmp_path, conf, says):
    config = yaml.safe_load((acoustic / "config.yaml").read_text())
    config["feats_extract_conf"].update(conf)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    weights = torch.load(acoustic / "model.pth")
    torch.save({k: v for k, v in weights.items() if "melmat" not in k}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="do not fit this vocoder") as error:
        load(tmp_path, packed)
    for text in says:
        assert text in str(error.value)


def test_another_log_base_is_converted(acoustic, packed, tmp_path):
    config = yaml.safe_load((acoustic / "config.yaml").read_text())
    config["feats_extract_conf"]["log_base"] = None
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "model.pth").symlink_to(acoustic / "model.pth")
    vocoder = load(tmp_path, packed).vocoder
    mel = torch.randn(9, 80) - 2.4
    natural = mel * torch.log(torch.tensor(10.0))
    expected = Vocoder.from_pretrained(packed / "model")(mel.T, seed=0)
    torch.testing.assert_close(vocoder(natural), expected, atol=1e-4, rtol=0)


def test_other_vocoders_still_go_to_espnet(tmp_path):
    from espnet2.tts.utils import ParallelWaveGANPretrainedVocoder

    (tmp_path / "config.yml").write_text("generator_type: HiFiGANGenerator\nsampling_rate: 22050\n")
    with pytest.raises(ImportError, match="parallel_wavegan"):
        ParallelWaveGANPretrainedVocoder(tmp_path / "checkpoint.pkl")


def test_there_and_back_is_the_same_model(packed):
    from melglow_plugin.convert import from_espnet_pack

    mel = torch.randn(80, 6)
    back = from_espnet_pack(packed / "espnet" / "checkpoint.pkl")
    assert torch.equal(back(mel, seed=3), Vocoder.from_pretrained(packed / "model")(mel, seed=3))
