"""The model under Coqui's interface, without starting its trainer."""

import copy
import dataclasses
import inspect
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import speech, stir

pytest.importorskip("TTS")

from torch.utils.data import DataLoader
from TTS.config import load_config, register_config
from TTS.config.shared_configs import BaseAudioConfig
from TTS.vocoder.models import setup_model

import melglow_plugin.coqui
from melglow_plugin import LVCNetGenerator, MelConvention, MelGlow, Vocoder, WaveGlow
from melglow_plugin.checkpoint import pretrained
from melglow_plugin.checkpoint.coqui import from_coqui, is_coqui, to_coqui
from melglow_plugin.coqui import graph
from melglow_plugin.coqui.acoustic import acoustic_convention
from melglow_plugin.coqui.config import LVCnetArgs, MelglowArgs, MelglowConfig, MelglowLossArgs
from melglow_plugin.coqui.model import Melglow
from melglow_plugin.model.loss import flow_nll
from melglow_plugin.training.crops import wav_and_mel
from melglow_plugin.training.objective import LossConfig

melglow_plugin.coqui.register()

SIZES = {"n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 2}
LOSS = {"windows": [512, 256], "spectral_start": 0}
HOP = 256
RECIPE = {"mel_fmin": 80.0, "mel_fmax": 7600.0, "log_func": "np.log", "spec_gain": 1}  # of the acoustic models


def make_config(**changes) -> MelglowConfig:
    config = MelglowConfig()
    values = {"seq_len": 2048, "eval_seq_len": 4096, "num_loader_workers": 0, "num_eval_loader_workers": 0, **changes}
    config.from_dict({"model_params": SIZES, "loss_params": LOSS, **values})
    return config


def make(**changes) -> Melglow:
    torch.manual_seed(0)
    model = Melglow(make_config(**changes))
    stir(model.flow, 0.02)
    model.flow.set_mel_statistics(torch.full((80,), -2.4), torch.full((80,), 0.8))
    return model


@pytest.fixture(scope="module")
def wavs(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("wavs")
    for index, seconds in enumerate((0.5, 0.6, 0.7, 0.05)):
        soundfile.write(folder / f"{index}.wav", speech(seconds).numpy(), 22_050, subtype="PCM_16")
    return sorted(map(str, folder.glob("*.wav")))


def batch_of(model: Melglow, wavs: list[str], is_eval: bool = False) -> dict:
    loader = model.get_data_loader(config=model.config, is_eval=is_eval, samples=wavs[:2], verbose=False)
    return model.format_batch_on_device(model.format_batch(next(iter(loader))))


# Names and configuration


def test_coqui_finds_configuration_and_model_by_name(tmp_path):
    assert register_config("melglow") is MelglowConfig
    (tmp_path / "config.json").write_text(json.dumps({"model": "melglow", "model_params": SIZES}))
    model = setup_model(load_config(tmp_path / "config.json"))
    assert type(model) is Melglow and model.flow.hyperparameters["n_flows"] == 4


def test_the_hook_costs_no_import():
    code = (
        "import sys; from melglow_plugin import hook, watch; hook.install(); hook.install()\n"
        "print({'torch', 'TTS', 'espnet2'} & set(sys.modules), sys.meta_path.count(watch.Finder))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["set()", "1"]


@pytest.mark.parametrize(
    ("section", "part", "changed"),
    [
        (MelglowArgs, MelGlow, {"early_every", "lpc_order"}),
        (LVCnetArgs, LVCNetGenerator, set()),
        (MelglowLossArgs, LossConfig, {"spectral_start", "activation_penalty"}),
    ],
)
def test_a_section_of_the_configuration_has_the_fields_and_defaults_of_its_part(section, part, changed):
    defaults = {name: p.default for name, p in inspect.signature(part).parameters.items()}
    found = {name: tuple(v) if isinstance(v, list) else v for name, v in dataclasses.asdict(section()).items()}
    assert set(found) == set(defaults) - {"n_mels", "hop_length"}
    assert {name for name, value in found.items() if value != defaults[name]} == changed


def test_the_defaults_are_those_of_the_recipe():
    recipe = yaml.safe_load((Path(__file__).parents[1] / "conf" / "melglow.yaml").read_text())
    config = MelglowConfig()
    sizes = {key: value for key, value in recipe["vocoder_conf"].items() if key != "vocoder"}
    assert sizes == {key: config.model_params[key] for key in sizes}
    assert recipe["loss_conf"] == {key: config.loss_params[key] for key in recipe["loss_conf"]}
    steps = recipe["num_iters_per_epoch"]
    assert config.lr_scheduler_params["gamma"] ** steps == pytest.approx(recipe["scheduler_conf"]["gamma"], abs=1e-3)
    assert config.ema_decay == recipe["model_conf"]["ema_decay"]
    found = (config.lr, config.kernel_lr_ratio, config.grad_clip, config.batch_size, config.eval_batch_size)
    names = ("kernel_lr_ratio", "grad_clip", "batch_size", "valid_batch_size")
    assert found == (float(recipe["optim_conf"]["lr"]), *(recipe[name] for name in names))
    hop = config.audio.hop_length
    assert (config.seq_len, config.eval_seq_len) == (
        hop * recipe["segment_frames"],
        hop * recipe["valid_segment_frames"],
    )
    assert MelConvention.coqui(config.audio).differences(MelConvention.espnet(**recipe["feats_extract_conf"])) == []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"n_flow": 2}, "n_flow: no field of MelglowConfig"),
        ({"model_params": {"flows": 2}}, "model_params.flows: no field of MelglowArgs"),
        ({"audio": {"mel_fmni": 80}}, "audio.mel_fmni: no field"),
        ({"model_params": {"n_flows": "many"}}, "model_params .*many"),
        ({"lr": "fast"}, "lr .*fast"),
        ({"seq_len": 1000}, "seq_len 1000 is no multiple of audio.hop_length 256"),
        ({"seq_len": 256, "loss_params": {}}, "seq_len 256 is too short"),
        ({"seq_len": 1792, "loss_params": {"refine": 1}}, "seq_len 1792 is too short for loss_params.refine: .* 1024"),
        ({"grad_clip": [5.0, 5.0]}, "grad_clip"),
        ({"conv_pad": 2}, "conv_pad 2 has no effect"),
        ({"scheduler_after_epoch": True}, "scheduler_after_epoch True has no effect"),
        ({"kernel_lr_ratio": -1.0}, "kernel_lr_ratio -1.0 is not above 0"),
        ({"ema_decay": 1.0}, r"ema_decay 1.0 is not in \[0, 1\)"),
        ({"model_params": {"n_flows": 24, "early_every": 4}}, "24 flows"),
        ({"architecture": "hifigan"}, "architecture 'hifigan'"),
        ({"seed": 2**70}, "seed 1180591620717411303424"),
    ],
)
def test_mistakes_are_refused_by_name(values, says):
    with pytest.raises(ValueError, match=says):
        Melglow(make_config(**values))


