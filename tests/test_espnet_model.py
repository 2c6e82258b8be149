"""The model under ESPnet's interface, without starting its trainer."""

import argparse
import re

import numpy as np
import pytest
import torch
from conftest import speech, stir

pytest.importorskip("espnet2")

from melglow_plugin.checks import from_dict
from melglow_plugin.espnet.model import ESPnetVocoderModel, LossConfig
from melglow_plugin.espnet.task import CropCollate, VocoderTask, start_from
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.loss import flow_nll
from melglow_plugin.model.melglow import MelGlow
from melglow_plugin.training.crops import cut, wav_and_mel
from melglow_plugin.vocoder import Vocoder

CONVENTION = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)
SIZES = {"n_mels": 20, "hop_length": 64, "n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 2}
WINDOWS = (256, 128)


def make(ema_decay: float = 0.0, **loss) -> ESPnetVocoderModel:
    torch.manual_seed(0)
    return ESPnetVocoderModel(stir(MelGlow(**SIZES)), CONVENTION, LossConfig(windows=WINDOWS, **loss), ema_decay)


@pytest.fixture
def batch() -> dict:
    wav = speech(0.3).float()
    return {"speech": torch.stack([cut(wav, CONVENTION, 16, start) for start in (3, 40)]), "utt_id": ["a", "b"]}


def test_the_loss_is_the_weighted_sum_of_its_terms(batch):
    loss, stats, weight = make(stft=0.5, mel=2.0)(**batch)
    torch.testing.assert_close(loss.detach(), stats["nll"] + 0.5 * stats["stft"] + 2.0 * stats["mel"])
    assert weight == 2 and not stats["nll"].requires_grad


def test_likelihood_alone_samples_nothing(batch):
    model = make(stft=0.0, mel=0.0)
    model.flow.inverse = None  # would fail
    loss, stats, _ = model(**batch)
    assert "stft" not in stats and torch.equal(loss.detach(), stats["nll"])


def test_the_likelihood_is_that_of_the_crop(batch):
    model = make(stft=0.0, mel=0.0).eval()
    _, stats, _ = model(**batch)
    wav, mel = wav_and_mel(batch["speech"], CONVENTION, 16)
    torch.testing.assert_close(stats["nll"][0], flow_nll(*model.flow(wav, mel)).detach(), atol=1e-3, rtol=0)


def test_features_of_the_kernels_that_have_grown_are_told_and_paid_for(batch):
    model = make(stft=0.0, mel=0.0, activation_penalty=2.0).eval()
    loss, stats, _ = model(**batch)
    before = stats["activation_rms"]
    predictor = model.best_flow.couplings[1].net.kernel_predictor
    conv = predictor.input_conv
    with torch.no_grad():
        for parameter in (conv.weight, conv.bias, *(layer.bias for layer in predictor.residual_convs)):
            parameter.mul_(100)
    loss, stats, _ = model(**batch)
    after = stats["activation_rms"]
    assert after > 10 * before > 0
    levels = model.best_flow.activation_rms(wav_and_mel(batch["speech"], CONVENTION, 16)[1])
    paid = 2 * (levels / 0.4 - 1).relu().mean(1).sum()
    assert paid > 20
    torch.testing.assert_close(loss.detach(), stats["nll"] + paid.detach())
    torch.testing.assert_close(after[0], predictor.hidden(
        (wav_and_mel(batch["speech"], CONVENTION, 16)[1] - model.flow.mel_mean[:, None]) / model.flow.mel_std[:, None]
    ).square().mean().sqrt().detach())  # fmt: skip


def test_start_and_interval_of_the_spectral_terms(batch):
    model = make(spectral_start=2, spectral_interval=2)
    assert ["stft" in model(**batch)[1] for _ in range(6)] == [False, False, True, False, True, False]
    assert "stft" in model.eval()(**batch)[1]


def test_validation_is_the_same_every_time_and_training_is_not(batch):
    model = make()
    assert model(**batch)[0] != model(**batch)[0]
    model.eval()
    assert model(**batch)[0] == model(**batch)[0]


def test_averaged_weights_follow_and_validate(batch):
    model = make(ema_decay=0.5)
    model(**batch)
    start = model.flow.convs_1x1[0].weight.detach().clone()
    with torch.no_grad():
        model.flow.convs_1x1[0].weight.add_(1.0)
    model(**batch)
    torch.testing.assert_close(model.best_flow.convs_1x1[0].weight, start + 9 / 11)  # 1 - (1 + n) / (10 + n), n = 1
    for _ in range(20):
        model(**batch)
    distance = model.flow.convs_1x1[0].weight - model.best_flow.convs_1x1[0].weight
    model(**batch)
    after = model.flow.convs_1x1[0].weight - model.best_flow.convs_1x1[0].weight
    torch.testing.assert_close(after, 0.5 * distance)  # then the decay as configured
    assert not model.best_flow.convs_1x1[0].weight.requires_grad


def test_every_parameter_of_the_flow_learns_from_the_spectral_terms_alone(batch):
    model = make()
    _, stats, _ = model(**batch)
    wav, mel = wav_and_mel(batch["speech"], CONVENTION, 16)
    terms = model.objective.spectral(model.flow.inverse(torch.randn_like(wav), mel), wav)
    (terms["stft"] + terms["mel"]).backward()
    for name, parameter in model.flow.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_step_that_is_not_finite_leaves_the_weights_bit_identical_and_is_counted(batch, caplog):
    """Through the trainer's own loop, with a poisoned batch between two good ones."""
    from espnet2.train.distributed_utils import DistributedOption
    from espnet2.train.reporter import Reporter
    from espnet2.train.trainer import TrainerOptions

    from melglow_plugin.espnet.trainer import VocoderTrainer

    model = make()
    optimizer = torch.optim.Adam(model.flow.parameters(), lr=1e-3)
    good = {"speech": batch["speech"]}
    bad = {"speech": torch.full_like(batch["speech"], float("nan"))}
    seen = []

    def batches():
        for part in (good, bad, good):
            seen.append(model.flow.convs_1x1[0].weight.detach().clone())
            yield ["a", "b"], dict(part)
        seen.append(model.flow.convs_1x1[0].weight.detach().clone())

    options = dict.fromkeys(TrainerOptions.__dataclass_fields__, None)
    options.update(ngpu=0, grad_noise=False, accum_grad=1, grad_clip=5.0, grad_clip_type=2.0, log_interval=1,
                   no_forward_run=False, use_wandb=False, create_graph_in_tensorboard=False)  # fmt: skip
    reporter = Reporter()
    reporter.set_epoch(1)
    with reporter.observe("train") as sub_reporter, caplog.at_level("WARNING"):
        VocoderTrainer.train_one_epoch(
            model=model, iterator=batches(), optimizers=[optimizer], schedulers=[None], scaler=None,
            reporter=sub_reporter, summary_writer=None, options=TrainerOptions(**options),
            distributed_option=DistributedOption(),
        )  # fmt: skip
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2])
    assert not torch.equal(seen[2], seen[3])
    assert torch.isfinite(seen[3]).all()
    assert "1 steps of this epoch were not finite" in caplog.text


