"""Training that is killed, runs out of disk, or loses a rank; benchmarks/kill.py does more of the first."""

import ctypes
import json
import os
import resource
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import zygote
from conftest import speech, stir

from melglow_plugin import MelConvention, MelGlow, Vocoder, flow_nll
from melglow_plugin.training.objective import HEALTHY_RMS

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
LOCAL = ROOT / "egs" / "ljspeech" / "voc1" / "local"
LIBC = ctypes.CDLL(None)


def obey_permissions() -> None:
    """In a child before its exec: root gives up the right to write where permissions forbid it (others have none)."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        LIBC.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.fixture
def read_only(tmp_path):
    """Makes a folder read-only, for processes that obey permissions; skips where even they may write."""
    folders = []

    def make(folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o555)
        folders.append(folder)
        probe = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w')", str(folder / "probe")]
        if subprocess.run(probe, preexec_fn=obey_permissions, stderr=subprocess.DEVNULL).returncode == 0:
            pytest.skip("this user may write into a read-only folder")
        return folder

    yield make
    for folder in folders:
        folder.chmod(0o755)


def run(*command, limit: int | None = None) -> subprocess.CompletedProcess:
    """A Python command under permissions, with a limit of the size of files that stands for a full disk."""

    def prepare() -> None:
        obey_permissions()
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run([sys.executable, *map(str, command)], env=ENVIRONMENT, capture_output=True, text=True,
                          preexec_fn=prepare, timeout=900)  # fmt: skip


def contents(folder: Path, pattern: str = "**/*") -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob(pattern) if path.is_file()}


def refused(result: subprocess.CompletedProcess, says: str, where: Path) -> None:
    """It ended with one line on stderr, which names what and where."""
    assert result.returncode != 0, result.stdout
    (line,) = [line for line in result.stderr.splitlines() if "it/s" not in line]
    assert says in line and str(where) in line


def made_up_corpus(folder: Path, count: int = 12) -> Path:
    (folder / "wavs").mkdir(parents=True)
    for i in range(count):
        soundfile.write(folder / "wavs" / f"utterance{i}.wav", 0.5 * speech(0.5).numpy(), 22_050)
    (folder / "metadata.csv").write_text("".join(f"utterance{i}|words|words\n" for i in range(count)))
    return folder


def tiny_model(folder: Path) -> Path:
    """A folder of a model with the default mel."""
    flow = stir(MelGlow(n_mels=80, n_flows=2, channels=4, n_layers=2), 0.02)
    Vocoder(flow, MelConvention.espnet()).save_pretrained(folder)
    return folder


def test_data_preparation_survives_a_full_disk_a_read_only_folder_and_a_share_that_went_away(tmp_path, read_only):
    corpus, data, lists = made_up_corpus(tmp_path / "corpus"), tmp_path / "data", tmp_path / "lists"
    prepare = (LOCAL / "data_prep.py", corpus, data)
    check = (LOCAL / "check_corpus.py", data, lists, "--config", ROOT / "conf" / "melglow_tiny.yaml")
    assert run(*prepare).returncode == run(*check).returncode == 0
    made = contents(tmp_path)
    refused(run(*prepare, limit=100), "File too large", data / "tr_no_dev" / "wav.scp")
    refused(run(*check, limit=100), "File too large", lists / "tr_no_dev" / "wav.scp")
    refused(run(*prepare[:2], read_only(tmp_path / "locked")), "Permission denied", tmp_path / "locked")
    assert contents(tmp_path) == made
    (corpus / "wavs").rename(corpus / "away")
    refused(run(*check), "No such file", corpus / "wavs")
    (corpus / "wavs").mkdir()  # a mount point without its share
    refused(run(*check), "nothing is left", corpus / "wavs")
    (corpus / "wavs").rmdir()
    (corpus / "away").rename(corpus / "wavs")
    assert contents(tmp_path) == made
    assert run(*prepare).returncode == run(*check).returncode == 0
    assert contents(tmp_path) == made


def test_decoding_and_export_into_a_read_only_folder_say_so_in_one_line(tmp_path, read_only):
    tiny_model(tmp_path / "model")
    np.save(tmp_path / "a.npy", np.full((80, 9), -2, dtype=np.float32))
    folder = read_only(tmp_path / "out")
    melglow = ("-m", "melglow_plugin.cli")
    speak = (*melglow, "synthesize", tmp_path / "a.npy", "--checkpoint", tmp_path / "model", "-o", folder)
    refused(run(*speak), "Permission denied", folder)
    for format in ("coqui", "espnet"):
        result = run(*melglow, "export", tmp_path / "model", "--format", format, "-o", folder)
        refused(result, "Permission denied", folder)
    assert not list(folder.iterdir())


def test_export_onto_a_full_disk_keeps_what_was_there_and_goes_on(tmp_path):
    tiny_model(tmp_path / "model")
    for format in ("coqui", "espnet"):
        folder = tmp_path / format
        export = ("-m", "melglow_plugin.cli", "export", tmp_path / "model", "--format", format, "-o", folder)
        refused(run(*export, limit=5_000), "File too large", folder)
        assert contents(folder) == {}
        assert run(*export).returncode == 0
        made = contents(folder)
        refused(run(*export, "--overwrite", limit=5_000), "File too large", folder)
        assert contents(folder) == made and len(made) == 2


def test_decoding_survives_a_share_that_goes_away(tmp_path):
    tiny_model(tmp_path / "model")
    share, away = made_up_corpus(tmp_path / "share", count=3) / "wavs", tmp_path / "away"
    lines = [f"{path.stem} {path}\n" for path in sorted(share.iterdir())]
    (tmp_path / "wav.scp").write_text("".join(lines))
    copies, log = tmp_path / "copies", tmp_path / "log.csv"
    command = (tmp_path / "wav.scp", "--checkpoint", tmp_path / "model", "-o", copies, "--log", log, "--skip-existing")

    gone = [f"{share}/utterance{i}.wav: no such file" for i in (1, 2)]
    for start in (("-c", VANISHING, share, away, 2), ("-m", "melglow_plugin.cli")):
        result = run(*start, "copy", *command)
        named = [line for line in result.stderr.splitlines() if "it/s" not in line]
        assert result.returncode == 2 and len(named) == 3
        assert all(says in line for says, line in zip(gone, named, strict=False))
        assert named[-1].endswith("2 of 3 not made: utterance1, utterance2" if start[0] == "-c" else "utterance2")
    made = contents(copies)
    assert list(made) == ["utterance0.wav"] and log.read_text().count("utterance0") == 1
    away.rename(share)
    assert run("-m", "melglow_plugin.cli", "copy", *command).returncode == 0
    assert len(contents(copies)) == 3 and contents(copies)["utterance0.wav"] == made["utterance0.wav"]
    assert [line.split(",")[0] for line in log.read_text().splitlines()] == [
        "id", "utterance0", "utterance1", "utterance2",
    ]  # fmt: skip


# ``melglow`` with a folder that gets another name before the nth recording is read.
VANISHING = """
import sys
from pathlib import Path
from melglow_plugin.cli import main, shared
share, away, left = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
read = shared.read_wav

