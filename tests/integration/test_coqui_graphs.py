"""Coqui's own inference replays CUDA graphs without being told, with a stand-in for the capture."""

import importlib
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import at_once

pytest.importorskip("TTS")

from coqui_parts import SENTENCE, SIZES, export_vocoder, glow_tts, options, synthesizer

from melglow_plugin import LVCNetGenerator, Vocoder

pytestmark = pytest.mark.filterwarnings("error:CUDA graphs")
LVCNET = {name: size for name, size in SIZES.items() if name not in ("n_flows", "early_every")} | {"n_blocks": 2}


@pytest.fixture(scope="module", params=["melglow", "lvcnet"])
def parts(request, tmp_path_factory) -> tuple[Path, tuple[Path, Path]]:
    """An exported vocoder and the files of an acoustic model."""
    folder = tmp_path_factory.mktemp("parts")
    flow = LVCNetGenerator(**LVCNET) if request.param == "lvcnet" else None
    return export_vocoder(folder, flow), glow_tts(folder / "acoustic")


@pytest.fixture
def expected(parts, monkeypatch) -> np.ndarray:
    """The sentence without graphs."""
    with monkeypatch.context() as patch:
        patch.setenv("MELGLOW_CUDA_GRAPHS", "0")
        return np.array(synthesizer(*parts).tts(SENTENCE))


def host_of(speak):
    """The part of a Synthesizer's vocoder that is ours: of a GAN, its generator."""
    return getattr(speak.vocoder_model, "model_g", speak.vocoder_model)


def test_the_synthesizer_uses_graphs_by_default(parts, expected, graphs_on_a_cpu):
    speak = synthesizer(*parts)
    for _ in range(2):
        np.testing.assert_allclose(speak.tts(SENTENCE), expected, atol=1e-4)
    assert len(graphs_on_a_cpu.captured) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_hosts_autocast_does_not_reach_the_vocoder_and_fine_tuned_weights_do(parts, graphs_on_a_cpu, dtype):
    ours = host_of(synthesizer(*parts))
    mel = torch.randn(1, 80, 20) - 2.4

    def plain() -> torch.Tensor:
        vocoder = Vocoder(ours.vocoder.flow, ours.convention, refine=ours.vocoder.refine).use_graphs(False)
        return vocoder(ours.input_convention().convert(mel, ours.convention), seed=0)[:, None]

    for _ in range(2):
        with torch.autocast("cpu", dtype):
            found = ours.inference(mel)
        torch.testing.assert_close(found, plain(), atol=2e-5, rtol=0)
        state = ours.state_dict()
        ours.load_state_dict({name: 1.1 * value if name.endswith("start.weight") else value
                              for name, value in state.items()})  # fmt: skip
    assert found.dtype == torch.float32 and len(graphs_on_a_cpu.captured) == 2


def test_threads_get_their_own_audio(parts, graphs_on_a_cpu):
    ours = host_of(synthesizer(*parts))
    mels = [torch.randn(1, 80, frames) - 2.4 for frames in (12, 40, 12, 33)]
    found = at_once(ours.inference, mels)
    assert sorted(shape[-1] for shape in graphs_on_a_cpu.captured) == [32, 40]
    for wav, mel in zip(found, mels, strict=True):
        torch.testing.assert_close(wav, ours.inference(mel), atol=1e-6, rtol=0)


def test_the_command_line(parts, expected, graphs_on_a_cpu, tmp_path):
    from TTS.bin.synthesize import main

    with pytest.raises(SystemExit, match="^0$"):
        main(["--text", SENTENCE, *options(*parts), "--out_path", str(tmp_path / "out.wav")])
    check(soundfile.read(tmp_path / "out.wav")[0], expected)
    assert len(graphs_on_a_cpu.captured) == 1


def test_the_server_asked_by_several_at_once(parts, expected, graphs_on_a_cpu, monkeypatch):
    pytest.importorskip("flask")
    monkeypatch.setattr(sys, "argv", ["tts-server", *options(*parts)])
    monkeypatch.delitem(sys.modules, "TTS.server.server", raising=False)
    server = importlib.import_module("TTS.server.server")  # it reads the options and loads the models
    monkeypatch.delitem(sys.modules, "TTS.server.server")

    def ask(_) -> bytes:
        answer = server.app.test_client().get("/api/tts", query_string={"text": SENTENCE})
        assert answer.status_code == 200
        return answer.data

    with ThreadPoolExecutor(4) as pool:
        for content in pool.map(ask, range(4)):
            check(soundfile.read(io.BytesIO(content))[0], expected)
    assert len(graphs_on_a_cpu.captured) == 1


def check(wav: np.ndarray, expected: np.ndarray) -> None:
    """Coqui writes every file at full level."""
    np.testing.assert_allclose(wav / np.abs(wav).max(), expected / np.abs(expected).max(), atol=1e-3)