def test_a_mistaken_option_of_the_command_line_is_refused():
    config = make_config()
    config.parse_known_args(
        ["--coqpit.model_params.n_flows", "2", "--coqpit.audio.mel_fmax", "7000"], relaxed_parser=True
    )
    assert config.model_params.n_flows == 2 and config.audio.mel_fmax == 7000
    with pytest.raises(ValueError, match="--coqpit.model_params.flows"):
        config.parse_known_args(["--coqpit.model_params.flows", "2"], relaxed_parser=True)


def test_what_the_trainer_adds_to_the_file_is_accepted(tmp_path):
    config = make_config()
    (tmp_path / "config.json").write_text(json.dumps({**config.to_dict(), "github_branch": "* main"}))
    assert load_config(tmp_path / "config.json") == config


def test_a_file_of_version_0_1_is_read_and_its_gain_is_refused(tmp_path):
    old = MelglowConfig().to_dict()
    old["model_params"] = {**SIZES, "mel_gain": False, "lpc_order": 4}
    old["loss_params"] = {"smooth": 0.5, "features": 2.0}
    (tmp_path / "config.json").write_text(json.dumps(old))
    with pytest.warns(DeprecationWarning, match="smooth is now mel_smoothing_prob"):
        config = load_config(tmp_path / "config.json")
    assert Melglow(config).flow.lpc.order == 4
    assert (config.loss_params.mel_smoothing_prob, config.loss_params.activation_penalty) == (0.5, 2.0)
    old["model_params"]["mel_gain"] = True
    (tmp_path / "config.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match="mel_gain True"):
        load_config(tmp_path / "config.json")


def test_pickle_and_deepcopy_keep_the_model_and_leave_the_host():
    model = make()
    model._host = lambda: None
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert twin._host is None
        for name, value in model.state_dict().items():
            assert torch.equal(twin.state_dict()[name], value)


# Data


def test_the_crops_mel_is_that_of_the_whole_recording(wavs):
    model = make()
    dataset = model.dataset(wavs[:1], is_eval=False)
    whole = model.ap.melspectrogram(model.ap.load_wav(wavs[0]))
    recording = np.pad(model.ap.load_wav(wavs[0]), (512, 512), mode="reflect")
    seen = set()
    for dataset.epoch in range(20):
        crop = model.format_batch_on_device({"segments": dataset[0]["segments"][None]})
        wav, mel = crop["waveform"][0].numpy(), crop["input"][0].numpy()
        starts = [
            s for s in range(whole.shape[1] - 7) if np.allclose(recording[512 + s * HOP :][:2048], wav, atol=1e-6)
        ]
        assert len(starts) == 1
        np.testing.assert_allclose(mel, whole[:, starts[0] : starts[0] + 8], atol=1e-3)
        seen.add(starts[0])
    assert len(seen) > 5


def test_evaluation_crops_are_the_same_always(wavs):
    model = make()
    dataset = model.dataset(wavs, is_eval=True)
    for index in range(len(dataset)):
        assert torch.equal(dataset[index]["segments"], dataset[index]["segments"])


def test_workers_draw_different_places(wavs):
    dataset = make().dataset(wavs[:1] * 8, is_eval=False)
    loader = DataLoader(dataset, batch_size=1, num_workers=2)
    draws = {part["segments"].numpy().tobytes() for dataset.epoch in range(2) for part in loader}
    assert len(draws) > 8


def test_a_split_that_leaves_no_recording_is_named():
    model = make(eval_split_size=8, data_path="recordings")
    with pytest.raises(ValueError, match="no recording is left for training: eval_split_size 8, data_path recordings"):
        model.dataset([], is_eval=False)


def test_a_short_recording_is_padded(wavs):
    model = make()
    assert model.format_batch_on_device({"segments": model.dataset(wavs[3:], False)[0]["segments"][None]})[
        "input"
    ].shape == (1, 80, 8)


def test_recordings_at_another_rate_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 16_000)
    with pytest.raises(ValueError, match="a.wav has 16000 Hz, audio.sample_rate is 22050 Hz"):
        make().dataset([str(tmp_path / "a.wav")], False)