def counted(*args):
    global left
    left -= 1
    if left == 0:
        share.rename(away)
    return read(*args)

shared.read_wav = counted
sys.exit(main(sys.argv[4:]))
"""


# One process imports the host and prepares the recordings; every attempt is a fork of it, as in benchmarks/kill.py.
ATTEMPTS = """
import hashlib, json, os, resource, sys
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
import kill
route, folder = sys.argv[1], Path(sys.argv[2])
victim = {{"espnet": kill.Espnet, "coqui": kill.Coqui}}[route](folder, 1)
train, begin, exp, found = victim.train, victim.begin, folder / "exp", {{}}

def attempt(name, epochs, before=lambda: None, exp=exp):
    def prepared(exp):
        before()
        train(exp)
    victim.epochs, victim.train = epochs, prepared
    for path in exp.glob("run*/config.json"):  # Coqui's trainer continues to the end that this file names
        path.write_text(json.dumps({{**json.loads(path.read_text()), "epochs": epochs}}))
    status = kill.attempt(victim, exp, None, None)
    found[name] = {{
        "status": status, "said": (folder / "log.txt").read_text(errors="replace"), "saved": victim.saved(exp),
        "half": kill.half_written(exp), "parts": [str(path) for path in exp.rglob("*.part")],
        "sums": {{str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in filter(Path.exists, exp.rglob("*.pth"))}},
    }}

