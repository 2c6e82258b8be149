"""ESPnet2's unmodified inference synthesizes with MelGlow."""

import contextlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import stir
from espnet_parts import FASTSPEECH2, ROOT, TACOTRON2, python, write_acoustic

from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.checkpoint.espnet import from_espnet_pack, to_espnet

pytest.importorskip("espnet2")
SIZES = {"n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 2}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    flow = stir(MelGlow(**SIZES), 0.02)
    flow.set_mel_statistics(torch.full((80,), -2.4), torch.full((80,), 0.8))
    vocoder = Vocoder(flow, MelConvention.espnet())
    folder = tmp_path_factory.mktemp("packed")
    vocoder.save_pretrained(folder / "model")
    to_espnet(vocoder.checkpoint, folder / "espnet")
    return folder


@pytest.fixture(scope="module")
def acoustic(tmp_path_factory) -> Path:
    """FastSpeech2 whose mel is not normalised."""
    folder = tmp_path_factory.mktemp("acoustic")
    write_acoustic(folder, "fastspeech2", FASTSPEECH2)
    return folder


@pytest.fixture(scope="module")
def tacotron2(tmp_path_factory) -> Path:
    """Tacotron2 whose mel is normalised, as in ESPnet's LJSpeech recipe."""
    folder = tmp_path_factory.mktemp("tacotron2")
    mean, std, count = np.linspace(-3.0, -1.0, 80), np.full(80, 0.7), 1000
    np.savez(folder / "feats_stats.npz", count=count, sum=count * mean, sum_square=count * (std**2 + mean**2))
    stats = f"stats_file={folder / 'feats_stats.npz'}"
    write_acoustic(folder, "tacotron2", TACOTRON2, normalize="global_mvn", normalize_conf=stats)
    return folder


def options(acoustic: Path, packed: Path, out: Path) -> list[str]:
    (out / "text").write_text("a HELLO\nb HO\n")
    return [
        "--output_dir", str(out / "wav"), "--data_path_and_name_and_type", f"{out / 'text'},text,text",
        "--train_config", str(acoustic / "config.yaml"), "--model_file", str(acoustic / "model.pth"),
        "--vocoder_file", str(packed / "espnet" / "checkpoint.pkl"), "--num_workers", "0",
    ]  # fmt: skip


def test_the_unmodified_command_line_synthesizes_through_the_vocoder(acoustic, packed, tmp_path):
    """In a Python of its own: the hook is there before ESPnet is."""
    command = [sys.executable, "-m", "melglow_plugin.run", "-m", "espnet2.bin.tts_inference"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *options(acoustic, packed, tmp_path)], env=environment, check=True, timeout=300)
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

    given = {"vocoder_file": str(packed / "espnet" / "checkpoint.pkl"), **changes}
    return Text2Speech(train_config=str(acoustic / "config.yaml"), model_file=str(acoustic / "model.pth"), **given)


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


def test_tacotron2_synthesizes_at_the_level_of_its_denormalised_features(tacotron2, packed):
    speak = load(tacotron2, packed, threshold=1.0, maxlenratio=4.0)  # never stops by itself
    result = speak("HELLO")
    vocoder = Vocoder.from_pretrained(packed / "model")
    feats = result["feat_gen_denorm"]
    assert speak.fs == 22_050 and len(feats) == 4 * 6 and len(result["wav"]) == len(feats) * 256
    torch.testing.assert_close(result["wav"], vocoder(feats.T, seed=0), atol=1e-6, rtol=0)
    stats = np.load(tacotron2 / "feats_stats.npz")
    expected = result["feat_gen"] * 0.7 + torch.from_numpy(stats["sum"] / stats["count"])
    torch.testing.assert_close(feats.double(), expected.double(), atol=1e-4, rtol=0)
    wrong = vocoder(result["feat_gen"].T, seed=0)
    assert (result["wav"] - wrong).abs().max() > 1e-3


def test_normalised_features_are_refused(tacotron2, packed):
    with pytest.raises(ValueError, match="prefer_normalized_feats True: this vocoder takes de-normalised mels"):
        load(tacotron2, packed, prefer_normalized_feats=True)


def test_a_batch_is_synthesized_at_once_and_equals_single_calls(acoustic, packed, monkeypatch):
    speak = load(acoustic, packed)
    texts = ["HELLO", "HO", "OLE"]
    shapes = []
    vocode = speak.vocoder.vocoder.forward
    monkeypatch.setattr(
        speak.vocoder.vocoder, "forward", lambda mel, *a, **k: shapes.append(tuple(mel.shape)) or vocode(mel, *a, **k)
    )
    result = speak.batch_call(texts)
    lengths = [len(feats) for feats in result["feat_gen"]]
    assert shapes == [(3, 80, max(lengths))] and len(set(lengths)) > 1
    direct = Vocoder.from_pretrained(packed / "model")
    for wav, feats in zip(result["wav"], result["feat_gen"], strict=True):
        assert len(wav) == len(feats) * 256
        torch.testing.assert_close(wav, direct(feats.T, seed=0), atol=1e-5, rtol=0)
    assert speak.fs == 22_050  # ESPnet's object still has its vocoder