def acoustic_mels(tmp_path, wavs, audio: BaseAudioConfig, drop: int = 0) -> list[tuple[str, str]]:
    pairs = []
    for path in wavs[:2]:
        wav, _ = soundfile.read(path, dtype="float32")
        mel = MelConvention.coqui(audio).extract(torch.from_numpy(wav))
        np.save(tmp_path / f"{Path(path).stem}.npy", mel[:, : mel.shape[1] - drop].numpy())
        pairs.append((path, str(tmp_path / f"{Path(path).stem}.npy")))
    return pairs


def test_mels_of_an_acoustic_model_are_converted_and_lie_beside_their_samples(tmp_path, wavs):
    audio = BaseAudioConfig(**RECIPE, signal_norm=False, do_trim_silence=False)
    (tmp_path / "config.json").write_text(json.dumps({"audio": audio.to_dict()}))
    model = make(feature_config=str(tmp_path / "config.json"))
    dataset = model.dataset(acoustic_mels(tmp_path, wavs, audio), is_eval=True)
    part, plain = dataset[0], model.dataset(wavs[:1], is_eval=True)[0]
    wav, mel = wav_and_mel(plain["segments"][None], model.convention, 16)
    torch.testing.assert_close(part["wav"], wav[0])
    torch.testing.assert_close(part["mel"], mel[0], atol=1e-3, rtol=0)