def no_room():
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

def share_goes(step):
    def counted(now):
        begin(now)
        if now == step and (folder / "wavs").exists():
            (folder / "wavs").rename(folder / "away")
    def arm():
        victim.begin = counted
    return arm

attempt("whole", 1)
attempt("full", 2, no_room)
locked = exp if route == "espnet" else next(exp.glob("run*"))
locked.chmod(0o555)
attempt("locked", 2)
locked.chmod(0o755)
attempt("share", 4, share_goes(2 * victim.interval))
attempt("absent", 4)
(folder / "away").rename(folder / "wavs")
attempt("back", 4)
attempt("undisturbed", 4, exp=folder / "undisturbed")
found["equal"] = kill.equal(victim.last(exp), victim.last(folder / "undisturbed"))
(folder / "found.json").write_text(json.dumps(found))
"""


@pytest.mark.parametrize("route", ["espnet", "coqui"])
def test_training_survives_a_full_disk_a_read_only_folder_and_a_share_that_went_away(route, tmp_path):
    pytest.importorskip({"espnet": "espnet2", "coqui": "TTS"}[route])
    result = run("-c", ATTEMPTS.format(benchmarks=str(ROOT / "benchmarks")), route, tmp_path)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    equal = found.pop("equal")
    for name, one in found.items():
        assert (one["status"] == 0) == (name in ("whole", "back", "undisturbed")), (name, one["said"][-3000:])
        assert one["half"] == 0 and one["parts"] == [], name
    for name, says in (("full", "File too large"), ("locked", "Permission denied")):
        last = found[name]["said"].splitlines()[-3:]  # a thread of TensorBoard may add lines of its own
        assert any(says in line and f"{tmp_path}/exp" in line for line in last), found[name]["said"][-3000:]
    assert found["whole"]["sums"] == found["full"]["sums"] == found["locked"]["sums"]
    for name in ("share", "absent"):
        assert f"{tmp_path}/wavs" in found[name]["said"].splitlines()[-1], found[name]["said"][-3000:]
    assert found["whole"]["saved"] <= found["share"]["saved"] == found["absent"]["saved"] < found["back"]["saved"]
    assert equal


@pytest.mark.parametrize("route", ["espnet", "coqui"])
def test_killed_training_is_resumed_and_ends_as_if_nobody_had_killed_it(route, tmp_path):
    pytest.importorskip({"espnet": "espnet2", "coqui": "TTS"}[route])
    command = [sys.executable, str(ROOT / "benchmarks" / "kill.py"), route, "--kills", "3", "--epochs", "3"]
    result = subprocess.run([*command, "--out", str(tmp_path)], env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    found = json.loads((tmp_path / f"kill_{route}.json").read_text())
    assert found["kills"] == 3 and found["runs lost"] == found["half-written checkpoints"] == 0
    assert found["most steps repeated"] <= found["checkpoint interval, steps"]
    assert found["equal to a run that nobody killed"]


def test_decoding_on_a_full_disk_leaves_no_half_wav_and_goes_on(tmp_path):
    tiny_model(tmp_path / "model")
    for name, frames in (("a", 9), ("b", 900)):
        np.save(tmp_path / f"{name}.npy", (np.random.default_rng(0).normal(size=(80, frames)) - 2).astype(np.float32))
    out, mels = tmp_path / "out", [tmp_path / "a.npy", tmp_path / "b.npy"]
    options = ("--checkpoint", tmp_path / "model", "-o", out, "--skip-existing")
    synthesize = ("-m", "melglow_plugin.cli", "synthesize", *mels, *options)
    full = run(*synthesize, limit=100_000)
    assert full.returncode == 2 and full.stderr.splitlines()[-1].startswith("melglow synthesize:")
    assert "File too large" in full.stderr and "Traceback" not in full.stderr
    made = contents(out)
    assert list(made) == ["a.wav"]
    assert run(*synthesize).returncode == 0
    assert contents(out)["a.wav"] == made["a.wav"] and soundfile.info(out / "b.wav").frames == 900 * 256


RANK = """
import os, sys, torch, torch.distributed as dist
from datetime import timedelta
sys.path.insert(0, {tests!r})
from conftest import tiny
from melglow_plugin import MelGlow, flow_nll
rank, store, what = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
flow = tiny(MelGlow, lpc_order=4)

