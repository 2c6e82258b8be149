"""LVCNetGenerator: laws in float64, and what the vocoder makes of it."""

import warnings

import pytest
import torch
from conftest import speech, vocoder_of, with_statistics

from melglow_plugin import LVCNetGenerator, MelConvention, Vocoder
from melglow_plugin.checkpoint import load
from melglow_plugin.checkpoint.coqui import to_coqui
from melglow_plugin.checkpoint.espnet import to_espnet
from melglow_plugin.cli import main
from melglow_plugin.model.lvcnet_generator import PAPER
from melglow_plugin.training.objective import FlowObjective, LossConfig

TINY = {"n_mels": 5, "hop_length": 16, "squeeze_factor": 4, "n_blocks": 2, "channels": 4, "n_layers": 2,
        "predictor_channels": 6, "lpc_order": 4}  # fmt: skip
CONVENTION = MelConvention.espnet(n_fft=64, hop_length=16, n_mels=5)


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def generator(**changes) -> LVCNetGenerator:
    return with_statistics(LVCNetGenerator, **{**TINY, **changes})


@pytest.fixture(params=[{}, {"lpc_order": 0}, {"squeeze_factor": 1}], ids=["lpc", "tanh", "unfolded"])
def model(request) -> LVCNetGenerator:
    return generator(**request.param)


def batch(frames: int, size: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """A mel (B, 5, F) and noise (B, T)."""
    return torch.randn(size, 5, frames).double(), 0.6 * torch.randn(size, frames * 16).double()


def quiet_mel(frames: int) -> torch.Tensor:
    """(5, F), of a level that is not clipped."""
    return 0.3 * torch.randn(5, frames) - 2


@pytest.fixture
def vocoder() -> Vocoder:
    return vocoder_of(LVCNetGenerator, CONVENTION, **TINY)


# The generator


def test_the_papers_size_and_ours():
    assert sum(p.numel() for p in LVCNetGenerator(**PAPER).parameters()) == 934_977
    assert 1.1e6 < sum(p.numel() for p in LVCNetGenerator().parameters()) < 1.2e6


def test_every_parameter_gets_a_gradient(model):
    mel, noise = batch(3, 2)
    model(mel.requires_grad_(), noise).square().mean().backward()
    assert mel.grad.abs().sum() > 0
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_batch_and_padding_change_nothing(model):
    mel, noise = batch(6, 3)
    lengths = torch.tensor([6, 3, 1])
    wav = model(mel, noise, lengths)
    for i, n in enumerate(lengths.tolist()):
        close(wav[i, : 16 * n], model(mel[i : i + 1, :, :n], noise[i : i + 1, : 16 * n])[0])


def test_blocks_of_frames_and_a_shared_condition_give_the_same(model):
    mel, noise = batch(4, 2)
    wav = model(mel, noise)
    close(model(mel, noise, cond=model.condition(mel)), wav, 0)
    close(model.inverse(noise, mel), wav, 0)
    with torch.no_grad():
        close(model(mel, noise), wav)


def test_context_frames_are_the_receptive_field(model):
    mel, noise = batch(60)
    frame, reach = 30, model.context_frames
    other_mel, other_noise = mel.clone(), noise.clone()
    other_mel[..., frame] += 1.0
    other_noise[..., frame * 16 : (frame + 1) * 16] += 1.0
    for changed in (model(other_mel, noise), model(mel, other_noise)):
        moved = ((changed - model(mel, noise)).abs() > 1e-9).view(60, 16).any(1).nonzero()[:, 0]
        assert moved[0] >= frame - reach and frame in moved
        assert model.memory_frames or moved[-1] <= frame + reach


def test_without_linear_prediction_the_audio_lies_within_one():
    mel, noise = batch(3)
    assert generator(lpc_order=0)(mel, 100 * noise).abs().max() <= 1


def test_a_fresh_generator_with_linear_prediction_gives_the_level_of_the_mel():
    convention = MelConvention.espnet()
    model = LVCNetGenerator()
    model.set_mel_bands(*convention.band_powers())
    wav = speech(1.0).float()
    mel = convention.extract(wav)
    with torch.no_grad():
        made = model(mel[None], torch.randn(1, mel.shape[1] * 256))
    assert 0.5 < made.std() / wav.std() < 2


@pytest.mark.parametrize("name, value", [("squeeze_factor", 3), ("n_blocks", 0), ("kernel_size", 2)])
def test_impossible_sizes_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} {value}"):
        LVCNetGenerator(**{**TINY, name: value})