def test_acoustic_mels_that_do_not_match_the_audio_are_refused(tmp_path, wavs):
    model = make()
    cut = acoustic_mels(tmp_path, wavs, model.config.audio, drop=3)
    with pytest.raises(ValueError, match=r"shape \(80, 41\).*\(80, 44\).*do_trim_silence"):
        model.dataset(cut, is_eval=False)
    np.save(tmp_path / "0.npy", np.random.default_rng(0).normal(-2.4, 0.8, (80, 44)))
    with pytest.raises(ValueError, match=r"0.npy is not the mel of .*0.wav: correlation -?0.0\d, below 0.5"):
        model.dataset(cut, is_eval=False)


# Training


def test_the_loss_is_the_weighted_sum_of_its_terms(wavs):
    model = make(loss_params={**LOSS, "stft": 0.5, "mel": 2.0, "activation_penalty": 3.0})
    batch = batch_of(model, wavs)
    outputs, losses = model.train_step(batch, model.get_criterion())
    levels = model.flow.activation_rms(batch["input"]).detach()
    grown = (levels / 0.4 - 1).relu().mean(1).sum()
    assert grown > 0 and losses["activation_rms"] == levels.square().mean(1).sqrt().max()
    expected = losses["nll"] + 0.5 * losses["stft"] + 2.0 * losses["mel"] + 3.0 * grown
    torch.testing.assert_close(losses["loss"].detach(), expected)
    assert outputs and losses["loss"].requires_grad


def test_the_likelihood_is_that_of_the_crop_and_evaluation_repeats_itself(wavs):
    model = make().eval()
    batch = batch_of(model, wavs, is_eval=True)
    criterion = model.get_criterion()
    first, second = (model.eval_step(batch, criterion)[1] for _ in range(2))
    assert first["loss"] == second["loss"]
    expected = flow_nll(*model.flow(batch["waveform"], batch["input"]))
    torch.testing.assert_close(first["nll"], expected.detach(), atol=1e-3, rtol=0)


def test_every_parameter_changes_in_five_steps(wavs):
    torch.manual_seed(0)
    model = Melglow(make_config())
    model.take_statistics(wavs)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer, criterion = torch.optim.Adam(model.parameters(), lr=1e-3), model.get_criterion()
    for _ in range(5):
        _, losses = model.train_step(batch_of(model, wavs), criterion)
        losses["loss"].backward()
        model.before_gradient_clipping()
        optimizer.step()
        optimizer.zero_grad()
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


def test_weights_are_contiguous_as_the_trainer_needs_them():
    assert all(p.is_contiguous() for p in make().parameters())


def test_a_postfilter_that_the_configuration_does_not_have_is_named(caplog):
    """Coqui's Trainer leaves out what does not fit, and says so in a line among many."""
    weights = make(model_params=SIZES | {"postfilter_channels": 3}).state_dict()
    for own, words in ((0, "the weights have postfilter_channels 3, the configuration 0"), (3, "")):
        caplog.clear()
        make(model_params=SIZES | {"postfilter_channels": own}).load_state_dict(weights, strict=False)
        assert words in caplog.text and bool(words) == bool(caplog.text)


@pytest.mark.parametrize("begun_from_weights", [False, True])
def test_layers_that_emit_kernels_learn_at_their_own_rate(begun_from_weights):
    model = make(lr=1e-3, kernel_lr_ratio=4.0)
    optimizer = model.get_optimizer()
    if begun_from_weights:  # with --restore_path the Trainer sets one rate for all
        for group in optimizer.param_groups:
            group["lr"] = 1e-3
        model.on_init_end(SimpleNamespace(continue_run=False, optimizer=[optimizer], train_samples=[]))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == (4e-3 if ".kernel_predictor.to_kernel." in name else 1e-3), name


