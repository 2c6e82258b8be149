"""Coqui's acoustic models with random weights, a vocoder exported for it, and its commands: what its tests share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import soundfile
import torch
import zygote
from conftest import speech, stir
from torch import nn
from TTS.config import register_config
from TTS.config.shared_configs import BaseAudioConfig
from TTS.tts.configs.glow_tts_config import GlowTTSConfig
from TTS.tts.models import setup_model as setup_tts_model
from TTS.tts.models.glow_tts import GlowTTS
from TTS.tts.utils.text.tokenizer import TTSTokenizer
from TTS.utils.synthesizer import Synthesizer

import melglow_plugin.coqui
from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.cli import main as melglow

melglow_plugin.coqui.register()

ROOT = Path(__file__).parents[2]
SIZES = {
    "n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 2, "predictor_channels": 8, "lpc_order": 8,
}  # fmt: skip
SENTENCE = "it is warm."
SILENCE = 10_000  # samples that the Synthesizer adds to every sentence
AUDIO = {"mel_fmin": 80.0, "mel_fmax": 7600.0, "do_trim_silence": False}
UNITS = {"default": {}, "recipes": {"log_func": "np.log", "spec_gain": 1, "signal_norm": False}}

# The beginning of a command with a rank and a folder: Coqui's Trainer for two ranks, without what of it asks for CUDA.
TWO_RANKS = f"""
import os, sys
rank, folder = int(sys.argv[1]), sys.argv[2]
os.environ["RANK"] = str(rank)
sys.path.insert(0, {str(ROOT / "tests")!r})
import torch, torch.distributed as dist, trainer.trainer as host
from pathlib import Path
from test_coqui import make_config

def init(rank, world_size, *_):
    dist.init_process_group("gloo", init_method=f"file://{{folder}}/store", rank=rank, world_size=world_size)

def fit(model):
    wavs = sorted(map(str, (Path(folder) / "wavs").glob("*.wav")))
    trainer = host.Trainer(host.TrainerArgs(rank=rank), model.config, model=model, train_samples=wavs * 2,
                           eval_samples=wavs[:2], parse_command_line_args=False)
    trainer.fit()
    return trainer

host.Trainer.setup_training_environment = staticmethod(lambda args, config, gpu: (False, 2))
host.init_distributed = init
host.DDP_th = lambda model, **_: torch.nn.parallel.DistributedDataParallel(model)
torch.manual_seed(rank)
"""


def command(*arguments: str) -> list[str]:
    """A command of the host with MelGlow known to it."""
    return [sys.executable, "-m", "melglow_plugin.run", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}


def python(*arguments: str, cwd: Path, check: bool = True, start: bool = False) -> subprocess.CompletedProcess:
    """A command of the host that finds the host imported (tests/zygote.py). ``start``: in a Python of its own."""
    if start:
        whole = command(*arguments)
        result = subprocess.run(whole, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=600)
    else:
        result = zygote.shared().run(*command(*arguments)[1:], cwd=cwd, **environment())
    assert not check or result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    return result


def train(folder: Path, values: dict, start: bool = False) -> Path:
    """The folder of a run of two epochs on four recordings, through Coqui's own main."""
    write_recordings(folder / "wavs")
    config = {
        "run_name": "tiny", "output_path": "out", "data_path": "wavs", "eval_split_size": 1, "epochs": 2,
        "batch_size": 2, "seq_len": 2048, "print_step": 1, "save_step": 2, "num_loader_workers": 0,
        "num_eval_loader_workers": 0, **values,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    python("-m", "TTS.bin.train_vocoder", "--config_path", "config.json", cwd=folder, start=start)
    return next((folder / "out").iterdir())


def train_on(trained: Path) -> Path:
    """Two epochs more; the newest checkpoint, in which every weight that learns is another."""
    before = weights(trained / "best_model.pth")
    config = json.loads((trained / "config.json").read_text())
    (trained / "config.json").write_text(json.dumps({**config, "epochs": 4}))
    result = python("-m", "TTS.bin.train_vocoder", "--continue_path", str(trained), cwd=trained.parents[1])
    assert "Restoring Optimizer" in result.stdout + result.stderr
    newest = max(trained.glob("checkpoint_*.pth"), key=lambda path: int(path.stem.split("_")[1]))
    constants = ("mel_mean", "mel_std", "lpc.log_power", "lpc.band_autocorrelations")
    after = weights(newest)
    assert [n for n in before if not n.endswith(constants) and torch.equal(before[n], after[n])] == []
    return newest


def train_from(exported: Path, trained: Path, folder: Path, **values) -> Path:
    """The best model of a training that begins with an exported one and hardly moves: its weights are the same."""
    config = json.loads((exported / "coqui" / "config.json").read_text())
    run = {
        "data_path": str(trained.parents[1] / "wavs"), "output_path": "out", "run_name": "more", "seq_len": 2048,
        "batch_size": 2, "eval_split_size": 1, "epochs": 1, "num_loader_workers": 0, "num_eval_loader_workers": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**config, **run, **values}))
    released = exported / "coqui" / "model.pth"
    python("-m", "TTS.bin.train_vocoder", "--config_path", "config.json", "--restore_path", str(released), cwd=folder)
    best = next((folder / "out").glob("*/best_model.pth"))
    after = weights(best)
    for name, value in weights(released).items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0)
    return best


