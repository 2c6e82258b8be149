"""The stage with a discriminator: who learns from which loss, and that the flow is saved without its critic."""

import argparse
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml
from conftest import speech, stir

pytest.importorskip("espnet2")

from melglow_plugin.checkpoint.espnet import from_espnet_trainer
from melglow_plugin.espnet.adversarial import AdversarialConfig, Adversary
from melglow_plugin.espnet.model import ESPnetVocoderModel, LossConfig
from melglow_plugin.espnet.task import VocoderTask
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.melglow import MelGlow
from melglow_plugin.training.crops import cut

CONVENTION = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)
SIZES = {"n_mels": 20, "hop_length": 64, "n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 2}
SMALL = AdversarialConfig(periods=(2, 3), period_channels=2, max_channels=4, weight=0.5, feature_matching=3.0)


@pytest.fixture(params=[0, 2], ids=["periods", "periods_and_stft"])
def adversary(request) -> Adversary:
    torch.manual_seed(0)
    return Adversary(replace(SMALL, stft_filters=request.param))


@pytest.fixture
def wavs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 2600), torch.randn(2, 2600, requires_grad=True)


def gradients(module: torch.nn.Module) -> list[torch.Tensor]:
    taken = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    return taken


def test_the_discriminator_learns_the_same_whether_the_flow_learns_or_not(adversary, wavs):
    real, sample = wavs
    adversary(sample, real, train_generator=False)[0].backward()
    assert sample.grad is None  # the flow did not
    alone = gradients(adversary)
    adversary(sample, real)[0].backward()
    assert sample.grad.abs().sum() > 0
    for a, b in zip(gradients(adversary), alone, strict=True):
        torch.testing.assert_close(a, b)


def test_the_loss_is_the_weighted_sum_of_its_terms(adversary, wavs):
    loss, terms = adversary(wavs[1], wavs[0])
    expected = terms["real"] + terms["fake"] + 0.5 * terms["adversarial"] + 3.0 * terms["feature_matching"]
    torch.testing.assert_close(loss, expected)


def test_level_is_no_evidence(adversary, wavs):
    real, sample = wavs
    torch.testing.assert_close(adversary(0.01 * sample, 0.01 * real)[0], adversary(sample, real)[0])


def test_the_flow_hears_of_it_from_its_first_step_on(wavs):
    config = AdversarialConfig(periods=(2,), period_channels=2, max_channels=4, start=1)
    model = ESPnetVocoderModel(stir(MelGlow(**SIZES)), CONVENTION, LossConfig(windows=(256, 128)), adversarial=config)
    wav = speech(0.3).float()
    batch = {"speech": torch.stack([cut(wav, CONVENTION, 16, start) for start in (3, 40)])}
    stats = [model(**batch)[1] for _ in range(2)]
    assert ["adversarial" in each for each in stats] == [False, True] and "real" in stats[0]
    assert "real" not in model.eval()(**batch)[1]  # dev values can be compared from epoch to epoch


def test_without_discriminators_the_section_is_refused():
    with pytest.raises(ValueError, match="adversarial_conf: periods is empty and stft_filters 0"):
        Adversary(AdversarialConfig(periods=()))


