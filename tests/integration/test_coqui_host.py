"""Coqui's unmodified trainer, Synthesizer and command lines know MelGlow."""

import copy
import functools
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import zygote

pytest.importorskip("TTS")

from coqui_parts import (
    AUDIO,
    ROOT,
    SENTENCE,
    SILENCE,
    SIZES,
    TWO_RANKS,
    UNITS,
    export_vocoder,
    glow_tts,
    options,
    other_acoustic,
    python,
    synthesizer,
    train,
    train_from,
    train_on,
    weights,
)
from TTS.config import load_config
from TTS.tts.utils.text.tokenizer import TTSTokenizer
from TTS.vocoder.models import setup_model

from melglow_plugin import MelConvention, Vocoder
from melglow_plugin.checkpoint.coqui import from_coqui
from melglow_plugin.cli import main as melglow
from melglow_plugin.training.corpus import find_recordings, read_metadata

# Training


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    values = {"model": "melglow", "model_params": SIZES, "eval_seq_len": 4096, "lr": 1e-3}
    return train(tmp_path_factory.mktemp("train"), values, start=True)


def test_the_trainer_trains_writes_checkpoints_and_shows_copies(trained):
    assert {"config.json", "best_model.pth", "checkpoint_2.pth"} <= {path.name for path in trained.iterdir()}
    early, late = weights(trained / "checkpoint_2.pth"), weights(trained / "best_model.pth")
    assert not torch.equal(early["vocoder.flow.mel_mean"], torch.zeros(80))
    assert torch.equal(early["vocoder.flow.mel_mean"], late["vocoder.flow.mel_mean"])
    events = b"".join(path.read_bytes() for path in trained.glob("events*"))
    for tag in (b"TestAudios/test_0/audio", b"EvalAudios/eval/audio", b"EvalFigures/eval/spectrogram/fake"):
        assert tag in events, tag


def test_training_continues_and_what_it_learned_synthesizes_everywhere(trained, tmp_path):
    newest = train_on(trained)
    assert melglow(["convert", str(newest), "-o", str(tmp_path / "model")]) == 0
    vocoder = Vocoder.from_pretrained(tmp_path / "model")
    mel = torch.randn(80, 7) - 2.4
    model = setup_model(load_config(trained / "config.json"))
    model.load_checkpoint(model.config, newest, eval=True)
    assert torch.equal(model.inference(mel[None])[0, 0], vocoder(mel, seed=0))
    assert vocoder.training_facts["trainer"] == "Coqui TTS"


def test_training_starts_from_an_exported_model(exported, trained, tmp_path):
    best = train_from(exported, trained, tmp_path, eval_seq_len=4096, lr=1e-9)
    assert from_coqui(best).convention == Vocoder.from_pretrained(exported / "model").convention


def aligned_data(folder: Path, keys: list[str]) -> None:
    """What align_fastpitch.py writes, of bundled recordings; every token lasts as long as the others."""
    sys.path.insert(0, str(ROOT / "egs" / "ljspeech" / "coqui"))
    from train_fastpitch import F0, configuration, f0_file

    tokenizer, _ = TTSTokenizer.init_from_config(configuration(folder, str(folder)))
    corpus = ROOT / "egs" / "ljspeech" / "voc1" / "corpus"
    texts, rows = read_metadata(corpus), []
    for name in ("wavs", F0):
        (folder / name).mkdir(parents=True)
    np.save(folder / F0 / "pitch_stats", {"mean": np.float64(5), "std": np.float64(1)}, allow_pickle=True)
    for key, path in find_recordings(corpus, keys).items():
        wav, rate = soundfile.read(path, dtype="int16")
        soundfile.write(folder / "wavs" / f"{key}.wav", wav, rate)
        frames, tokens = 1 + len(wav) // 256, len(tokenizer.text_to_ids(texts[key], language="en"))
        np.save(f0_file(folder, key), np.full(frames, 5.2, np.float32))
        edges = np.linspace(0, frames, tokens + 1).round().astype(int)
        rows.append(f"{key}|{' '.join(map(str, np.diff(edges)))}\n")
    (folder / "durations.csv").write_text("".join(rows))
    for name in ("train", "dev"):
        (folder / f"{name}.csv").write_text("".join(f"{key}|{texts[key]}|{texts[key]}\n" for key in keys))