def write_recordings(folder: Path) -> None:
    """Four recordings of different lengths and levels."""
    folder.mkdir()
    for index in range(4):
        wav = (0.5 + 0.1 * index) * speech(0.4 + 0.1 * index)
        soundfile.write(folder / f"{index}.wav", wav.numpy(), 22_050, subtype="PCM_16")


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def export_vocoder(folder: Path, flow: nn.Module | None = None) -> Path:
    """A stirred model in ESPnet's mel, a tiny MelGlow where none is given: ``model/``, and ``coqui/`` as exported."""
    torch.manual_seed(0)
    flow = stir(flow or MelGlow(**SIZES), 0.02)
    flow.set_mel_statistics(torch.full((80,), -2.4), torch.full((80,), 0.8))
    flow.set_mel_bands(*MelConvention.espnet().band_powers())  # the wav depends strongly on the mel
    Vocoder(flow, MelConvention.espnet()).save_pretrained(folder / "model")
    assert melglow(["export", str(folder / "model"), "--format", "coqui", "-o", str(folder / "coqui")]) == 0
    return folder


def glow_tts(folder: Path, **audio) -> tuple[Path, Path]:
    """GlowTTS with random weights, as Coqui's trainer would leave it: ``tts.pth`` and ``tts.json``."""
    encoder = {"kernel_size": 3, "dropout_p": 0.1, "num_layers": 1, "num_heads": 2, "hidden_channels_ffn": 16}
    config = GlowTTSConfig(
        audio=BaseAudioConfig(**{**AUDIO, **audio}), text_cleaner="english_cleaners", inference_noise_scale=0.0,
        hidden_channels_enc=16, hidden_channels_dec=16, hidden_channels_dp=16, num_flow_blocks_dec=2,
        num_block_layers=1, encoder_params=encoder, use_encoder_prenet=False,
    )  # fmt: skip
    tokenizer, config = TTSTokenizer.init_from_config(config)
    torch.manual_seed(0)
    model = GlowTTS(config, tokenizer=tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.encoder.duration_predictor.proj.bias.fill_(1.5)  # a letter lasts a few frames
    return save(model, folder)


def released_fast_pitch(folder: Path, vocoder: Path) -> tuple[Path, Path]:
    """The recipe's FastPitch, small, with random weights, in the mel of ``vocoder``: as the recipe exports a voice."""
    sys.path.insert(0, str(ROOT / "egs" / "ljspeech" / "coqui"))
    import fastpitch
    from train_fastpitch import configuration

    config = configuration(folder, str(folder), vocoder)
    config.model_args.hidden_channels = 16
    for sizes in (config.model_args.encoder_params, config.model_args.decoder_params):
        sizes.update(hidden_channels_ffn=16, num_layers=1)
    torch.manual_seed(0)
    model = fastpitch.ForwardTTS.init_from_config(config)
    torch.nn.init.constant_(model.duration_predictor.proj.bias, 1.5)  # a token lasts a few frames
    fastpitch.write(folder / "released", {key: config.to_dict()[key] for key in fastpitch.KEPT}, model.state_dict())
    return fastpitch.export(folder / "released", folder / "fastpitch")


def other_acoustic(folder: Path, kind: str) -> tuple[Path, Path]:
    """Another acoustic model of Coqui's with random weights, as small as its configuration allows."""
    config = register_config(kind)(text_cleaner="english_cleaners", use_phonemes=False)
    if kind != "vits":
        config.audio = BaseAudioConfig(**AUDIO, **UNITS["recipes"])
    if kind.startswith("tacotron"):
        config.max_decoder_steps = 20
    if kind == "fast_pitch":
        config.model_args.hidden_channels = 16
        for sizes in (config.model_args.encoder_params, config.model_args.decoder_params):
            sizes.update(hidden_channels_ffn=16, num_layers=1, num_heads=1)
    _, config = TTSTokenizer.init_from_config(config)
    torch.manual_seed(0)
    return save(setup_tts_model(config), folder)


def save(model, folder: Path) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    torch.save({"model": model.state_dict()}, folder / "tts.pth")
    model.config.save_json(folder / "tts.json")
    return folder / "tts.pth", folder / "tts.json"


def synthesizer(
    exported: Path, acoustic: tuple[Path, Path], file: str = "coqui/model.pth", config: str | None = "coqui/config.json"
) -> Synthesizer:
    return Synthesizer(
        tts_checkpoint=acoustic[0],
        tts_config_path=acoustic[1],
        vocoder_checkpoint=exported / file,
        vocoder_config=config and exported / config,
    )


def options(exported: Path, acoustic: tuple[Path, Path]) -> list[str]:
    """What ``tts`` and ``tts-server`` are told."""
    return [
        "--model_path", str(acoustic[0]), "--config_path", str(acoustic[1]),
        "--vocoder_path", str(exported / "coqui" / "model.pth"),
        "--vocoder_config_path", str(exported / "coqui" / "config.json"),
    ]  # fmt: skip
