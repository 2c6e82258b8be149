"""What the tests with ESPnet share: its commands, and acoustic models with random weights."""

import subprocess
from pathlib import Path

import torch
import yaml
import zygote

ROOT = Path(__file__).parents[2]
TOKENS = ["<blank>", "<unk>", "H", "E", "L", "O", "<sos/eos>"]
FASTSPEECH2 = {
    "adim": 8, "aheads": 2, "elayers": 1, "dlayers": 1, "eunits": 8, "dunits": 8, "postnet_layers": 1,
    "postnet_chans": 8, "duration_predictor_chans": 8, "pitch_predictor_chans": 8, "energy_predictor_chans": 8,
}  # fmt: skip
TACOTRON2 = {
    "embed_dim": 8, "elayers": 1, "eunits": 8, "econv_layers": 1, "econv_chans": 8, "dlayers": 1, "dunits": 8,
    "adim": 8, "aconv_chans": 4, "aconv_filts": 3, "prenet_units": 8, "postnet_layers": 1, "postnet_chans": 8,
}  # fmt: skip


def python(*arguments: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess:
    """A Python command that finds ESPnet imported (tests/zygote.py)."""
    result = zygote.shared().run(*arguments, PYTHONPATH=str(ROOT), **variables)
    assert not check or result.returncode == 0, result.stderr[-3000:]
    return result


def write_acoustic(folder: Path, tts: str, sizes: dict, **normalize: str):
    """A model with random weights, written to ``folder`` as ESPnet's trainer would."""
    from espnet2.tasks.tts import TTSTask

    mel = {"fs": 22_050, "n_fft": 1024, "hop_length": 256, "fmin": 80, "fmax": 7600}
    tokens = folder / "tokens.txt"
    tokens.write_text("\n".join(TOKENS) + "\n")
    arguments = ["--output_dir", str(folder), "--token_list", str(tokens), "--token_type", "char", "--tts", tts]
    for name in ("pitch_extract", "energy_extract", "pitch_normalize", "energy_normalize"):
        arguments += [f"--{name}", "none"]
    for option, value in ({"normalize": "none"} | normalize).items():
        arguments += [f"--{option}", value]
    for option, values in (("tts_conf", sizes), ("feats_extract_conf", mel)):
        for key, value in values.items():
            arguments += [f"--{option}", f"{key}={value}"]
    args = TTSTask.get_parser().parse_args(arguments)
    torch.manual_seed(0)
    model = TTSTask.build_model(args)
    if tts == "fastspeech2":
        with torch.no_grad():  # every token lasts a few frames
            model.tts.duration_predictor.linear.bias.fill_(2.0)
    config = {key: value for key, value in vars(args).items() if key != "config"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), folder / "model.pth")
