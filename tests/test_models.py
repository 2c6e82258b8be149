import inspect

import pytest
import torch
from conftest import TINY, speech, stir, tiny
from torch.func import functional_call

from melglow_plugin.model.loss import MultiResolutionSTFT, flow_nll
from melglow_plugin.model.melglow import MelGlow, WaveGlow

KINDS = pytest.mark.parametrize("kind", [MelGlow, WaveGlow])


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


# What the contract fixes

FLOW = {"n_mels": 80, "hop_length": 256, "squeeze_factor": 8, "n_flows": 12, "early_every": 4, "early_size": 2}
LVC = {"channels": 16, "n_layers": 7, "kernel_size": 3, "predictor_channels": 32, "predictor_layers": 2}
WN = {"channels": 64, "n_layers": 8, "kernel_size": 3}


@pytest.mark.parametrize("kind, expected", [(MelGlow, FLOW | LVC), (WaveGlow, FLOW | WN)])
def test_constructor_is_the_contract(kind, expected):
    found = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
    assert list(found.items())[: len(expected)] == list(expected.items())
    assert inspect.Parameter.empty not in found.values()


def test_default_melglow_is_small():
    parameters = sum(p.numel() for p in MelGlow().parameters())
    assert 4.5e6 <= parameters <= 4.7e6


# Two verbs


@KINDS
@pytest.mark.parametrize("hop, squeeze", [(200, 8), (240, 8), (256, 8), (300, 12), (512, 8), (600, 8)])
def test_any_hop_inverts_and_gives_hop_samples_a_frame(kind, hop, squeeze):
    model = tiny(kind, hop_length=hop, squeeze_factor=squeeze)
    mel = torch.randn(1, 5, 3, dtype=torch.float64)
    z = torch.randn(1, 3 * hop, dtype=torch.float64)
    wav = model.inverse(z, mel)
    assert wav.shape == (1, 3 * hop)
    close(model(wav, mel)[0], z)


def test_one_frame_is_enough(model, mel, wav):
    z, log_det = model(wav[:, :16], mel[..., :1])
    assert z.shape == (2, 16) and log_det.shape == (2,)
    close(model.inverse(z, mel[..., :1]), wav[:, :16])


@pytest.mark.parametrize("early_every, n_flows", [(9, 6), (1, 3), (3, 7)])
def test_any_number_of_early_outputs_inverts(early_every, n_flows, mel, wav):
    model = tiny(early_every=early_every, n_flows=n_flows)
    close(model.inverse(model(wav, mel)[0], mel), wav)


@KINDS
def test_z_stands_at_the_time_of_its_wav(kind, mel):
    # Fresh couplings are the identity, so only the 8 samples of one step are mixed.
    model = kind(**TINY).double()
    wav = torch.zeros(1, 48, dtype=torch.float64)
    wav[0, 8 * 3 + 5] = 1.0
    z = model(wav, mel[:1])[0]
    assert z.shape == wav.shape
    assert z[0, 24:32].abs().min() > 1e-6 and z.count_nonzero() == 8


def test_a_condition_can_be_used_for_both_verbs(model, mel, wav):
    cond = model.condition(mel)
    z, log_det = model(wav, mel, cond=cond)
    close(z, model(wav, mel)[0], 0)
    close(log_det, model(wav, mel)[1], 0)
    close(model.inverse(z, mel, cond=cond), model.inverse(z, mel), 0)


def test_mel_moves_the_latent_and_the_sample(model, mel, wav):
    other = mel.clone()
    other[1, 2, 1] += 1.0
    for verb in (lambda m: model(wav, m)[0], lambda m: model.inverse(wav, m)):
        moved = (verb(mel) != verb(other)).any(1)
        assert moved.tolist() == [False, True]


def test_kernel_emitting_layers_learn_at_their_own_rate():
    groups = MelGlow(**TINY).parameter_groups(1e-3, 4.0)
    emit = 6 * sum(p.numel() for p in MelGlow(**TINY).couplings[0].net.kernel_predictor.to_kernel.parameters())
    assert [g["lr"] for g in groups] == [1e-3, 4e-3]
    assert sum(p.numel() for p in groups[1]["params"]) == emit
    assert sum(len(g["params"]) for g in groups) == len(list(MelGlow(**TINY).parameters()))
    assert len(WaveGlow(**TINY).parameter_groups(1e-3, 4.0)) == 1