def test_the_recipe_of_fastpitch_trains_in_the_vocoders_mel(exported, tmp_path):
    pytest.importorskip("gruut")
    aligned_data(tmp_path / "data", ["LJ002-0198", "LJ050-0203"])
    script = str(ROOT / "egs" / "ljspeech" / "coqui" / "train_fastpitch.py")
    options = ["--data", "data", "--vocoder", str(exported / "model"), "--coqpit.output_path", "out"]
    sizes = ["--coqpit.batch_size", "2", "--coqpit.epochs", "1", "--coqpit.save_step", "1"]
    sizes += ["--coqpit.save_best_after", "0"]
    python(script, *options, *sizes, cwd=tmp_path)
    (best,) = (tmp_path / "out").glob("fastpitch-*/best_model.pth")
    python(script, "--data", "data", "--continue_path", str(best.parent), cwd=tmp_path)
    host = synthesizer(exported, (best, best.with_name("config.json")))  # which refuses another mel
    assert host.tts_config.audio.log_func == "np.log"
    assert len(host.tts("The birch canoe slid on the smooth planks.")) > SILENCE


def test_a_mistaken_key_stops_the_command(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model": "melglow", "data_pth": "wavs"}))
    result = python("-m", "TTS.bin.train_vocoder", "--config_path", "config.json", cwd=tmp_path, check=False)
    assert result.returncode != 0 and "data_pth: no field of MelglowConfig" in result.stderr


RANK = """
from melglow_plugin.coqui.model import Melglow

orders = []

class Poisoned(Melglow):
    def on_train_epoch_start(self, trainer):
        super().on_train_epoch_start(trainer)
        orders.append(list(trainer.train_loader.sampler))

    def format_batch_on_device(self, batch):
        batch = super().format_batch_on_device(batch)
        if self.training and self._step == 1 and rank == 1:
            batch["waveform"] = batch["waveform"] * float("nan")
        return batch

model = Poisoned(make_config(batch_size=2, epochs=2, output_path=folder + f"/out{rank}"))
trainer = fit(model)
torch.save([model.state_dict(), orders, model.skipped_steps, trainer.total_steps_done], folder + f"/{rank}.pth")
dist.destroy_process_group()
"""


def test_two_ranks_under_the_real_trainer_stay_equal_and_see_other_orders_in_each_epoch(trained, tmp_path):
    (tmp_path / "wavs").symlink_to(trained.parents[1] / "wavs")
    code = TWO_RANKS + RANK
    with ThreadPoolExecutor(2) as pool:
        run = functools.partial(zygote.shared().run, "-c", code, PYTHONPATH=str(ROOT))
        jobs = [pool.submit(run, str(rank), str(tmp_path)) for rank in (0, 1)]
        assert [job.result().returncode for job in jobs] == [0, 0], jobs[0].result().stderr[-3000:]
    (first, orders, *counts), (second, others, *same) = (torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1))
    assert counts == same == [1, 4]
    assert [sorted(mine + theirs) for mine, theirs in zip(orders, others, strict=True)] == [list(range(8))] * 2
    assert orders[0] != orders[1] and others[0] != others[1]
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_the_launcher_of_ranks_starts_the_recipe_with_its_arguments(tmp_path):
    """What of it runs without CUDA: two processes, which read our options beside the launcher's own."""
    folder = os.path.dirname(sys.executable)  # it starts whatever python3 is first on the path
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    result = subprocess.run(
        [
            sys.executable, "-m", "trainer.distribute", "--gpus", "0,1", "--corpus=no_such", "--coqpit.epochs=1",
            "--script", str(ROOT / "egs" / "ljspeech" / "coqui" / "train_melglow.py"),
        ],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    message = f"error: {Path('no_such', 'metadata.csv')} is missing"  # read after all options have been
    assert result.stderr.count(message) == 2, result.stderr[-3000:]


# Speaking


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    return export_vocoder(tmp_path_factory.mktemp("exported"))


@pytest.mark.parametrize("units", UNITS)
def test_the_synthesizer_gives_what_the_vocoder_called_directly_gives(exported, tmp_path, units):
    host = synthesizer(exported, glow_tts(tmp_path, **UNITS[units]))
    wav = np.array(host.tts(SENTENCE))
    mel = host.tts_model.synthesize(text=SENTENCE)["outputs"]["model_outputs"][0].T
    vocoder = Vocoder.from_pretrained(exported / "model")
    converted = MelConvention.coqui({**AUDIO, **UNITS[units]}).convert(mel, vocoder.convention)
    expected = vocoder(converted, seed=0)
    assert host.output_sample_rate == 22_050 and len(wav) == mel.shape[1] * 256 + SILENCE and mel.shape[1] > 10
    assert converted.std() > 0.05
    torch.testing.assert_close(
        torch.tensor(wav[:-SILENCE]).float(), expected, atol=1e-3 * float(expected.std()), rtol=0
    )
    assert not wav[-SILENCE:].any()


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda host: pickle.loads(pickle.dumps(host)), copy.copy])
def test_a_copy_of_the_synthesizer_gives_the_same_audio(exported, tmp_path, twin):
    host = synthesizer(exported, other_acoustic(tmp_path, "fast_pitch"))  # its logarithm is the natural one
    expected, again = host.tts(SENTENCE), twin(host)
    assert again.tts(SENTENCE) == expected
    vocoder = copy.deepcopy(again.vocoder_model)  # which has no Synthesizer
    assert vocoder.input_convention() == host.vocoder_model.input_convention() != vocoder.convention
    again.tts_model.config.audio.log_func = "np.log10"
    assert again.vocoder_model.input_convention().log_base == 10
    del host
    assert again.vocoder_model.input_convention().log_base == 10