def continued(path: Path, state: dict, **more) -> SimpleNamespace:
    """A Trainer that has restored a checkpoint with ``state``."""
    torch.save(state, path)
    args = SimpleNamespace(restore_path=str(path))
    return SimpleNamespace(continue_run=True, args=args, train_samples=[], epochs_done=3, total_steps_done=9, **more)


def test_a_training_that_goes_on_keeps_its_rates_and_its_place(tmp_path):
    model = make(lr=1e-3)
    optimizer = model.get_optimizer()
    optimizer.param_groups[1]["lr"] = 2e-5  # as restored from a checkpoint
    place = {"epoch": 4, "batches": 0, "steps": 8, "skipped_steps": 1}  # between two epochs
    trainer = continued(tmp_path / "a.pth", {"melglow_position": place}, optimizer=[optimizer])
    model.on_init_end(trainer)
    assert optimizer.param_groups[1]["lr"] == 2e-5
    assert (trainer.epochs_done, trainer.total_steps_done, model.skipped_steps) == (4, 8, 1)


def test_the_running_mean_is_evaluated_and_saved_and_the_learning_weights_come_back(tmp_path, wavs):
    model = make(ema_decay=0.9)
    optimizer, criterion = model.get_optimizer(), model.get_criterion()
    start, means = model.flow.convs_1x1[0].weight.detach().clone(), []
    for n in range(3):
        model.train_step(batch_of(model, wavs), criterion)[1]["loss"].backward()
        optimizer.step()
        decay, before = (1 + n) / (10 + n), means[-1] if means else start
        means.append(decay * before + (1 - decay) * model.flow.convs_1x1[0].weight.detach())
    name = "vocoder.flow.convs_1x1.0.weight"
    state = model._complete({"model": model.state_dict(), "step": 2})
    torch.testing.assert_close(state["model"][name], means[-1])
    assert not torch.equal(means[-1], model.flow.convs_1x1[0].weight)

    twin = make(ema_decay=0.9)
    optimizer = twin.get_optimizer()
    twin.load_state_dict(state["model"])  # as the Trainer does
    batch = batch_of(twin, wavs, is_eval=True)
    spoken = twin.eval_step(batch, criterion)[1]["nll"]
    twin.on_init_end(continued(tmp_path / "a.pth", state, optimizer=[optimizer]))
    assert torch.equal(twin.flow.convs_1x1[0].weight, model.flow.convs_1x1[0].weight)
    assert not torch.equal(twin.eval_step(batch, criterion)[1]["nll"], spoken)  # of the mean now
    assert torch.equal(twin.eval_step(batch, criterion)[1]["nll"], model.eval_step(batch, criterion)[1]["nll"])
    torch.testing.assert_close(twin._complete({"model": twin.state_dict(), "step": 2})["model"][name], means[-1])
    others = {"model": {"encoder.weight": start}, "step": 1}
    assert model._complete(others) is others


def test_a_checkpoint_that_does_not_say_where_it_stands_begins_its_epoch_again_and_says_so(tmp_path, caplog):
    trainer = continued(tmp_path / "a.pth", {})
    make().on_init_end(trainer)
    assert (trainer.epochs_done, trainer.total_steps_done) == (3, 9)
    assert "a.pth has no position in its epoch" in caplog.text


def test_statistics_are_taken_once(wavs):
    model = Melglow(make_config())
    trainer = SimpleNamespace(train_samples=wavs[:3], continue_run=False, optimizer=[model.get_optimizer()])
    model.on_init_end(trainer)
    mels = torch.cat([model.convention.extract(torch.from_numpy(soundfile.read(w)[0])) for w in wavs[:3]], 1)
    torch.testing.assert_close(model.flow.mel_mean, mels.mean(1).float(), atol=1e-4, rtol=0)
    taken = model.flow.mel_mean.clone()
    trainer.train_samples = wavs[3:]
    model.on_init_end(trainer)
    assert torch.equal(model.flow.mel_mean, taken)


