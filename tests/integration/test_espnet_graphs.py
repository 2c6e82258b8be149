"""ESPnet's own inference replays CUDA graphs without being told, with a stand-in for the capture."""

import pytest
import soundfile
import torch
from conftest import at_once, stir, vocoder_of
from espnet_parts import FASTSPEECH2, write_acoustic

pytest.importorskip("espnet2")

from melglow_plugin import LVCNetGenerator, MelConvention, MelGlow, Vocoder
from melglow_plugin.checkpoint.espnet import to_espnet
from melglow_plugin.espnet.joint import GENERATORS
from melglow_plugin.inference.engine import Engine

pytestmark = pytest.mark.filterwarnings("error:CUDA graphs")
MODELS = {
    "melglow": (MelGlow, {"n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 2}),
    "lvcnet": (LVCNetGenerator, {"n_blocks": 2, "channels": 4, "n_layers": 2}),
}


@pytest.fixture(scope="module", params=MODELS)
def files(request, tmp_path_factory) -> dict[str, str]:
    """Options of ESPnet's command: an acoustic model, and a vocoder as exported for it."""
    import melglow_plugin.espnet

    melglow_plugin.espnet.register()
    folder, (kind, sizes) = tmp_path_factory.mktemp("files"), MODELS[request.param]
    write_acoustic(folder, "fastspeech2", FASTSPEECH2)
    torch.manual_seed(0)
    to_espnet(vocoder_of(kind, MelConvention.espnet(), 0.02, **sizes).checkpoint, folder / "espnet")
    return {
        "train_config": str(folder / "config.yaml"), "model_file": str(folder / "model.pth"),
        "vocoder_file": str(folder / "espnet" / "checkpoint.pkl"),
    }  # fmt: skip


def plain(vocoder: Vocoder, feats: torch.Tensor) -> torch.Tensor:
    """Without graphs."""
    return Vocoder(vocoder.flow, vocoder.convention, refine=vocoder.refine).use_graphs(False)(feats.T, seed=0)


def close(found, expected) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.fixture
def speak(files, graphs_on_a_cpu):
    from espnet2.bin.tts_inference import Text2Speech

    return Text2Speech(**files)


def test_text2speech_uses_graphs_by_default_and_sees_fine_tuned_weights(speak, graphs_on_a_cpu):
    vocoder = speak.vocoder.vocoder
    for _ in range(2):
        result = speak("HELLO")
        close(result["wav"], plain(vocoder, result["feat_gen"]))
    assert len(graphs_on_a_cpu.captured) == 1
    before, state = result["wav"], vocoder.flow.state_dict()
    vocoder.flow.load_state_dict({name: 1.1 * value if "nets" in name or "start" in name else value
                                  for name, value in state.items()})  # fmt: skip
    result = speak("HELLO")
    close(result["wav"], plain(vocoder, result["feat_gen"]))
    assert len(graphs_on_a_cpu.captured) == 2 and not torch.equal(result["wav"], before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_hosts_autocast_does_not_reach_the_vocoder(speak, graphs_on_a_cpu, dtype):
    feats = torch.randn(12, 80) - 2.4
    with torch.autocast("cpu", dtype):
        found = speak.vocoder(feats)
    close(found, plain(speak.vocoder.vocoder, feats))
    assert found.dtype == torch.float32 and graphs_on_a_cpu.captured


def test_threads_get_their_own_audio(speak, graphs_on_a_cpu):
    feats = [torch.randn(frames, 80) - 2.4 for frames in (12, 40, 12, 33, 12, 40)]
    found = at_once(speak.vocoder, feats)
    for wav, mel in zip(found, feats, strict=True):
        close(wav, plain(speak.vocoder.vocoder, mel))
    assert sorted(shape[-1] for shape in graphs_on_a_cpu.captured) == [32, 40]


def test_espnets_command_uses_them_and_a_variable_switches_them_off(files, graphs_on_a_cpu, tmp_path, monkeypatch):
    from espnet2.bin.tts_inference import main

    (tmp_path / "text").write_text("a HELLO\n")
    options = [f"--{name}={value}" for name, value in files.items()]
    options += ["--data_path_and_name_and_type", f"{tmp_path / 'text'},text,text", "--num_workers", "0"]
    for count, switch in ((1, "1"), (0, "0")):
        graphs_on_a_cpu.captured.clear()
        monkeypatch.setenv("MELGLOW_CUDA_GRAPHS", switch)
        main([*options, "--output_dir", str(tmp_path / switch)])
        assert len(graphs_on_a_cpu.captured) == count
    with_graphs, without = (torch.from_numpy(soundfile.read(tmp_path / s / "wav" / "a.wav")[0]) for s in "10")
    torch.testing.assert_close(with_graphs, without, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", GENERATORS)
def test_the_vocoder_of_joint_text2wav_too(name, graphs_on_a_cpu):
    sizes = {"n_mels": 20, "hop_length": 64, "channels": 4, "n_layers": 2}
    torch.manual_seed(0)
    generator = stir(GENERATORS[name](**sizes), 0.02)
    mel = torch.randn(12, 20)

    def said() -> torch.Tensor:
        torch.manual_seed(3)
        return generator.inference(mel)

    def expected() -> torch.Tensor:
        torch.manual_seed(3)
        z = generator.sigma * torch.randn(1, 12 * 64)
        return generator.flow.inverse(z, mel.T[None]).detach().T

    close(said(), expected())
    with torch.autocast("cpu", torch.bfloat16):
        close(said(), torch.autocast("cpu", enabled=False)(expected)())
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(1.01)
    close(said(), expected())
    assert len(graphs_on_a_cpu.captured) == 2
    generator.to("cpu")  # graphs hold the weights where they were
    close(said(), expected())
    assert len(graphs_on_a_cpu.captured) == 3 and isinstance(generator._engine, Engine)
