"""Options of the recipes' scripts: a mistake is one line with the option and its value, before any work."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VOC1, UNIVERSAL, TTS1 = (f"egs/{name}/run.sh" for name in ("ljspeech/voc1", "universal/voc1", "ljspeech/tts1"))
EXPERIMENT = "egs/ljspeech/voc1/run_experiment.sh"
PYTHON = """#!/bin/sh
case "$*" in
    *device_count*) echo "${GPUS:-8}" ;;
    *progress.py*) cat ;;  # all of it, else the training that writes it is stopped by a broken pipe
    *) echo "python was called: $*" ;;
esac
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The scripts, with a Python that only says that it was called, and how many GPUs there are."""
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "conf").symlink_to(ROOT / "conf")
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "python3"):
        (folder / ".venv" / "bin" / name).write_text(PYTHON)
        (folder / ".venv" / "bin" / name).chmod(0o755)
    for script in (VOC1, UNIVERSAL, TTS1):
        shutil.copytree((ROOT / script).parent, (folder / script).parent, symlinks=True,
                        ignore=shutil.ignore_patterns("exp", "data", "corpus", "downloads"))  # fmt: skip
    return folder


def run(folder: Path, script: str, *options: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(folder / script), *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def check_refused(result: subprocess.CompletedProcess, says: str) -> None:
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1 and result.stderr.endswith(f"ERROR: {says}\n"), result.stderr


@pytest.mark.parametrize(
    ("stage", "there", "says"),
    [
        (1, [], "data/tokens.txt is missing: run stage 0 first"),
        (2, ["data/tokens.txt"], "exp/stats/train/pitch.scp is missing: run stage 1 first"),
        (3, [], "exp/fastspeech2/config.yaml is missing: run stage 2 first"),
        (
            3,
            ["exp/fastspeech2/config.yaml", "exp/fastspeech2/valid.l1_loss.ave_1best.pth"],
            "inference_models exp/fastspeech2/valid.l1_loss.ave_5best.pth does not exist, there are: "
            "valid.l1_loss.ave_1best.pth",
        ),
        (4, [], "exp/fastspeech2_ljspeech/config.yaml is missing: run stage 3 first"),
    ],
)
def test_a_stage_of_the_voice_before_the_one_that_it_needs(folder, tmp_path, stage, there, says):
    recipe = folder / Path(TTS1).parent
    for name in ("data", "exp"):
        shutil.rmtree(recipe / name, ignore_errors=True)
    for name in there:
        (recipe / name).parent.mkdir(parents=True, exist_ok=True)
        (recipe / name).touch()
    result = run(folder, TTS1, "--stage", str(stage))
    assert result.returncode == 2 and "python was called" not in result.stdout
    assert result.stderr.count("\n") == 1 and result.stderr.endswith(f"ERROR: {says}\n"), result.stderr


@pytest.mark.parametrize(
    ("lacking", "stop", "says"),
    [
        ("", 4, ""),
        ("faster_whisper", 4, "stage 4 lacks packages: pip install faster_whisper"),
        ("faster_whisper", 3, ""),
        ("pocketsphinx", 3, "stage 0 lacks packages: pip install pocketsphinx"),
    ],
)
def test_packages_of_the_voices_scores_are_asked_for_before_its_training(folder, tmp_path, lacking, stop, says):
    """Stage 4 comes hours after stage 0; whoever stops before it does not need what it needs."""
    python = tmp_path / "python"
    python.write_text(f"""#!/bin/sh
case "$*" in
    *find_spec*" {lacking or "nothing"}"*) echo {lacking} ;;
    *align.py*) echo "python was called: $*"; exit 3 ;;