@pytest.mark.parametrize("kind", ["fast_pitch", "speedy_speech", "tacotron2"])
def test_other_acoustic_models_are_converted_exactly(exported, tmp_path, kind, monkeypatch):
    host = synthesizer(exported, other_acoustic(tmp_path, kind))
    mels, run = [], host._run_vocoder
    monkeypatch.setattr(host, "_run_vocoder", lambda mel, device: mels.append(mel.detach().T) or run(mel, device))
    wav = torch.tensor(np.array(host.tts("it is warm in the morning sun.")))[:-SILENCE].float()
    vocoder = Vocoder.from_pretrained(exported / "model")
    converted = MelConvention.coqui({**AUDIO, **UNITS["recipes"]}).convert(mels[0], vocoder.convention)
    assert host.output_sample_rate == 22_050 and len(wav) == mels[0].shape[1] * 256
    torch.testing.assert_close(wav, vocoder(converted, seed=0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("kind", "says"), [("tacotron", "linear spectrograms"), ("vits", "makes its wav itself")])
def test_acoustic_models_without_a_mel_are_refused_in_words(exported, tmp_path, kind, says):
    with pytest.raises(ValueError, match=says):
        synthesizer(exported, other_acoustic(tmp_path, kind))


def test_another_filterbank_is_refused_by_field_before_any_audio(exported, tmp_path):
    with pytest.raises(ValueError, match="fmin 0.0 -> 80.0; fmax 8000.0 -> 7600.0"):
        synthesizer(exported, glow_tts(tmp_path, mel_fmin=0.0, mel_fmax=8000.0))


def test_the_command_line_synthesizes(exported, tmp_path):
    acoustic = glow_tts(tmp_path, **UNITS["recipes"])
    said = ["--text", SENTENCE, "--out_path", "out.wav"]
    python("-m", "TTS.bin.synthesize", *said, *options(exported, acoustic), cwd=tmp_path, start=True)
    wav, rate = soundfile.read(tmp_path / "out.wav")
    expected = np.array(synthesizer(exported, acoustic).tts(SENTENCE))
    assert rate == 22_050 and len(wav) == len(expected)
    # Coqui writes every file at full level.
    np.testing.assert_allclose(wav / np.abs(wav).max(), expected / np.abs(expected).max(), atol=1e-4)


def test_the_python_api_synthesizes_and_writes(exported, tmp_path):
    from TTS.api import TTS

    acoustic = glow_tts(tmp_path, **UNITS["recipes"])
    paths = {option.lstrip("-"): value for option, value in zip(*[iter(options(exported, acoustic))] * 2, strict=True)}
    api = TTS(**paths, progress_bar=False).to("cpu")
    wav = np.array(api.tts(SENTENCE))
    np.testing.assert_array_equal(wav, np.array(synthesizer(exported, acoustic).tts(SENTENCE)))
    api.tts_to_file(SENTENCE, file_path=str(tmp_path / "api.wav"))
    written, rate = soundfile.read(tmp_path / "api.wav")
    assert rate == 22_050
    np.testing.assert_allclose(written / np.abs(written).max(), wav / np.abs(wav).max(), atol=1e-4)
    other = dict(
        zip(("model_path", "config_path"), map(str, glow_tts(tmp_path / "other", mel_fmax=8000.0)), strict=True)
    )
    with pytest.raises(ValueError, match="fmax 8000.0 -> 7600.0"):
        TTS(**{**paths, **other}, progress_bar=False)


@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("model", None),
        ("model", "model/config.json"),
        ("model/model.safetensors", "model/config.json"),
        ("coqui/model.pth", None),
    ],
)
def test_a_model_folder_is_a_vocoder_path_without_an_export(exported, tmp_path, file, config):
    acoustic = glow_tts(tmp_path, **UNITS["recipes"])
    host = synthesizer(exported, acoustic, file, config)
    assert host.tts(SENTENCE) == synthesizer(exported, acoustic).tts(SENTENCE)