# Padding


@pytest.fixture
def padded_batch():
    """Lengths in frames, and wav and mel with garbage in the padding."""
    return torch.tensor([6, 3, 1]), torch.randn(3, 96, dtype=torch.float64), torch.randn(3, 5, 6, dtype=torch.float64)


def test_forward_of_a_padded_batch_is_that_of_single_runs(model, padded_batch):
    lengths, wav, mel = padded_batch
    z, log_det = model(wav, mel, lengths)
    for i, n in enumerate(lengths.tolist()):
        alone, alone_log_det = model(wav[i : i + 1, : 16 * n], mel[i : i + 1, :, :n])
        close(z[i, : 16 * n], alone[0])
        close(log_det[i], alone_log_det[0])


def test_inverse_of_a_padded_batch_is_that_of_single_runs(model, padded_batch):
    lengths, z, mel = padded_batch
    wav = model.inverse(z, mel, lengths)
    for i, n in enumerate(lengths.tolist()):
        close(wav[i, : 16 * n], model.inverse(z[i : i + 1, : 16 * n], mel[i : i + 1, :, :n])[0])


# Gradients


def test_every_parameter_gets_a_gradient_in_training(model, mel, wav):
    z, log_det = model(wav, mel)
    sample = model.inverse(torch.randn_like(wav), mel)
    (flow_nll(z, log_det) + MultiResolutionSTFT((32, 16))(sample, wav)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@KINDS
@pytest.mark.parametrize("verb", ["forward", "inverse"])
def test_gradients_match_finite_differences(kind, verb):
    conf = {"n_mels": 2, "hop_length": 8, "squeeze_factor": 4, "n_flows": 2, "early_every": 1, "channels": 2}
    model = tiny(kind, **conf, n_layers=2)
    mel = torch.randn(1, 2, 2, dtype=torch.float64, requires_grad=True)
    signal = torch.randn(1, 16, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in model.named_parameters()]

    class Verb(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *args):
            return getattr(self.model, verb)(*args)

    def run(signal, mel, *weights):
        named = {f"model.{name}": w for name, w in zip(names, weights, strict=True)}
        return functional_call(Verb(), named, (signal, mel))

    assert torch.autograd.gradcheck(run, (signal, mel, *model.parameters()), fast_mode=True)


@KINDS
@pytest.mark.parametrize("stirred", [False, True])
@pytest.mark.parametrize("sound", ["zero", "constant", "square"])
def test_difficult_audio_gives_finite_loss_and_gradients(kind, stirred, sound):
    model = kind(**TINY)
    model = stir(model) if stirred else model
    square = torch.sign(torch.sin(torch.arange(192) / 5.0 + 0.1))
    wav = {"zero": torch.zeros(192), "constant": torch.full((192,), 0.5), "square": square}[sound][None]
    mel = torch.full((1, 5, 12), -11.5)
    z, log_det = model(wav, mel)
    sample = model.inverse(0.6 * torch.randn_like(wav), mel)
    loss = flow_nll(z, log_det) + MultiResolutionSTFT((64, 32))(sample, wav)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# Precision


@KINDS
def test_float32_round_trip(kind):
    model = tiny(kind).float()
    mel, wav = torch.randn(1, 5, 100), speech(1600 / 22_050).float()[None]
    close(model.inverse(model(wav, mel)[0], mel), wav, 1e-5)


@KINDS
def test_flow_stays_float32_under_bf16_autocast(kind):
    model = tiny(kind).float()
    mel, wav = torch.randn(1, 5, 100), speech(1600 / 22_050).float()[None]
    exact, exact_log_det = model(wav, mel)
    with torch.autocast("cpu", torch.bfloat16):
        z, log_det = model(wav, mel)
        again = model.inverse(z, mel)
    assert (z.dtype, log_det.dtype, again.dtype) == (torch.float32,) * 3
    close(again, wav, 1e-3)
    close(z, exact, 0.05)
    torch.testing.assert_close(log_det, exact_log_det, rtol=0.01, atol=0.1)


@KINDS
def test_gradients_flow_under_bf16_autocast(kind):
    model = tiny(kind).float()
    with torch.autocast("cpu", torch.bfloat16):
        z, log_det = model(torch.randn(1, 48), torch.randn(1, 5, 3))
        loss = flow_nll(z, log_det)
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_recomputing_gives_the_same_gradients(model, mel, wav):
    def gradients():
        model.zero_grad()
        cond = model.condition(mel)
        z, log_det = model(wav, mel, cond=cond)
        (flow_nll(z, log_det) + model.inverse(0.5 * wav, mel, cond=cond).square().mean()).backward()
        return [p.grad for p in model.parameters()]

    expected = gradients()
    model.recompute()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        found = gradients()
    few = sum(saved)
    for a, b in zip(found, expected, strict=True):
        close(a, b)
    model.recompute(False)
    saved.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        gradients()
    assert few < sum(saved) * 2 / 3


# Mel statistics


@KINDS
def test_model_normalises_its_mel(kind, mel, wav):
    model = tiny(kind)
    mean, std = torch.linspace(-3, 1, 5).double(), torch.linspace(0.2, 4, 5).double()
    model.set_mel_statistics(torch.zeros(5), torch.ones(5))
    expected = model(wav, mel)[0]
    model.set_mel_statistics(mean, std)
    close(model(wav, mel * model.mel_std[:, None] + model.mel_mean[:, None])[0], expected)


def test_mel_statistics_travel_with_the_weights(model, mel, wav):
    other = type(model)(**model.hyperparameters).double()
    other.load_state_dict(model.state_dict())
    assert {"mel_mean", "mel_std"} <= set(model.state_dict())
    close(other(wav, mel)[0], model(wav, mel)[0], 0)


def test_a_constant_bin_is_not_blown_up(model, mel, wav):
    model.set_mel_statistics(torch.zeros(5), torch.zeros(5))
    assert model(wav, mel)[0].isfinite().all()


def test_state_holds_weights_and_statistics_only(model, mel, wav):
    before = set(model.state_dict())
    with torch.no_grad():
        model.inverse(wav, mel)
    statistics = {"mel_mean", "mel_std"} | (
        {"lpc.band_autocorrelations", "lpc.log_power"} if model.lpc.reach_frames else set()
    )
    assert set(model.state_dict()) == before == {n for n, _ in model.named_parameters()} | statistics


# Refusals


@pytest.mark.parametrize("verb", ["forward", "inverse"])
@pytest.mark.parametrize(
    "wav, mel, numbers",
    [
        ((2, 47), (2, 5, 3), r"2, 47.*16.*2, 48"),
        ((1, 48), (2, 5, 3), r"1, 48.*2, 48"),
        ((2, 48), (2, 4, 3), r"2, 4, 3.*5"),
        ((2, 48), (5, 3), r"5, 3.*5"),
        ((2, 1, 48), (2, 5, 3), r"2, 1, 48.*2, 48"),
    ],
)
def test_wrong_shapes_are_refused_with_both(model, verb, wav, mel, numbers):
    with pytest.raises(ValueError, match=numbers):
        getattr(model, verb)(torch.zeros(wav).double(), torch.zeros(mel).double())


@KINDS
@pytest.mark.parametrize(
    "changes, numbers",
    [
        ({"hop_length": 20}, "20.*8"),
        ({"squeeze_factor": 4}, "squeeze_factor 4 less 2 .* 2 of 6"),
        ({"n_flows": 9}, "squeeze_factor 8 less 2 .* 2 of 9"),
        ({"early_size": 1}, "8 less 1"),
        ({"early_size": 3, "early_every": 3}, "8 less 3"),
        ({"squeeze_factor": 7, "hop_length": 14}, "7 less 2"),
        ({"kernel_size": 2}, "kernel_size 2"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_both(kind, changes, numbers):
    with pytest.raises(ValueError, match=numbers):
        kind(**{**TINY, **changes})


@pytest.mark.parametrize(
    "field, value",
    [
        ("early_size", 0), ("early_size", -2), ("early_every", 0), ("early_every", -1), ("n_flows", 0),
        ("squeeze_factor", 0), ("hop_length", 0),
    ],
)  # fmt: skip
def test_what_is_not_refused_inverts(field, value):
    conf = {**TINY, field: value}
    try:
        model = MelGlow(**conf).double()
    except ValueError as refusal:
        assert f"{field} {value}" in str(refusal)
        return
    wav, mel = torch.randn(1, 3 * conf["hop_length"]).double(), torch.randn(1, 5, 3).double()
    close(model.inverse(model(wav, mel)[0], mel), wav)
    assert wav.numel()