def test_crops_of_validation_stay_where_they_are_and_training_crops_move():
    data = [("a", {"speech": speech(0.5).numpy()}), ("b", {"speech": speech(0.4).numpy()})]
    valid, train = CropCollate(CONVENTION, 16, train=False), CropCollate(CONVENTION, 16, train=True)
    assert torch.equal(valid(data)[1]["speech"], valid(data)[1]["speech"])
    assert not torch.equal(train(data)[1]["speech"], train(data)[1]["speech"])


def test_a_recording_that_is_too_short_is_named():
    with pytest.raises(ValueError, match="short: .* 5 frames, a crop needs 16"):
        CropCollate(CONVENTION, 16, train=True)([("short", {"speech": speech(0.012).numpy()})])


def with_feats(seconds: float, offset: float = 0.0) -> dict:
    wav = speech(seconds).float()
    return {"speech": wav.numpy(), "feats": CONVENTION.extract(wav).T.numpy() + np.float32(offset)}


@pytest.mark.parametrize("train", [True, False])
def test_features_are_cut_where_their_recording_is(train):
    _, batch = CropCollate(CONVENTION, 16, train)([("a", with_feats(0.5)), ("b", with_feats(0.4))])
    assert batch["feats"].shape == (2, 16, 20)
    wav, mel = make().wav_and_mel(batch["speech"])
    same, heard = make().wav_and_mel(batch["speech"], batch["feats"])
    assert torch.equal(wav, same)
    torch.testing.assert_close(heard, mel, atol=1e-4, rtol=0)