def test_another_shape_is_refused_with_both_numbers(model):
    mel, noise = batch(3)
    with pytest.raises(ValueError, match=r"noise has shape \(1, 47\).*asks for \(1, 48\)"):
        model(mel, noise[:, :-1])


def test_kernel_emitting_layers_learn_at_their_own_rate():
    groups = LVCNetGenerator(**TINY).parameter_groups(1e-3, 4.0)
    assert [g["lr"] for g in groups] == [1e-3, 4e-3] and len(groups[1]["params"]) == 2 * 2 * 2


# The loss


def test_the_loss_is_that_of_the_sample_alone():
    model, config = generator().float(), LossConfig(windows=(64, 32))
    wav = 0.1 * torch.randn(2, 160)
    mel = CONVENTION.extract(wav)[..., :10]
    loss, stats = FlowObjective(CONVENTION, config)(model, wav, mel)
    assert set(stats) == {"stft", "mel", "activation_rms", "loss"}
    close(loss, stats["stft"] + stats["mel"])
    with pytest.raises(ValueError, match="stft 0, mel 0, .* LVCNetGenerator has no likelihood"):
        FlowObjective(CONVENTION, LossConfig(stft=0, mel=0))(model, wav, mel)


# The vocoder


def test_the_vocoder_speaks_it_like_a_flow(vocoder):
    mel = quiet_mel(40)
    wav = vocoder(mel, seed=3)
    assert wav.shape == (640,) and torch.equal(wav, vocoder(mel, seed=3)) and not torch.equal(wav, vocoder(mel))
    both = vocoder(torch.stack([mel, mel.flip(1)]), [40, 12], seed=3, refine=1)
    close(both[0], vocoder(mel, seed=3, refine=1), 1e-5)
    close(both[1, : 12 * 16], vocoder(mel.flip(1)[:, :12], seed=3, refine=1), 1e-5)
    assert not both[1, 12 * 16 :].any()


def test_sixteen_bit_blocks_give_nearly_the_same(vocoder):
    mel = quiet_mel(40)
    wav, other = vocoder(mel, seed=3), Vocoder(vocoder.flow, CONVENTION, dtype=torch.bfloat16)(mel, seed=3)
    assert other.dtype == torch.float32 and 0 < (other - wav).std() / wav.std() < 0.05


@pytest.mark.parametrize("refine", [0, 1])
def test_streaming_is_offline(vocoder, refine):
    mel = quiet_mel(300)
    pieces = list(vocoder.stream(mel.split(17, dim=1), seed=1, refine=refine))
    assert len(pieces) > 1
    close(torch.cat(pieces), vocoder(mel, seed=1, refine=refine), 1e-5)


def test_a_long_mel_in_chunks_is_the_same(vocoder, monkeypatch):
    from melglow_plugin.inference import chunks

    mel = quiet_mel(600)
    whole = vocoder(mel, seed=1)
    monkeypatch.setattr(chunks.inverse_in_chunks, "__defaults__", (64,))
    close(vocoder(mel, seed=1), whole, 1e-5)