def test_the_terms_are_espnets(adversary, wavs):
    from espnet2.gan_tts.hifigan import loss as espnet

    real, sample = (wav[:, None] / wavs[0].square().mean(1).sqrt()[:, None, None] for wav in wavs)
    real, fake = adversary.discriminate(real), adversary.discriminate(sample)
    terms = adversary(wavs[1], wavs[0])[1]
    expected = {
        **dict(zip(("real", "fake"), espnet.DiscriminatorAdversarialLoss()(fake, real), strict=True)),
        "adversarial": espnet.GeneratorAdversarialLoss()(fake),
        "feature_matching": espnet.FeatureMatchLoss()(fake, real),
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


def test_the_flows_gradient_is_the_losss_slope():
    adversary = Adversary(replace(SMALL, periods=(2,), stft_filters=1)).double()
    real, sample, direction = torch.randn(3, 1, 2600, dtype=torch.float64)
    sample.requires_grad_()
    gradient = torch.autograd.grad(flow_loss(adversary, sample, real), sample)[0]
    step = 1e-6 * direction
    with torch.no_grad():
        slope = flow_loss(adversary, sample + step, real) - flow_loss(adversary, sample - step, real)
    torch.testing.assert_close((gradient * direction).sum(), slope / 2e-6, rtol=1e-4, atol=1e-9)


def flow_loss(adversary: Adversary, sample: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    terms = adversary(sample, real)[1]
    return terms["adversarial"] + terms["feature_matching"]


def test_a_weight_stands_between_both(adversary, wavs):
    real, sample = wavs
    loss, terms = adversary(sample, real, train_generator=torch.tensor(0.25))
    expected = terms["real"] + terms["fake"] + 0.25 * (0.5 * terms["adversarial"] + 3.0 * terms["feature_matching"])
    torch.testing.assert_close(loss, expected)


def test_a_window_is_one_place_of_both_and_moves(wavs):
    adversary, seen = Adversary(replace(SMALL, window=500)), []
    discriminate = adversary.discriminate
    adversary.discriminate = lambda wav: (seen.append(wav[:, 0].detach()), discriminate(wav))[1]
    real, _ = wavs
    for _ in range(8):
        adversary(real.clone(), real)
    assert {part.shape[-1] for part in seen} == {500}
    for recording, fake, compared in zip(seen[::3], seen[1::3], seen[2::3], strict=True):
        assert torch.equal(recording, fake) and torch.equal(recording, compared)
    assert len({float(part[0, 0]) for part in seen}) > 1
    longer_than_the_crop = Adversary(replace(SMALL, window=10**6))
    assert torch.isfinite(longer_than_the_crop(real.clone(), real)[0])


def test_their_precision_is_their_own(wavs):
    real, sample = wavs
    whole, half = (Adversary(replace(SMALL, dtype=dtype)) for dtype in ("float32", "bfloat16"))
    half.load_state_dict(whole.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = whole(sample, real)
    assert torch.equal(loss, whole(sample, real)[0])
    found, terms = half(sample, real)
    assert found != loss and {term.dtype for term in terms.values()} == {torch.float32}
    torch.testing.assert_close(found, loss, rtol=0.02, atol=0)
    with pytest.raises(ValueError, match="dtype 'int8' is none of float32, bfloat16"):
        Adversary(replace(SMALL, dtype="int8"))


def test_discriminators_need_little_of_espnet():
    code = "import sys; from melglow_plugin.espnet.adversarial import *; Adversary(AdversarialConfig(stft_filters=1))"
    loaded = subprocess.check_output(
        [sys.executable, "-W", "ignore", "-c", f"{code}; print(*{{m.split('.')[0] for m in sys.modules}})"], text=True
    )
    assert not {"typeguard", "librosa", "humanfriendly", "scipy", "espnet"} & set(loaded.split())


def test_one_optimizer_with_a_rate_for_the_discriminator(tmp_path):
    args = argparse.Namespace(
        vocoder="melglow", vocoder_conf=dict(SIZES), feats_extract_conf={"n_fft": 256, "hop_length": 64, "n_mels": 20},
        loss_conf={}, model_conf={}, mel_stats=None, pretrained=None, kernel_lr_ratio=1.0, optim="adam",
        optim_conf={"lr": 1e-3},
        adversarial_conf={"periods": [2], "period_channels": 2, "max_channels": 4, "lr_ratio": 3.0},
    )  # fmt: skip
    model = VocoderTask.build_model(args)
    (optimizer,) = VocoderTask.build_optimizers(args, model)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in model.flow.parameters()} == {1e-3}
    assert {rates[id(p)] for p in model.adversary.parameters()} == {3e-3}
    # What the trainer writes is a vocoder like any other.
    torch.save(model.state_dict(), tmp_path / "1epoch.pth")
    conf = {name: getattr(args, name) for name in ("vocoder", "vocoder_conf", "feats_extract_conf", "adversarial_conf")}
    conf["init_param"] = ["a/3epoch.pth:ema.module:flow", "a/3epoch.pth:adversary:adversary"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(conf))
    vocoder = from_espnet_trainer(tmp_path / "1epoch.pth")
    assert vocoder.flow.state_dict().keys() == model.flow.state_dict().keys()
    assert vocoder.training["adversarial"]["lr_ratio"] == 3.0
    assert vocoder.training["initialised_from"] == ["3epoch.pth"]