def test_the_flow_hears_the_features_and_is_compared_with_the_recording():
    _, batch = CropCollate(CONVENTION, 16, train=False)([("a", with_feats(0.5, offset=0.3))])
    model = make().eval()
    _, stats, _ = model(**batch)
    wav, mel = wav_and_mel(batch["speech"], CONVENTION, 16)
    torch.testing.assert_close(stats["nll"][0], flow_nll(*model.flow(wav, mel + 0.3)).detach(), atol=1e-3, rtol=0)
    generator = torch.Generator().manual_seed(0)
    _, expected = model.objective(model.flow, wav, mel + 0.3, generator=generator)
    torch.testing.assert_close(stats["mel"][0], expected["mel"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("change", [lambda feats: feats[1:], lambda feats: feats.T, lambda feats: feats[:, :10]])
def test_features_that_do_not_match_their_recording_are_refused(change):
    item = with_feats(0.5)
    item["feats"] = change(item["feats"])
    says = re.escape(f"b: feats of shape {item['feats'].shape}, frames and bins of its recording are (173, 20)")
    with pytest.raises(ValueError, match=says):
        CropCollate(CONVENTION, 16, train=True)([("a", with_feats(0.5)), ("b", item)])


def test_statistics_see_whole_recordings():
    data = [("a", {"speech": speech(0.5).float().numpy()}), ("b", {"speech": speech(0.4).float().numpy()})]
    keys, batch = VocoderTask.build_collate_fn(argparse.Namespace(collect_stats=True), train=True)(data)
    feats = make().collect_feats(**batch)
    assert keys == ["a", "b"] and batch["speech_lengths"].tolist() == [11025, 8820]
    assert feats["feats_lengths"].tolist() == [CONVENTION.n_frames(11025), CONVENTION.n_frames(8820)]
    expected = CONVENTION.extract(speech(0.4).float()).T
    torch.testing.assert_close(feats["feats"][1, : len(expected)], expected)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"loss_conf": {"sgima": 1.0}}, "loss_conf: unknown sgima"),
        ({"loss_conf": {"stft": "much"}}, "loss_conf: stft is 'much', wanted float"),
        ({"vocoder_conf": {"hop_length": 200}}, "hop_length 200 is not the mel's 256"),
        ({"feats_extract_conf": {"fmni": 80}}, "fmni"),
    ],
)
def test_mistakes_in_the_configuration_are_refused_by_name(option, says):
    args = argparse.Namespace(
        vocoder="melglow", vocoder_conf={}, feats_extract_conf={}, loss_conf={}, model_conf={}, mel_stats=None,
        pretrained=None, **{},
    )  # fmt: skip
    vars(args).update(option)
    with pytest.raises(ValueError, match=says):
        VocoderTask.build_model(args)


def test_training_goes_on_without_the_early_outputs_of_a_pretrained_model(tmp_path, caplog):
    released = MelGlow(**SIZES)
    Vocoder(released, CONVENTION).save_pretrained(tmp_path / "model")
    flow = MelGlow(**{**SIZES, "early_every": SIZES["n_flows"]})
    start_from(flow, CONVENTION, str(tmp_path / "model"), None)
    assert torch.equal(flow.state_dict()["convs_1x1.0.weight"], released.convs_1x1[0].weight)
    assert "has early outputs" in caplog.text
    other = MelGlow(**{**SIZES, "early_every": 3})
    with pytest.raises(ValueError, match="early_every 2 -> 3"):
        start_from(other, CONVENTION, str(tmp_path / "model"), None)