@pytest.fixture(scope="module")
def pack(acoustic, packed, tmp_path_factory) -> Path:
    """What espnet2.bin.pack writes, with a vocoder put into it."""
    from espnet2.main_funcs.pack_funcs import pack

    folder = tmp_path_factory.mktemp("pack")
    with contextlib.chdir(acoustic):  # a pack holds paths below the folder where it was made
        pack({"model_file": "model.pth"}, {"train_config": "config.yaml"}, folder / "tts.zip", ["tokens.txt"])
    python("-m", "melglow_plugin.espnet.pack", str(folder / "tts.zip"), "--vocoder_file", str(packed / "model"),
           "-o", str(folder / "melglow.zip"))  # fmt: skip
    return folder / "melglow.zip"


def test_espnet_synthesize_synthesizes_through_the_vocoder_of_a_pack(acoustic, pack, packed, tmp_path):
    python("-m", "melglow_plugin.run", "-m", "espnet2.bin.cli", "synthesize", "HELLO", "--model", str(pack),
           "--device", "cpu", "-o", str(tmp_path / "out.wav"), HOME=str(tmp_path))  # fmt: skip
    expected = load(acoustic, packed)("HELLO")["wav"]
    wav, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert rate == 22_050
    torch.testing.assert_close(torch.from_numpy(wav), expected, atol=1e-4, rtol=0)


