"""lab/edit_checkpoint.py: a run's learning rates and weights changed where it stands."""

import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from conftest import speech, stir

from melglow_plugin import MelConvention, MelGlow

ROOT = Path(__file__).parents[2]
CONF = {"n_mels": 20, "hop_length": 64, "n_flows": 3, "channels": 4, "n_layers": 2, "predictor_channels": 6}
MEL = {"n_fft": 256, "hop_length": 64, "n_mels": 20}


@pytest.fixture
def exp(tmp_path):
    """A run whose second coupling has grown, its average and one recording."""
    flow = stir(MelGlow(**CONF))
    with torch.no_grad():
        flow.couplings[1].net.kernel_predictor.input_conv.weight.mul_(30)
    state = {f"{prefix}{k}": v.clone() for prefix in ("flow.", "ema.module.") for k, v in flow.state_dict().items()}
    groups = [{"lr": 4e-4, "params": [0]}, {"lr": 8e-4, "params": [1]}]
    torch.save({
        "model": state, "optimizers": [{"state": {}, "param_groups": groups}], "schedulers": [{"gamma": 0.9}],
        "reporter": {"epoch": 3},
    }, tmp_path / "checkpoint.pth")  # fmt: skip
    config = {"vocoder": "melglow", "vocoder_conf": CONF, "feats_extract_conf": MEL}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    soundfile.write(tmp_path / "clip.wav", speech(0.5).numpy(), 22_050)
    return tmp_path, flow


def edit(folder, *options, check=True):
    script = ROOT / "egs" / "ljspeech" / "voc1" / "lab" / "edit_checkpoint.py"
    return subprocess.run(
        [sys.executable, str(script), str(folder), *options], capture_output=True, text=True, check=check
    )


def test_rates_keep_their_ratio(exp):
    folder, _ = exp
    edit(folder, "--lr", "1e-4", "--gamma", "0.8")
    states = torch.load(folder / "checkpoint.pth", weights_only=True)
    assert [group["lr"] for group in states["optimizers"][0]["param_groups"]] == pytest.approx([1e-4, 2e-4])
    assert states["schedulers"][0]["gamma"] == 0.8


def test_hidden_values_that_have_grown_are_brought_down_in_weights_and_average(exp):
    folder, before = exp
    mel = MelConvention.espnet(**MEL).extract(speech(0.5).float())[None]
    mel = (mel - before.mel_mean[:, None]) / before.mel_std[:, None]
    others = [before.couplings[k].net.kernel_predictor.hidden(mel).square().mean().sqrt().item() for k in (0, 2)]
    target = 1.05 * max(others)
    said = edit(folder, "--rescale_predictors", str(target), str(folder / "clip.wav")).stdout
    assert [line.split(":")[0] for line in said.splitlines() if "times" in line] == ["coupling 1"]
    state = torch.load(folder / "checkpoint.pth", weights_only=True)["model"]
    for prefix in ("flow.", "ema.module."):
        after = MelGlow(**CONF)
        after.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        for number, (old, new) in enumerate(zip(before.couplings, after.couplings, strict=True)):
            hidden, was = new.net.kernel_predictor.hidden(mel).detach(), old.net.kernel_predictor.hidden(mel).detach()
            if number == 1:
                assert hidden.square().mean().sqrt().item() == pytest.approx(target, rel=1e-2)
                was = was * (hidden.abs().max() / was.abs().max())
            torch.testing.assert_close(hidden, was, atol=1e-4, rtol=1e-3)
        changed = {k for k, v in before.state_dict().items() if not torch.equal(v, after.state_dict()[k])}
        assert changed and all(
            "couplings.1.net.kernel_predictor." in name and ".to_kernel." not in name for name in changed
        )


def test_rescaling_needs_recordings(exp):
    result = edit(exp[0], "--rescale_predictors", "0.2", check=False)
    assert result.returncode == 2 and "needs an RMS and recordings" in result.stderr