def test_the_postfilter_of_a_pretrained_model_goes_with_it(tmp_path):
    released = stir(MelGlow(**SIZES, postfilter_channels=2))
    Vocoder(released, CONVENTION).save_pretrained(tmp_path / "model")
    sizes, feats = SIZES.copy(), {"n_fft": 256, "hop_length": 64, "n_mels": 20}
    args = argparse.Namespace(
        vocoder="melglow", vocoder_conf=sizes, feats_extract_conf=feats, loss_conf={}, model_conf={}, mel_stats=None,
        pretrained=str(tmp_path / "model"), adversarial_conf={},
    )  # fmt: skip
    model = VocoderTask.build_model(args)
    assert args.vocoder_conf["postfilter_channels"] == 2  # in the file that the model is built from again
    assert torch.equal(model.flow.postfilter.output.weight, released.postfilter.output.weight)
    assert not any(parameter.requires_grad for parameter in model.flow.postfilter.parameters())


@pytest.mark.parametrize(("begun", "released"), [(0, 2), (2, 0), (2, None), (2, 3)])
def test_a_resumed_training_keeps_the_postfilter_it_was_begun_with(tmp_path, begun, released):
    """Also where the pretrained model has another one by now, or is not named again."""
    if released is not None:
        flow = MelGlow(**SIZES, postfilter_channels=released)
        Vocoder(flow, CONVENTION).save_pretrained(tmp_path / "model")
    args = argparse.Namespace(
        vocoder="melglow", vocoder_conf=SIZES.copy(), feats_extract_conf={"n_fft": 256, "hop_length": 64, "n_mels": 20},
        loss_conf={}, model_conf={}, mel_stats=None, adversarial_conf={}, output_dir=str(tmp_path), resume=True,
        pretrained=None if released is None else str(tmp_path / "model"),
    )  # fmt: skip
    before = ESPnetVocoderModel(stir(MelGlow(**SIZES, postfilter_channels=begun)), CONVENTION, LossConfig())
    torch.save({"model": before.state_dict()}, tmp_path / "checkpoint.pth")
    model = VocoderTask.build_model(args)
    model.load_state_dict(before.state_dict())  # as ESPnet's trainer does
    assert args.vocoder_conf["postfilter_channels"] == begun


def test_whole_numbers_serve_as_floats():
    assert from_dict(LossConfig, {"sigma": 1, "windows": [512, 256]}, "loss_conf") == LossConfig(windows=(512, 256))


def test_a_learning_rate_that_yaml_takes_for_text_is_a_number_or_refused():
    def rates(lr: str, ratio: float) -> list[float]:
        args = argparse.Namespace(
            optim="adam", optim_conf={"lr": lr}, kernel_lr_ratio=ratio, exclude_weight_decay=False, sharded_ddp=False
        )
        (optimizer,) = VocoderTask.build_optimizers(args, make())
        return [group["lr"] for group in optimizer.param_groups]

    assert rates("2e-4", 1.0) == [2e-4] and rates("2e-4", 2.0) == [2e-4, 4e-4]
    with pytest.raises(ValueError, match="optim_conf lr 'fast' is no number"):
        rates("fast", 1.0)


def test_conditioners_in_bfloat16_train_in_float32_arithmetic_and_validate_exactly(batch):
    exact, reduced = make(), make()
    exact.conditioner_dtype, reduced.conditioner_dtype = "float32", "bfloat16"
    torch.manual_seed(1)
    loss, stats, _ = reduced(**batch)
    torch.manual_seed(1)
    expected, _, _ = exact(**batch)
    assert loss.dtype == torch.float32 and loss != expected
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0)
    assert reduced.eval()(**batch)[0] == exact.eval()(**batch)[0]


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="conditioner_dtype 'int4'"):
        ESPnetVocoderModel(MelGlow(**SIZES), CONVENTION, LossConfig(), conditioner_dtype="int4")


def test_gpus_that_are_not_there_are_one_line(monkeypatch, capsys):
    from melglow_plugin.espnet import train

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SystemExit) as ended:
        train.main(["--ngpu", "2"])
    says = "--ngpu 2: torch finds 1 CUDA devices here (--ngpu 0 trains on the CPU)\n"
    assert ended.value.code == 2 and capsys.readouterr().err == says