class Loss(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.flow = flow
    def forward(self, wav, mel):
        return flow_nll(*self.flow(wav, mel))

model = torch.nn.parallel.DistributedDataParallel(Loss())
optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
generator = torch.Generator().manual_seed(0)
for step in range(200):
    wav = 0.3 * torch.randn(4, 48, generator=generator, dtype=torch.float64)
    mel = torch.randn(4, 5, 3, generator=generator, dtype=torch.float64)
    if what == "kill" and rank == 1 and step == 20:
        os.kill(os.getpid(), 9)
    optimizer.zero_grad()
    model(wav[2 * rank : 2 * rank + 2], mel[2 * rank : 2 * rank + 2]).backward()
    if step == 0:
        torch.save([p.grad for p in flow.parameters()], store + ".grad" + str(rank))
        alone = tiny(MelGlow, lpc_order=4)
        flow_nll(*alone(wav, mel)).backward()
        worst = max(float((p.grad - q.grad).abs().max()) for p, q in zip(flow.parameters(), alone.parameters()))
        assert worst < 1e-6, worst
    optimizer.step()
torch.save(list(flow.parameters()), store + ".weights" + str(rank))
"""


def ranks(tmp_path, what: str) -> list[subprocess.Popen]:
    code = RANK.format(tests=str(ROOT / "tests"))
    return [
        subprocess.Popen([sys.executable, "-c", code, str(rank), str(tmp_path / "store"), what], env=ENVIRONMENT,
                         stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]  # fmt: skip


def test_two_processes_have_the_joint_batchs_gradients_and_are_equal_after_200_steps(tmp_path):
    processes = ranks(tmp_path, "train")
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    first, second = (torch.load(tmp_path / f"store.weights{rank}", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_killed_rank_ends_the_other_with_a_message(tmp_path):
    processes = ranks(tmp_path, "kill")
    assert processes[1].wait(timeout=300) == -9
    start = time.monotonic()
    said = processes[0].communicate(timeout=90)[1]  # the process group's own limit is 60 s
    assert processes[0].returncode not in (0, None) and time.monotonic() - start < 90
    assert "RuntimeError" in said or "DistBackendError" in said


def test_prepared_data_that_goes_missing_is_named(tmp_path):
    pytest.importorskip("espnet2")
    from melglow_plugin.espnet.task import check_rates

    soundfile.write(tmp_path / "a.wav", speech(0.3).numpy(), 22_050)
    (tmp_path / "wav.scp").write_text(f"a {tmp_path / 'a.wav'}\nb {tmp_path / 'gone.wav'}\n")
    from argparse import Namespace

    lists = [(str(tmp_path / "wav.scp"), "speech", "sound")]
    names = Namespace(train_data_path_and_name_and_type=lists, valid_data_path_and_name_and_type=[])
    with pytest.raises((ValueError, OSError, RuntimeError), match=r"gone\.wav"):
        check_rates(names, 22_050)


def check_gradients(flow: MelGlow, first: tuple, second: tuple, gradients: list[torch.Tensor]) -> None:
    """Gradients that two ranks agreed on are those of their two batches in one."""
    wav, mel = (torch.cat(pair) for pair in zip(first, second, strict=True))
    assert not torch.equal(*wav.chunk(2))  # each rank has crops of its own
    grown = (flow.activation_rms(mel) / HEALTHY_RMS - 1).relu().mean(1).sum()
    (flow_nll(*flow(wav, mel)) + grown).backward()
    joint = [p.grad for p in flow.parameters()]
    assert max(float(p.abs().max()) for p in joint) > 0.01
    assert max(float((p - q).abs().max()) for p, q in zip(joint, gradients, strict=True)) < 1e-6


def both_ranks(code: str, folder: Path, *arguments: str, environments: list[dict[str, str]]) -> list[str]:
    """Two processes that run ``code`` with their rank, the folder and the arguments; what each wrote to stderr."""
    with ThreadPoolExecutor(2) as pool:
        run = zygote.shared().run
        jobs = [pool.submit(run, "-c", code, str(i), str(folder), *arguments, **environments[i]) for i in (0, 1)]
        results = [job.result() for job in jobs]
    said = [result.stdout[-3000:] + result.stderr for result in results]
    assert [result.returncode for result in results] == [0, 0], said[0][-3000:] + said[1][-3000:]
    return said


ESPNET_RANK = """
import sys, torch
from pathlib import Path
rank, folder, poisoned = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
import melglow_plugin.training.objective as objective
from melglow_plugin.espnet.model import ESPnetVocoderModel
from melglow_plugin.espnet.train import main
from melglow_plugin.espnet.trainer import VocoderTrainer

objective.dequantised = lambda wav, generator: wav.double()  # the same noise on both ranks is not the joint batch's
wav_and_mel, run = ESPnetVocoderModel.wav_and_mel, VocoderTrainer.run.__func__
seen, steps = [], []

def poison(model, speech, feats=None):
    wav, mel = wav_and_mel(model, speech, feats)
    wav, mel = wav.double(), mel.double()
    if model.training:
        seen.append((wav.clone(), mel))
        if rank == 1 and len(seen) == poisoned:
            wav[0, 5] = float("nan")
    return wav, mel

def observed(cls, *, model, optimizers, **kwargs):
    start = {{name: value.clone() for name, value in model.flow.state_dict().items()}}
    optimizers[0].register_step_pre_hook(lambda *_: steps.append([p.grad.clone() for p in model.flow.parameters()]))
    run(cls, model=model, optimizers=optimizers, **kwargs)
    state = optimizers[0].state_dict()["state"]
    torch.save({{"start": start, "seen": seen, "steps": steps, "end": model.flow.state_dict(), "moments": state,
                "hyperparameters": model.flow.hyperparameters}}, folder / f"{{rank}}.pth")

ESPnetVocoderModel.wav_and_mel = poison
VocoderTrainer.run = classmethod(observed)
scp, data = str(folder / "wav.scp"), []
for name in ("train", "valid"):
    data += [f"--{{name}}_data_path_and_name_and_type", scp + ",speech,sound", f"--{{name}}_shape_file", scp]
main(["--config", {config!r}, "--output_dir", str(folder / "exp"), *data, "--max_epoch", "1", "--num_iters_per_epoch",
      "3", "--train_dtype", "float64", "--grad_clip", "1e9", "--batch_size", "4", "--valid_batch_size", "4",
      "--model_conf", "conditioner_dtype=float32", "--loss_conf", "stft=0.0", "--loss_conf", "mel=0.0",
      "--num_att_plot", "0", "--use_matplotlib", "false", "--use_tensorboard", "false", "--dist_backend", "gloo",
      "--multiprocessing_distributed", "true", "--dist_launcher", "slurm", "--dist_master_port", sys.argv[4]])
"""

# What srun sets for two nodes with a task each; both are this machine.
NODES = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_LOCALID": "0"}


def test_espnets_trainer_on_two_nodes_skips_a_poisoned_step_on_both_and_sums_to_the_joint_batch(tmp_path):
    pytest.importorskip("espnet2")
    lines = []
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", (0.5 + 0.1 * i) * speech(0.4 + 0.05 * i).numpy(), 22_050)
        lines.append(f"{i} {tmp_path / f'{i}.wav'}\n")
    (tmp_path / "wav.scp").write_text("".join(lines))
    code = ESPNET_RANK.format(config=str(ROOT / "conf" / "melglow_tiny.yaml"))
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    environments = [{**ENVIRONMENT, **NODES, "SLURM_PROCID": rank, "SLURM_NODEID": rank} for rank in "01"]
    said = both_ranks(code, tmp_path, "2", port, environments=environments)
    first, second = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in (0, 1))
    assert len(first["seen"]) == len(second["seen"]) == 3
    assert len(first["steps"]) == len(second["steps"]) == 2  # of three, one poisoned
    assert "1 steps of this epoch were not finite" in said[0]
    for name, value in first["end"].items():
        assert torch.equal(value, second["end"][name]) and torch.isfinite(value).all(), name
    for number, moments in first["moments"].items():
        assert torch.equal(moments["exp_avg"], second["moments"][number]["exp_avg"])
    flow = MelGlow(**first["hyperparameters"]).double()
    flow.load_state_dict(first["start"])
    check_gradients(flow, first["seen"][0], second["seen"][0], first["steps"][0])


COQUI_RANK = """
from melglow_plugin.training import objective
from melglow_plugin.coqui.model import Melglow

objective.dequantised = lambda wav, generator: wav

class Observed(Melglow):
    batches, gradients, start = [], [], {}

    def format_batch_on_device(self, batch):
        batch = {name: value.double() for name, value in super().format_batch_on_device(batch).items()}
        if not self.start:
            self.start.update({name: value.clone() for name, value in self.flow.state_dict().items()})
        self.batches.append((batch["waveform"], batch["input"]))
        return batch

    def before_gradient_clipping(self):
        super().before_gradient_clipping()
        self.gradients.append([p.grad.clone() for p in self.flow.parameters()])

config = make_config(batch_size=2, epochs=1, output_path=folder + f"/out{rank}", run_eval=False, test_delay_epochs=99,
                     loss_params={"stft": 0.0, "mel": 0.0})
model = Observed(config)
model.flow.double()  # the Vocoder around it keeps the precision of its weights
Observed.train_log = lambda *_: None
fit(model)
torch.save([model.start, model.batches[0], model.gradients[0], model.flow.hyperparameters], folder + f"/{rank}.pth")
dist.destroy_process_group()
"""


def test_coquis_trainer_gives_two_ranks_the_joint_batchs_gradients(tmp_path):
    pytest.importorskip("TTS")
    from coqui_parts import TWO_RANKS, write_recordings

    write_recordings(tmp_path / "wavs")
    both_ranks(TWO_RANKS + COQUI_RANK, tmp_path, environments=[ENVIRONMENT] * 2)
    saved = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in (0, 1)]
    (start, first, gradients, sizes), (_, second, theirs, _) = saved
    assert all(torch.equal(mine, other) for mine, other in zip(gradients, theirs, strict=True))
    flow = MelGlow(**sizes).double()
    flow.load_state_dict(start)
    check_gradients(flow, first, second, gradients)