def test_steps_that_are_not_finite_are_skipped_and_counted(wavs):
    model = make()
    batch, criterion = batch_of(model, wavs), model.get_criterion()
    assert model.train_step({**batch, "waveform": batch["waveform"] * float("nan")}, criterion) == (None, None)
    _, losses = model.train_step(batch, criterion)
    losses["loss"].backward()
    next(model.parameters()).grad.fill_(float("inf"))
    model.before_gradient_clipping()
    assert all(p.grad is None for p in model.parameters()) and model.skipped_steps == 2


def trainer_of(model: Melglow, **changes) -> SimpleNamespace:
    """What a graph of the step reads of the Trainer."""
    optimizer = model.get_optimizer()
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    values = {"num_gpus": 1, "use_accelerate": False, "grad_accum_steps": 1, "config": model.config, **changes}
    return SimpleNamespace(criterion=[model.get_criterion()], optimizer=[optimizer], scheduler=[scheduler], **values)


def test_the_step_that_a_gpu_captures_is_the_trainers(wavs):
    ours, theirs = make(ema_decay=0.9), make(ema_decay=0.9)
    trainer, other = trainer_of(ours), trainer_of(theirs)
    ours._graph_step = graph.make_step(ours, trainer, None)
    batch = batch_of(ours, wavs)
    theirs._position.noise = lambda *_: None  # torch's default generator, as a graph has it
    for step in range(3):
        for model in (ours, theirs):
            model.on_train_step_start(SimpleNamespace(total_steps_done=step))
        wav = batch["waveform"] * (float("nan") if step == 1 else 1)
        _, stats = ours.optimize({**batch, "waveform": wav}, trainer)
        torch.manual_seed(theirs._position.noise_seed(theirs.config.training_seed))
        outputs, losses = theirs.train_step({**batch, "waveform": wav}, other.criterion[0])
        if outputs is None:
            assert stats == {"skipped_steps": 1}
            continue
        losses["loss"].backward()
        theirs.before_gradient_clipping()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), theirs.config.grad_clip)
        assert stats["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
        assert stats["loss"] == pytest.approx(float(losses["loss"].detach()), abs=1e-5)
        other.optimizer[0].step()
        other.optimizer[0].zero_grad()
        other.scheduler[0].step()
    assert ours._mean.count == theirs._mean.count == 2 and ours.skipped_steps == 1
    assert float(trainer.optimizer[0].param_groups[0]["lr"]) == pytest.approx(1e-4)  # 4e-4, halved twice
    for a, b in zip(ours._mean.flow.parameters(), theirs._mean.flow.parameters(), strict=True):
        assert (a - b).abs().mean() < 1e-6  # after two steps of 4e-4


@pytest.mark.parametrize(
    "change, says",
    [({}, ""), ({"num_gpus": 2}, "2 GPUs"), ({"grad_accum_steps": 4}, "grad_accum_steps"),
     ({"use_accelerate": True}, "use_accelerate")],
)  # fmt: skip
def test_what_forbids_a_graph_is_named(change, says):
    model = make()
    assert graph.obstacle(trainer_of(model, **change)) == says
    model.config.mixed_precision = True
    assert graph.obstacle(trainer_of(model)) == "mixed_precision"
    with pytest.raises(NotImplementedError):  # on a CPU the Trainer takes its own step
        model.optimize({}, trainer_of(model))


def test_spectral_terms_start_and_pause(wavs):
    model = make(loss_params={**LOSS, "spectral_start": 2, "spectral_interval": 2})
    batch, criterion, seen = batch_of(model, wavs), model.get_criterion(), []
    for step in range(6):
        model.on_train_step_start(SimpleNamespace(total_steps_done=step))
        seen.append("stft" in model.train_step(batch, criterion)[1])
    assert seen == [False, False, True, False, True, False]


# Speaking


def acoustic(**audio) -> SimpleNamespace:
    audio = BaseAudioConfig(**{"mel_fmin": 80.0, "mel_fmax": 7600.0, **audio})
    return SimpleNamespace(config=SimpleNamespace(audio=audio, model="glow_tts"))


UNITS = {
    "Coqui's defaults": {},
    "its LJSpeech recipes": {"log_func": "np.log", "spec_gain": 1, "signal_norm": False},
    "natural decibels": {"log_func": "np.log"},
    "asymmetric": {"symmetric_norm": False, "clip_norm": False, "max_norm": 1.0},
    "another reference": {"ref_level_db": 0, "min_level_db": -120, "clip_norm": False},
}


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("own", [{}, {"signal_norm": True, "spec_gain": 20}], ids=["plain", "normalised"])
def test_units_are_converted_from_the_acoustic_models_audio(units, own):
    """Through Coqui's own AudioProcessors, as the Synthesizer goes."""
    from TTS.utils.audio import AudioProcessor

    model = make(audio=own)
    host = torch.nn.Module()
    host.tts_model = acoustic(**UNITS[units])
    model.set_acoustic_model(host)
    wav = speech(0.5)
    ap = AudioProcessor(host.tts_model.config.audio)
    x = model.ap.normalize(ap.denormalize(ap.melspectrogram(wav.numpy())))
    heard = model.input_convention().convert(torch.tensor(x)[None], model.convention)[0]
    plain = MelConvention.coqui(MelglowConfig().audio.to_dict())  # log10 of the amplitude
    found, expected = model.convention.convert(heard, plain), plain.extract(wav)
    inside = expected > -7
    if any(part.signal_norm and part.clip_norm for part in (ap, model.ap)):  # what either has clipped stays so
        per_unit = ap.spec_gain * math.log(10, ap.base)
        inside &= (expected > -80 / per_unit + 1e-3) & (expected < 20 / per_unit - 1e-3)
    assert inside.float().mean() > 0.1
    torch.testing.assert_close(found[inside].double(), expected[inside], atol=2e-3, rtol=0)


@pytest.fixture(scope="module")
def stats_path(wavs, tmp_path_factory) -> str:
    """Mean and variance as Coqui's own command writes them, for the mel of its LJSpeech recipes at 80 to 7600 Hz."""
    from TTS.bin import compute_statistics
    from TTS.config.shared_configs import BaseDatasetConfig
    from TTS.tts.configs.glow_tts_config import GlowTTSConfig

    folder = tmp_path_factory.mktemp("stats")
    names = [Path(path).stem for path in wavs[:3]]
    (folder / "metadata.csv").write_text("".join(f"{name}|it is warm.|it is warm.\n" for name in names))
    (folder / "wavs").symlink_to(Path(wavs[0]).parent)
    lists = {"meta_file_train": "metadata.csv", "meta_file_val": "metadata.csv"}
    corpus = BaseDatasetConfig(formatter="ljspeech", path=str(folder), **lists)
    config = GlowTTSConfig(audio=BaseAudioConfig(**RECIPE), datasets=[corpus])
    config.save_json(folder / "config.json")
    with pytest.raises(SystemExit):
        compute_statistics.main([str(folder / "config.json"), str(folder / "scale_stats.npy")])
    return str(folder / "scale_stats.npy")


def test_mean_and_variance_of_stats_path_are_converted_exactly(stats_path):
    from TTS.utils.audio import AudioProcessor

    wav = speech(0.5)
    audio = BaseAudioConfig(**RECIPE, stats_path=stats_path)
    ap = AudioProcessor(audio)
    scaled = ap.melspectrogram(wav.numpy())
    assert 0.9 < np.median(scaled.std(1)) < 1.1  # it is normalised by bin
    plain = MelConvention.espnet()
    expected = plain.extract(wav)
    found = MelConvention.coqui(audio).convert(torch.tensor(scaled).double(), plain)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    back = plain.convert(expected, MelConvention.coqui(audio))
    torch.testing.assert_close(back, torch.tensor(scaled).double(), atol=1e-3, rtol=0)

    # As the Synthesizer goes: the acoustic model's statistics are undone, ours applied.
    for own in ({}, {**RECIPE, "signal_norm": True, "stats_path": stats_path}):
        model, host = make(audio=own), torch.nn.Module()
        host.tts_model = acoustic(**RECIPE, stats_path=stats_path)
        model.set_acoustic_model(host)
        x = torch.tensor(model.ap.normalize(ap.denormalize(scaled)))
        mel = model.input_convention().convert(x, model.convention)
        torch.testing.assert_close(mel.double(), model.convention.extract(wav), atol=1e-3, rtol=0)


def test_the_refusal_names_a_bundled_model_that_takes_the_mel(tmp_path, monkeypatch):
    model = make()
    folders = [tmp_path / "bundled_7600", tmp_path / "bundled_8000"]
    for folder, convention in zip(folders, (model.convention, MelConvention.waveglow()), strict=True):
        Vocoder(model.flow, convention).save_pretrained(folder)
    monkeypatch.setattr(pretrained, "pretrained_models", lambda: folders)
    adapts = f"melglow convert {folders[0]} --convention"
    for fmax, says in ((8000.0, f"bundled_8000 takes it: {folders[1]}"), (9000.0, adapts)):
        with pytest.raises(ValueError, match="does not fit this vocoder") as error:
            acoustic_convention(acoustic(mel_fmin=0.0, mel_fmax=fmax), model.config.audio, model.convention)
        assert says in str(error.value)
    with pytest.raises(ValueError, match="does not fit this vocoder") as error:
        acoustic_convention(acoustic(hop_length=300), model.config.audio, model.convention)
    assert "bundled" not in str(error.value)


def test_models_that_give_no_mel_are_refused_in_words():
    model = make()
    vits = acoustic()
    vits.waveform_decoder = None
    tacotron = acoustic()
    tacotron.config.model = "tacotron"
    for what, says in ((vits, "makes its wav itself"), (tacotron, "linear spectrograms")):
        with pytest.raises(ValueError, match=says):
            acoustic_convention(what, model.config.audio, model.convention)


@pytest.mark.parametrize(
    ("shape", "says"),
    [((1, 5000, 1), "waveform"), ((1, 1, 5000), "waveform"), ((1, 513, 9), "linear"), ((1, 100, 9), "100 bins")],
)
def test_input_that_is_no_mel_is_refused_in_words(shape, says):
    with pytest.raises(ValueError, match=says):
        make().inference(torch.zeros(shape))


def test_half_precision_models_are_tolerated():
    wav = make().half().inference(torch.full((1, 80, 7), -2.0, dtype=torch.float16))
    assert wav.shape == (1, 1, 7 * HOP) and wav.dtype == torch.float32 and torch.isfinite(wav).all()


# There and back


@pytest.mark.parametrize("kind", [MelGlow, WaveGlow])
def test_there_and_back_is_the_same_model(tmp_path, kind):
    torch.manual_seed(0)
    vocoder = Vocoder(stir(kind(**SIZES), 0.02), MelConvention.espnet(), {"steps": 3})
    files = to_coqui(vocoder.checkpoint, tmp_path)
    assert is_coqui(files[0])
    model = setup_model(load_config(files[1]))
    model.load_checkpoint(model.config, files[0], eval=True)
    mel = torch.randn(80, 9) - 2.4
    expected = vocoder(mel, seed=0)
    assert torch.equal(model.inference(mel[None])[0, 0], expected)
    back = Vocoder.from_pretrained(files[0])
    assert torch.equal(back(mel, seed=0), expected)
    assert back.convention == vocoder.convention and back.training_facts == {"steps": 3}


def test_a_mel_that_coqui_cannot_make_is_not_exported(tmp_path):
    vocoder = Vocoder(MelGlow(**SIZES), MelConvention.hifigan())
    with pytest.raises(ValueError, match="Coqui TTS has no such mel .*center False -> True"):
        to_coqui(vocoder.checkpoint, tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused(tmp_path):
    torch.save({"model": {}}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="config.json is missing"):
        from_coqui(tmp_path / "model.pth")
    (tmp_path / "config.json").write_text('{"model": "glow_tts"}')
    assert not is_coqui(tmp_path / "model.pth")
    with pytest.raises(ValueError, match="config.json: model 'glow_tts'"):
        from_coqui(tmp_path / "model.pth")