@pytest.mark.parametrize("verb", ["encode", "decode", "score"])
def test_what_needs_a_likelihood_is_refused_in_one_line(vocoder, verb):
    arguments = {
        "encode": (torch.zeros(160),),
        "score": (torch.zeros(160),),
        "decode": (torch.zeros(160), torch.zeros(5, 10)),
    }
    with pytest.raises(ValueError, match=f"^{verb}: LVCNetGenerator is no flow and has no likelihood.*$"):
        getattr(vocoder, verb)(*arguments[verb])


@pytest.mark.parametrize("form", ["folder", "espnet", "coqui"])
def test_it_comes_back_from_every_file(vocoder, tmp_path, form):
    path = {"espnet": tmp_path / "checkpoint.pkl", "coqui": tmp_path / "model.pth"}.get(form, tmp_path)
    if form == "folder":
        vocoder.save_pretrained(tmp_path)
    else:
        {"espnet": to_espnet, "coqui": to_coqui}[form](vocoder.checkpoint, tmp_path)
    again = Vocoder.from_checkpoint(load(path))
    mel = quiet_mel(6)
    assert isinstance(again.flow, LVCNetGenerator) and again.convention == CONVENTION
    assert torch.equal(again(mel, seed=0, refine=0), vocoder(mel, seed=0))


def test_it_is_adapted_to_other_units_of_the_mel(vocoder):
    other = MelConvention.from_dict({**CONVENTION.to_dict(), "log_base": 2.0})
    mel = quiet_mel(20)
    close(vocoder.adapted(other)(CONVENTION.convert(mel, other), seed=0), vocoder(mel, seed=0), 1e-4)


@pytest.mark.parametrize("sizes, message", [({"n_blocks": 300}, "n_blocks 300"), ({"n_flows": 2}, "unknown 'n_flows'"),
                                            ({"channels": 4096, "n_layers": 20}, "parameters")])  # fmt: skip
def test_sizes_from_a_file_are_checked(sizes, message):
    from melglow_plugin.model.melglow import build

    with pytest.raises(ValueError, match=message):
        build("lvcnet", {**TINY, **sizes})


# The command line


def test_commands(vocoder, tmp_path, capsys):
    import soundfile

    vocoder.save_pretrained(tmp_path / "model")
    soundfile.write(tmp_path / "clip.wav", speech(0.3, 22_050).numpy(), 22_050)
    name = str(tmp_path / "model")
    assert main(["info", name]) == 0 and "lvcnet" in capsys.readouterr().out
    wav, log = str(tmp_path / "clip.wav"), str(tmp_path / "log.csv")
    assert main(["copy", wav, "-o", str(tmp_path / "out"), "--checkpoint", name, "--log", log]) == 0
    assert (tmp_path / "log.csv").read_text().splitlines()[1].endswith(",nan")
    capsys.readouterr()
    assert main(["score", wav, "--checkpoint", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith("melglow score: score: LVCNetGenerator is no flow") and error.count("\n") == 1
    assert main(["convert", name, "-o", str(tmp_path / "again"), "--weights", "float16"]) == 0
    assert main(["bench", "--checkpoint", name, "--lengths", "0.1", "--batches", "1", "--repeats", "1"]) == 0


@pytest.fixture
def drawn():
    return quiet_mel(7).expand(2, 5, 7), 0.6 * torch.randn(2, 7 * 16)


def test_onnx_gives_the_same(vocoder, tmp_path, drawn):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from melglow_plugin.checkpoint.onnx import to_onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (path,) = to_onnx(vocoder.checkpoint, tmp_path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    mel, z = drawn
    (wav,) = session.run(None, {"mel": mel.numpy(), "z": z.numpy()})
    close(torch.from_numpy(wav), vocoder(mel, z=z), 1e-4)


def test_a_torch_export_gives_the_same(vocoder, tmp_path, drawn):
    from melglow_plugin.checkpoint.onnx import to_program

    (path,) = to_program(vocoder.checkpoint, tmp_path)
    mel, z = drawn
    close(torch.export.load(path).module()(mel, z), vocoder(mel, z=z), 1e-5)