def test_what_is_no_pack_and_no_vocoder_is_refused_by_name(pack, packed, tmp_path):
    from melglow_plugin.espnet.pack import add_vocoder

    ours = packed / "espnet" / "checkpoint.pkl"
    (tmp_path / "config.yml").write_text("generator_type: HiFiGANGenerator\n")
    (tmp_path / "other.pkl").write_bytes(b"")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "checkpoint.pkl").write_bytes(ours.read_bytes()[:5000])
    (tmp_path / "cut" / "config.yml").write_bytes(ours.with_name("config.yml").read_bytes())
    for arguments, says in (
        ((pack, tmp_path / "other.pkl", tmp_path / "out.zip"), "other.pkl .* no exported MelGlow"),
        ((ours, ours, tmp_path / "out.zip"), "checkpoint.pkl is no .zip with meta.yaml"),
        ((pack, ours, pack), "is the pack itself"),
        ((pack, tmp_path / "cut" / "checkpoint.pkl", tmp_path / "out.zip"), "cut.checkpoint.pkl "),
    ):
        with pytest.raises(ValueError, match=says):
            add_vocoder(*arguments)
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ("- files", "damaged.zip: meta.yaml holds a list, wanted named values"),
        ("yaml_files: {train_config: a}", "damaged.zip: meta.yaml names no model_file"),
        ("files:\nyaml_files: {train_config: a}", "damaged.zip: meta.yaml names no model_file"),
        ("files: [model_file]", "damaged.zip: files of meta.yaml is a list"),
        ("files: {", "damaged.zip: meta.yaml is no YAML"),
        (None, "damaged.zip: Bad CRC-32 for file 'model.pth'"),
    ],
)
def test_a_damaged_pack_is_refused_by_name(packed, tmp_path, meta, says):
    from melglow_plugin.espnet.pack import add_vocoder

    path = tmp_path / "damaged.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("meta.yaml", meta or "files: {model_file: model.pth}\nyaml_files: {train_config: a}")
        file.writestr("model.pth", b"weights")
    path.write_bytes(path.read_bytes().replace(b"weights", b"weighty"))
    with pytest.raises(ValueError, match=says):
        add_vocoder(path, packed / "espnet" / "checkpoint.pkl", tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_the_command_names_the_new_pack_and_replaces_no_file_unasked(pack, packed, tmp_path, monkeypatch, capsys):
    from melglow_plugin.espnet.pack import main

    out, ours = tmp_path / "out.zip", packed / "espnet" / "checkpoint.pkl"
    out.write_bytes(b"mine")
    command = ["pack", str(pack), "--vocoder_file", str(ours), "-o", str(out)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(ValueError, match="out.zip is there already: --overwrite replaces it"):
        main()
    assert out.read_bytes() == b"mine"
    monkeypatch.setattr("sys.argv", [*command, "--overwrite"])
    main()
    assert capsys.readouterr().out == f"{out}\n" and out.stat().st_size > pack.stat().st_size // 2
    monkeypatch.setattr("sys.argv", [*command[:-1], str(ours), "--overwrite"])
    with pytest.raises(ValueError, match="is the input"):
        main()


def test_hydra_and_so_espnet3_build_it_from_a_target(acoustic, packed):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    config = {"_target_": "melglow_plugin.espnet.text2speech", "train_config": str(acoustic / "config.yaml"),
              "model_file": str(acoustic / "model.pth"),
              "vocoder_file": str(packed / "espnet" / "checkpoint.pkl")}  # fmt: skip
    speak = instantiate(OmegaConf.create(config), device="cpu")  # as InferenceProvider.build_model does
    result = speak("HELLO")
    expected = Vocoder.from_pretrained(packed / "model")(result["feat_gen"].T, seed=0)
    torch.testing.assert_close(result["wav"], expected, atol=1e-6, rtol=0)


def test_half_precision_models_are_tolerated(acoustic, packed):
    vocoder = load(acoustic, packed).vocoder.to(torch.float16)
    wav = vocoder(torch.full((7, 80), -2.0, dtype=torch.float16), f0=torch.zeros(7))
    assert wav.shape == (7 * 256,) and wav.dtype == torch.float32 and torch.isfinite(wav).all()


def test_another_filterbank_is_refused_by_field_before_any_audio(acoustic, packed, tmp_path):
    """Text2Speech hands its model over; test_matrix.py has the other fields."""
    config = yaml.safe_load((acoustic / "config.yaml").read_text())
    config["feats_extract_conf"].update(fmin=0, fmax=8000)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    weights = torch.load(acoustic / "model.pth")
    torch.save({k: v for k, v in weights.items() if "melmat" not in k}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="does not fit this vocoder.*fmin 0.0 -> 80.0; fmax 8000.0 -> 7600.0"):
        load(tmp_path, packed)


@pytest.mark.parametrize(
    "config",
    [
        b"generator_type: HiFiGANGenerator\n",
        b"generator_type: HiFiGANGenerator\nsize: !!python/tuple [1, 2]\nscale: !!python/name:numpy.float64\n",
        b"generator_type: !custom {}\n",
        b"- generator_type\n",
        b"generator_type: {\n",
        b"generator_type: \xe9\xff\n",
        b"when: 2020-13-45\n",
    ],
    ids=["plain", "python_tags", "custom_tag", "list", "broken", "no_utf8", "no_date"],
)
def test_other_vocoders_still_go_to_espnet(config, tmp_path):
    from espnet2.tts.utils import ParallelWaveGANPretrainedVocoder

    (tmp_path / "config.yml").write_bytes(config)
    with pytest.raises(ImportError, match="parallel_wavegan"):
        ParallelWaveGANPretrainedVocoder(tmp_path / "checkpoint.pkl")


def test_a_damaged_configuration_of_ours_is_refused_by_name(packed, tmp_path):
    from melglow_plugin.espnet.vocoder import names_melglow

    text = (packed / "espnet" / "config.yml").read_text()
    (tmp_path / "config.yml").write_text(text + "  - [")
    (tmp_path / "checkpoint.pkl").write_bytes((packed / "espnet" / "checkpoint.pkl").read_bytes())
    assert names_melglow(tmp_path / "checkpoint.pkl")
    with pytest.raises(ValueError, match="config.yml"):
        from_espnet_pack(tmp_path / "checkpoint.pkl")


def test_there_and_back_is_the_same_model(packed):
    mel = torch.randn(80, 6)
    back = Vocoder.from_pretrained(packed / "espnet" / "checkpoint.pkl")
    assert torch.equal(back(mel, seed=3), Vocoder.from_pretrained(packed / "model")(mel, seed=3))


@pytest.mark.parametrize("name", ["model", "model/model.safetensors", "model/config.json", "espnet"])
def test_a_model_folder_is_a_vocoder_file_without_an_export(packed, acoustic, name):
    text2speech = load(acoustic, packed, vocoder_file=str(packed / name))
    expected = load(acoustic, packed)("HELLO")
    assert text2speech.fs == 22_050 and torch.equal(text2speech("HELLO")["wav"], expected["wav"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vocoder_file": "no.pkl"}, "no.pkl: no such file"),
        ({"vocoder_file": "no_folder"}, "no_folder: no such file"),
        ({"vocoder_file": "empty"}, "empty.config.json is missing"),
        (
            {"vocoder_file": "bare/alone.pkl"},
            "bare.config.yml is missing or empty: .*alone.pkl needs it, melglow export",
        ),
        ({"vocoder_file": "model", "vocoder_config": "espnet/config.yml"}, "config.yml: leave it out, .*model is read"),
    ],
)
def test_a_vocoder_file_that_is_no_model_is_named(packed, acoustic, changes, says):
    (packed / "empty").mkdir(exist_ok=True)
    (packed / "bare").mkdir(exist_ok=True)
    (packed / "bare" / "alone.pkl").write_bytes(b"\x80")
    with pytest.raises(ValueError, match=says):
        load(acoustic, packed, **{field: str(packed / name) for field, name in changes.items()})