esac
""")
    python.chmod(0o755)
    (tmp_path / "metadata.csv").touch()
    result = run(folder, TTS1, "--corpus", str(tmp_path), "--stop_stage", str(stop), "--python", str(python))
    assert result.returncode == (2 if says else 3) and ("align.py" in result.stdout) == (not says), result.stderr
    assert result.stderr.endswith(f"ERROR: {says}\n" if says else ""), result.stderr


@pytest.mark.parametrize("script", [VOC1, UNIVERSAL, TTS1])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--stage abc", "--stage abc is not a whole number"),
        ("--stop_stage 08", "--stop_stage 08 is not a whole number"),
        ("--ngpu 1.5", "--ngpu 1.5 is not a whole number"),
        ("--stage 7", "--stage 7 is behind --stop_stage {last}: no stage to run"),
        ("--stage 3 --stop_stage 1", "--stage 3 is behind --stop_stage 1: no stage to run"),
        ("--stage 7 --stop_stage 8", "--stage 7 --stop_stage 8: the stages are {first} to {last}"),
        ("--stage -9 --stop_stage -2", "--stage -9 --stop_stage -2: the stages are {first} to {last}"),
        ("--foo 1", "unknown option --foo (see --help)"),
    ],
)
def test_every_recipe_refuses(folder, script, options, says):
    says = says.format(first=-1 if script == VOC1 else 0, last=4 if script == TTS1 else 5)
    check_refused(run(folder, script, *options.split()), says)


@pytest.mark.parametrize(
    ("script", "option", "value", "wanted"),
    [
        (VOC1, "--nj", "0", "a whole number above 0"),
        (VOC1, "--seed", "", "a whole number"),
        (VOC1, "--postfilter_steps", "-1", "a whole number"),
        (VOC1, "--refine", "auto", "a whole number or resynthesis"),
        (VOC1, "--max-epoch", "2x", "a whole number above 0"),
        (VOC1, "--sigma", "-1", "a number of 0 or more"),
        (VOC1, "--minutes", "1e", "a number of 0 or more"),
        (UNIVERSAL, "--nj", "two", "a whole number above 0"),
        (UNIVERSAL, "--speaker_cap", "10%", "a number of 0 or more"),
        (UNIVERSAL, "--same_speakers", "yes", "true or false"),
        (UNIVERSAL, "--same_speakers", "1", "true or false"),
        (EXPERIMENT, "--decode", "True", "true or false"),
        (EXPERIMENT, "--likelihood", "yes", "true or false"),
        (EXPERIMENT, "--validate_every", "0", "a whole number above 0"),
        (EXPERIMENT, "--seeds", "777 x", "a list of whole numbers"),
    ],
)
def test_values_of_another_kind_are_refused(folder, script, option, value, wanted):
    value_shown = value or "''"
    check_refused(run(folder, script, option, value), f"{option} {value_shown} is not {wanted}")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--train_config", "conf/none.yaml"], "train_config conf/none.yaml does not exist"),
        (["--pretrained", "", "--baselines", "wavenet"], "baselines wavenet: griffin_lim or hifigan"),
        (["--pretrained", "", "--minutes", "1", "--gta", "x"], "minutes 1 and gta x: choose one of them"),
    ],
)
def test_options_handed_on_are_checked_before_stage_0(folder, options, says):
    check_refused(run(folder, UNIVERSAL, *options), says)


def test_values_of_the_right_kind_are_taken(folder):
    options = "--stage -1 --ngpu 2 --nj 4 --seed 12 --sigma .6 --speaker_cap 1e-1 --refine 0 --max_epoch 3"
    empty = [part for name in ("--max_epoch", "--minutes", "--refine", "--speaker_cap") for part in (name, "")]
    result = run(folder, VOC1, *options.split(), *empty, "--check", "true")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(("value", "passed"), [("true", True), ("false", False)])
def test_same_speakers_reach_stage_0(folder, value, passed):
    result = run(folder, UNIVERSAL, "--stop_stage", "0", "--pretrained", "", "--same_speakers", value)
    assert result.returncode == 0 and "local/data_prep.py" in result.stdout, result.stderr
    assert ("--same-speakers" in result.stdout) == passed


def test_a_variable_of_the_environment_is_no_option(folder):
    check_refused(run(folder, VOC1, "--foo", "1", foo="2"), "unknown option --foo (see --help)")


def test_the_lists_of_two_experiments_lie_apart(folder, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        result = run(folder, VOC1, "--corpus", name, "--expdir", str(tmp_path / name), "--stop_stage", "1")
        assert result.returncode == 0, result.stderr
        assert f"local/data_prep.py {name} {tmp_path / name}/data\n" in result.stdout
        assert f"local/check_corpus.py {tmp_path / name}/data {tmp_path / name}/lists " in result.stdout
    assert "local/data_prep.py corpus data\n" in run(folder, VOC1, "--stop_stage", "0").stdout


@pytest.mark.parametrize("script", [VOC1, UNIVERSAL])
@pytest.mark.parametrize("model", ["/nonexistent", "user/name"])
def test_a_pretrained_model_that_is_not_there_is_refused_at_the_start(folder, script, model):
    check_refused(
        run(folder, script, "--pretrained", model), f"--pretrained {model} is no model folder: it has no config.json"
    )


@pytest.mark.parametrize(
    ("options", "missing", "stage"),
    [
        ("--stage 2", "lists/tr_no_dev/wav.scp", 1),
        ("--stage 2 --speaker_cap 0.1", "lists/tr_no_dev/balanced.scp", 1),
        ("--stage 2 --minutes 1", "data/tr_no_dev", 0),
        ("--stage 4", "melglow/decode_valid.loss.best_sigma0.6_seed0/wav/dev.csv", 3),
        ("--stage 5", "melglow/decode_valid.loss.best_sigma0.6_seed0/scores/eval1/scores.csv", 4),
    ],
)
def test_a_stage_names_the_stage_that_it_needs(folder, tmp_path, options, missing, stage):
    result = run(folder, VOC1, "--expdir", str(tmp_path), *options.split())
    assert result.returncode == 2 and "python was called" not in result.stdout
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith(f"ERROR: {tmp_path}/{missing} is missing: run stage {stage} first\n")


@pytest.mark.parametrize("script", [VOC1, UNIVERSAL])
def test_gpus_that_are_not_there_are_refused_where_this_machine_trains(folder, script):
    def checked(options: str, **environment: str) -> subprocess.CompletedProcess:
        return run(folder, script, "--pretrained", "", "--ngpu", "2", *options.split(), GPUS="1", **environment)

    says = "ngpu 2: torch finds 1 CUDA devices here (--ngpu 0 trains on the CPU)"
    for command in ("", "run.pl --gpu 1", "utils/run.pl"):
        check_refused(checked("--minutes 1", cuda_cmd=command), says)
    for options, command in (("", "srun --gres=gpu:2"), ("--stop_stage 1", ""), ("--stage 3", "")):
        assert checked(f"{options} --check true", cuda_cmd=command).returncode == 0


def test_other_recordings_than_at_the_first_training_are_said(folder, tmp_path):
    lists = [tmp_path / "lists" / name / "wav.scp" for name in ("tr_no_dev", "dev")]
    statistics, experiment = tmp_path / "stats_melglow" / "train" / "feats_stats.npz", tmp_path / "melglow"
    for path in (*lists, statistics, experiment / "any"):
        path.parent.mkdir(parents=True)
        path.touch()

    def trained(*keys: str) -> str:
        lists[0].write_text("".join(f"{key} {key}.wav\n" for key in keys))
        result = run(folder, VOC1, "--expdir", str(tmp_path), "--stage", "2", "--stop_stage", "2")
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "WARNING" not in trained("c", "a")  # the first one failed, and left no checkpoint
    assert "WARNING" not in trained("b", "c", "a")
    (experiment / "checkpoint.pth").touch()
    assert "WARNING" not in trained("a", "b", "c")
    said = f"WARNING: {experiment} was begun with 3 recordings, {lists[0]} has 2, 1 of them the same"
    assert said in trained("d", "b") and said in trained("d", "b")


def test_a_run_goes_on_only_with_the_model_that_it_began_from(folder, tmp_path):
    lists = [tmp_path / "lists" / name / "wav.scp" for name in ("tr_no_dev", "dev", "eval1")]
    statistics, experiment = tmp_path / "stats_melglow" / "train" / "feats_stats.npz", tmp_path / "melglow"
    for path in (*lists, statistics, experiment / "valid.loss.best.pth"):
        path.parent.mkdir(parents=True)
        path.touch()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    (tmp_path / "link").symlink_to(tmp_path / "one")

    def trained(model: str, stage: int = 2) -> subprocess.CompletedProcess:
        given = str(tmp_path / model) if model else ""
        options = ["--stage", str(stage), "--stop_stage", str(stage), "--pretrained", given, "--baselines", ""]
        return run(folder, VOC1, "--expdir", str(tmp_path), *options)

    assert trained("two").returncode == 0 and trained("one").returncode == 0  # the first one left no checkpoint
    (experiment / "checkpoint.pth").touch()
    for same in ("one", "link", ""):
        assert trained(same).returncode == 0
    result = trained("two")
    assert (
        result.returncode == 2
        and f"pretrained {tmp_path / 'two'}: {experiment} was begun from {tmp_path / 'one'} " in (result.stderr)
    )
    for given in ("two", ""):  # the card names the model of the first training
        assert f"continued_from={tmp_path / 'one'}" in trained(given, stage=3).stdout
    (experiment / "checkpoint.pth").unlink()
    assert trained("").returncode == 0
    (experiment / "checkpoint.pth").touch()
    assert "was begun from nothing and goes on with its own weights" in trained("one").stderr
    assert "continued_from" not in trained("one", stage=3).stdout


def test_minutes_train_on_what_stage_1_took(folder, tmp_path):
    source, lists = (tmp_path / name / "tr_no_dev" for name in ("data", "lists"))
    for path in (source / "wav.scp", lists / "wav.scp"):
        path.parent.mkdir(parents=True)
        path.touch()
    options = ["--expdir", str(tmp_path), "--stage", "2", "--stop_stage", "2", "--minutes", "1"]
    assert f"--corpus {source} " in run(folder, VOC1, *options).stdout  # no speakers of what was taken
    (lists / "utt2spk").touch()
    assert f"--corpus {lists} " in run(folder, VOC1, *options).stdout
    os.utime(lists / "utt2spk", (0, 0))  # of another stage 0
    assert f"--corpus {source} " in run(folder, VOC1, *options).stdout


def test_the_voice_is_trained_in_folders_whose_names_hold_blanks(folder, tmp_path):
    python, data, exp = tmp_path / "python", tmp_path / "my data", tmp_path / "my exp"
    python.write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\n")
    python.chmod(0o755)
    stats, trained = exp / "stats", exp / "fastspeech2"
    for file in ("tokens.txt", "train/durations", "dev/durations"):
        (data / file).parent.mkdir(parents=True, exist_ok=True)
        (data / file).touch()
    for file in ("train/pitch.scp", "valid/energy.scp", "train/energy_stats.npz"):
        (stats / file).parent.mkdir(parents=True, exist_ok=True)
        (stats / file).touch()
    trained.mkdir()
    for file in ("config.yaml", "a.pth", "b.pth"):
        (trained / file).touch()
    options = [
        "--datadir",
        str(data),
        "--expdir",
        str(exp),
        "--python",
        str(python),
        "--inference_models",
        "a.pth b.pth",
    ]
    result = run(folder, TTS1, "--stage", "1", "--stop_stage", "3", *options)
    assert result.returncode == 0, result.stderr
    for argument in (
        f"{data}/tokens.txt", f"{data}/train/wav.scp,speech,sound", f"{data}/dev/durations,durations,text_int",
        f"{stats}/train/pitch.scp,pitch,npy", f"stats_file={stats}/train/energy_stats.npz", f"{trained}/b.pth",
    ):  # fmt: skip
        assert f"<{argument}>" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_copies_in_the_background_end_with_the_recipe(folder, tmp_path, interruptible, number):
    exp, python = tmp_path / "exp", tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncase \"$*\" in *' copy '*) echo $$ >> {tmp_path}/pids; exec sleep 300 ;; esac\n")
    python.chmod(0o755)
    for name in ("tr_no_dev", "dev", "eval1"):
        (exp / "lists" / name).mkdir(parents=True)
        (exp / "lists" / name / "wav.scp").write_text("a a.wav\nb b.wav\n")
    model = exp / "melglow" / "decode_valid.loss.best_sigma0.6_seed0" / "model" / "model.safetensors"
    model.parent.mkdir(parents=True)
    for path in (exp / "melglow" / "valid.loss.best.pth", model):  # the model is converted already
        path.touch()
    options = ["--stage", "3", "--stop_stage", "3", "--nj", "2", "--expdir", str(exp), "--python", str(python)]
    recipe = subprocess.Popen([str(folder / VOC1), *options], start_new_session=True, stdout=subprocess.DEVNULL)
    pids = tmp_path / "pids"
    until(lambda: pids.is_file() and len(pids.read_text().split()) == 2)
    os.killpg(recipe.pid, number) if number == signal.SIGINT else recipe.terminate()
    assert recipe.wait(timeout=20) == 128 + number
    until(lambda: not any(Path("/proc", pid, "cmdline").exists() for pid in pids.read_text().split()))


def until(holds) -> None:
    """Wait until ``holds()``, 20 s at most."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