@pytest.mark.parametrize("file", ["model", "coqui/model.pth"])
def test_the_python_api_finds_the_configuration_of_a_model_of_ours(exported, tmp_path, file):
    from TTS.api import TTS

    model, config = map(str, glow_tts(tmp_path))
    api = TTS(model_path=model, config_path=config, vocoder_path=str(exported / file), progress_bar=False)
    # A model that Coqui has by name takes the path from here, and without a configuration another vocoder.
    assert Path(api.vocoder_config_path) == (
        exported / file / "config.json" if file == "model" else exported / "coqui" / "config.json"
    )


@pytest.mark.parametrize(
    ("file", "config", "says"),
    [
        ("no_folder", None, "vocoder_path .*no_folder: no such file"),
        ("coqui", None, "coqui is no model folder; .* model.pth"),
        ("model", "coqui/config.json", "vocoder_config_path .*coqui.config.json: .*model is read with .*model.config"),
        ("cut/model.pth", None, "cut.model.pth "),
        ("coqui/model.pth", "other/config.json", r"coqui.model.pth: missing \S+, \S+, \S+, \S+, \S+ and more$"),
        (
            "coqui/model.pth",
            "wide/config.json",
            "coqui.model.pth was trained on another mel than .*wide.config",
        ),
    ],
)
def test_a_vocoder_path_that_is_no_model_is_named(exported, tmp_path, file, config, says):
    """Also a file cut off, and weights with the configuration of a larger model or of another mel."""
    conf = json.loads((exported / "coqui" / "config.json").read_text())
    larger = {"model_params": {**conf["model_params"], "n_flows": 8}}
    wide = {"audio": {**conf["audio"], "mel_fmax": 8000.0}, "mel_convention": {}}
    for name, values in (("cut", {}), ("other", larger), ("wide", wide)):
        (exported / name).mkdir(exist_ok=True)
        (exported / name / "config.json").write_text(json.dumps({**conf, **values}))
    (exported / "cut" / "model.pth").write_bytes((exported / "coqui" / "model.pth").read_bytes()[:5000])
    with pytest.raises(ValueError, match=says):
        synthesizer(exported, glow_tts(tmp_path), file, config)


def test_a_released_model_comes_back_as_it_was(exported, tmp_path):
    assert melglow(["convert", str(exported / "coqui" / "model.pth"), "-o", str(tmp_path)]) == 0
    mel = torch.randn(80, 6) - 2.4
    expected = Vocoder.from_pretrained(exported / "model")(mel, seed=3)
    assert torch.equal(Vocoder.from_pretrained(tmp_path)(mel, seed=3), expected)
    assert torch.equal(Vocoder.from_pretrained(exported / "coqui" / "model.pth")(mel, seed=3), expected)


def test_with_the_start_up_file_the_plain_command_synthesizes(exported, tmp_path):
    """``melglow hook enable`` in an environment of its own, which sees this one's packages."""
    import sysconfig
    import venv

    from melglow_plugin.cli import hook_file

    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(tmp_path / "venv")}))
    (site / "a_packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    hook_file.enable(site)
    command = [
        str(tmp_path / "venv" / "bin" / "python"), "-m", "TTS.bin.synthesize", "--text", SENTENCE,
        "--out_path", str(tmp_path / "out.wav"), *options(exported, glow_tts(tmp_path, **UNITS["recipes"])),
    ]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    refused = subprocess.run(command, env={**environment, "MELGLOW_NO_HOOK": "1"}, capture_output=True, text=True)
    assert refused.returncode != 0 and "melglow" in refused.stderr and not (tmp_path / "out.wav").exists()
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert soundfile.info(tmp_path / "out.wav").frames > SILENCE
