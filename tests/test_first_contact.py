"""What people do in their first hour: nothing of theirs is lost, and what cannot be used is named."""

import errno
import itertools
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import speech, stir

from melglow_plugin import MelConvention, MelGlow, Vocoder
from melglow_plugin.cli import main, shared
from melglow_plugin.files import append_csv, read_mapping, read_mel, read_scp, read_wav, writing

ROOT = Path(__file__).parents[1]
CONVENTION = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)
COMMANDS = ("synthesize", "copy", "score", "info", "convert", "export", "eval", "bench", "doctor", "demo", "hook")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    flow = stir(MelGlow(n_mels=20, hop_length=64, n_flows=2, channels=4, n_layers=2), 0.02)
    Vocoder(flow, CONVENTION, {"steps": 3}, refine=1).save_pretrained(folder)
    return folder


@pytest.fixture
def run(model, tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder: (status, last line of stderr, stdout)."""
    monkeypatch.chdir(tmp_path)

    def call(command: str, *arguments) -> tuple[int, str, str]:
        options = ["--checkpoint", str(model)] if command in ("copy", "synthesize", "score") else []
        status = main([command, *map(str, arguments), *options])
        said = capsys.readouterr()
        return status, (said.err.splitlines() or [""])[-1], said.out

    return call


def recording(path: Path, seconds: float = 0.3, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, speech(seconds).numpy(), 22_050, **options)
    return path


# Help


@pytest.mark.parametrize("arguments", [[], ["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_fits_80_columns_and_shows_an_example(arguments):
    """The real entry point, as ``[project.scripts]`` calls it."""
    code = "import sys; from melglow_plugin.cli import main; sys.argv[0] = 'melglow'; sys.exit(main())"
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True,
                            env={**os.environ, "COLUMNS": "80", "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert result.returncode == 0 and result.stderr == "" and "%%" not in result.stdout
    lines = result.stdout.splitlines()
    if len(arguments) == 2:
        start = lines.index("example, from the root of the repository:")
        assert lines[start + 1].startswith("  melglow ")
        lines = lines[:start]  # what is pasted is not broken
    assert max(map(len, lines)) <= 80


# Outputs


@pytest.mark.parametrize("spelling", [".", "./", "sub/..", "link", "hard"])
def test_a_recording_is_not_replaced_by_its_copy(run, tmp_path, spelling):
    before = recording(tmp_path / "clip.wav").read_bytes()
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "hard").mkdir()
    os.link(tmp_path / "clip.wav", tmp_path / "hard" / "clip.wav")
    for options in ([], ["--overwrite"]):
        status, error, _ = run("copy", "clip.wav", "-o", spelling, *options)
        assert status == 2 and error.endswith("clip.wav is the input clip.wav: write somewhere else")
    assert (tmp_path / "clip.wav").read_bytes() == before


def test_what_lies_beside_a_mel_is_not_replaced(run, tmp_path):
    before = recording(tmp_path / "ds" / "u1.wav").read_bytes()
    np.save(tmp_path / "ds" / "u1.npy", np.random.randn(20, 9).astype(np.float32))
    status, error, _ = run("synthesize", "ds/u1.npy", "-o", "ds")
    assert status == 2 and "ds/u1.wav is there already" in error and "--skip-existing" in error
    assert (tmp_path / "ds/u1.wav").read_bytes() == before
    assert run("synthesize", "ds/u1.npy", "-o", "ds", "--overwrite")[0] == 0
    assert (tmp_path / "ds/u1.wav").read_bytes() != before


def test_two_inputs_of_one_output_are_refused_with_both_paths(run, tmp_path):
    paths = [recording(tmp_path / f"spk{i}" / "001.wav") for i in (1, 2)]
    status, error, _ = run("copy", "spk1/001.wav", "spk2/001.wav", "-o", "o")
    assert status == 2 and "spk1/001.wav and spk2/001.wav would both become o/001.wav" in error
    assert not (tmp_path / "o").exists()
    assert run("copy", "spk1/001.wav", paths[0], "-o", "o")[0] == 0  # one file, spelled twice
    (tmp_path / "all").mkdir()
    for path in paths:
        path.parent.rename(tmp_path / "all" / path.parent.name)
    assert run("copy", "all", "-o", "o2")[0] == 0
    assert sorted(p.relative_to(tmp_path / "o2").as_posix() for p in (tmp_path / "o2").rglob("*.wav")) == [
        "spk1/001.wav", "spk2/001.wav",
    ]  # fmt: skip


def test_one_folder_with_a_recording_twice_is_refused(run, tmp_path):
    recording(tmp_path / "d/a.wav"), recording(tmp_path / "d/a.FLAC")
    assert "d/a.FLAC and d/a.wav have one id, a" in run("copy", "d", "-o", "o")[1]


@pytest.fixture
def caseless(monkeypatch):
    """A file system that ignores case and gives a file another number each time, as some of FUSE do."""
    numbers = itertools.count()
    monkeypatch.setattr(writing, "_identity", lambda path: (0, next(numbers)) if os.path.lexists(path) else None)
    monkeypatch.setattr(writing, "_ignores_case", lambda folder: True)


def test_a_recording_in_another_case_is_not_replaced(run, tmp_path, caseless):
    """CLIP.WAV and CLIP.wav, two files here, are one file there."""
    recording(tmp_path / "CLIP.WAV")
    before = recording(tmp_path / "CLIP.wav", 0.4).read_bytes()
    for options in ([], ["--overwrite"]):
        status, error, _ = run("copy", "CLIP.WAV", "-o", ".", *options)
        assert status == 2 and "CLIP.wav is the input CLIP.WAV" in error
    assert (tmp_path / "CLIP.wav").read_bytes() == before


def test_ids_in_another_case_are_two_files_only_where_case_counts(run, tmp_path, request):
    recording(tmp_path / "d/A.wav"), recording(tmp_path / "d/a.wav", 0.4)
    if len(list((tmp_path / "d").iterdir())) == 2:
        assert run("copy", "d", "-o", "o")[0] == 0 and len(list((tmp_path / "o").iterdir())) == 2
        assert run("copy", "d", "-o", "o")[0] == 2
    request.getfixturevalue("caseless")
    assert "d/A.wav and d/a.wav would both become o2/a.wav" in run("copy", "d", "-o", "o2")[1]


def test_a_folder_is_asked_whether_it_ignores_case(tmp_path):
    (tmp_path / "x").touch()
    assert writing._ignores_case(tmp_path / "new" / "folder") == (tmp_path / "X").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_what_a_link_leads_to_is_not_replaced(run, model, tmp_path, form):
    if form == "onnx":
        pytest.importorskip("onnxscript")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "o").mkdir()
    file = tmp_path / "o" / {"onnx": "model.onnx", "torch": "model.pt2"}[form]
    os.link(tmp_path / "mine", file)
    assert run("export", model, "--format", form, "-o", "o")[0] == 2
    assert run("export", model, "--format", form, "-o", "o", "--overwrite")[0] == 0
    assert (tmp_path / "mine").read_text() == "mine" and file.stat().st_size > 1000


@pytest.mark.parametrize(
    "command", [["copy", "a.wav", "-o", "o"], ["bench", "--lengths", "0.1"], ["demo", "--port", "0"]]
)
@pytest.mark.parametrize("device", ["tpu", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(run, model, tmp_path, command, device):
    if command[0] == "demo":
        pytest.importorskip("gradio")
    recording(tmp_path / "a.wav")
    status, error, _ = run(*command, "--device", device, *(["--checkpoint", model] if command[0] != "copy" else []))
    assert status == 2 and f"device {device}: " in error


def test_a_card_that_stays_is_named(run, model, tmp_path, capsys):
    shutil.copytree(model, tmp_path / "other")
    (tmp_path / "other" / "README.md").write_text("mine")
    status, said, _ = run("convert", model, "-o", "other", "--overwrite")
    assert status == 0 and "other/README.md stays as it was" in said
    assert (tmp_path / "other" / "README.md").read_text() == "mine"


def test_a_picture_is_replaced_only_where_that_is_asked_for(run, tmp_path):
    pytest.importorskip("matplotlib")
    np.save(tmp_path / "mel.npy", np.random.randn(80, 30).astype(np.float32))
    assert run("doctor", "mel.npy", "--plot", "x.txt")[1].endswith("--plot x.txt: wanted .png, .pdf, .svg")
    (tmp_path / "x.png").write_text("mine")
    assert "x.png is there already" in run("doctor", "mel.npy", "--plot", "x.png")[1]
    assert run("doctor", "mel.npy", "--plot", "x.png", "--overwrite")[0] == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", ["convert", "export"])
def test_a_model_is_not_replaced(run, model, tmp_path, command):
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    options = ["--format", "coqui"] if command == "export" else []
    for more in ([], ["--overwrite"]):
        status, error, _ = run(command, model, "-o", model, *options, *more)
        assert status == 2 and "is the input" in error
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    (tmp_path / "config.json").write_text("mine")
    assert run(command, model, "-o", tmp_path, *options)[0] == 2
    assert (tmp_path / "config.json").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_a_log_is_no_other_file(run, tmp_path):
    recording(tmp_path / "a.wav")
    (tmp_path / "wav.scp").write_text("a a.wav\n")
    status, error, _ = run("copy", "wav.scp", "-o", "o", "--log", "wav.scp")
    assert status == 2 and "wav.scp is there already and begins with 'a a.wav'" in error
    assert (tmp_path / "wav.scp").read_text() == "a a.wav\n"
    assert run("copy", "a.wav", "-o", "p", "--log", tmp_path)[1].endswith("is a folder, wanted a file")
    assert "would both become p/a.wav" in run("copy", "a.wav", "-o", "p", "--log", "p/a.wav")[1]
    assert not (tmp_path / "p").exists()


def test_eval_replaces_no_scores_and_writes_a_page(run, tmp_path):
    pytest.importorskip("pysptk")
    pytest.importorskip("matplotlib")
    recording(tmp_path / "r/spk1/u.wav", 0.6), recording(tmp_path / "c/spk1/u.wav", 0.6)
    status, error, out = run("eval", "r", "c", "-o", "s")
    assert status == 0, error
    assert "nan" not in out and out.splitlines()[-1] == f"listen: {tmp_path / 's' / 'index.html'}"
    page = (tmp_path / "s" / "index.html").read_text()
    assert page.count("<audio") == 2 and len(list((tmp_path / "s" / "images").iterdir())) == 2
    assert run("eval", "r", "c", "-o", "s")[0] == 2
    assert "-o c is a folder that is compared" in run("eval", "r", "c", "-o", "c")[1]
    assert run("eval", "r", "c", "-o", "c/scores", "--scores", "mel_l1")[0] == 0
    status, error, _ = run("eval", "r", "c", "-o", "c/scores", "--scores", "mel_l1", "--overwrite")
    assert status == 0, error  # the page's audio is no copy of anything


def test_eval_of_some_of_the_recordings_writes_a_page_of_these(run, tmp_path):
    pytest.importorskip("matplotlib")
    recording(tmp_path / "r/u.wav", 0.6), recording(tmp_path / "r/v.wav", 0.6), recording(tmp_path / "c/u.wav", 0.6)
    status, error, out = run("eval", "r", "c", "-o", "s", "--scores", "mel_l1")
    assert status == 2 and "1 of 2 not scored: v" in error
    assert out.splitlines()[-1] == f"listen: {tmp_path / 's' / 'index.html'}"
    assert (tmp_path / "s" / "index.html").read_text().count("<audio") == 2


def test_a_score_that_silence_does_not_have_is_none(run, tmp_path):
    pytest.importorskip("pysptk")
    recording(tmp_path / "r/u.wav", 0.6)
    (tmp_path / "c").mkdir()
    soundfile.write(tmp_path / "c/u.wav", np.zeros(len(speech(0.6))), 22_050)
    status, error, out = run("eval", "r", "c", "-o", "s", "--clips", 0)
    assert status == 0 and "nan" not in out and "none  (n 0)" in out, error


# Lists

SCP = "utt1 a.wav\nspk1/utt2 a.wav\n"


@pytest.mark.parametrize(
    "content",
    [SCP.encode(), b"\xef\xbb\xbf" + SCP.encode(), SCP.replace("\n", "\r\n").encode(), f"\n{SCP}\n\n".encode()],
    ids=["plain", "mark", "crlf", "blank_lines"],
)
def test_lists_are_read_whatever_wrote_them(run, tmp_path, monkeypatch, content):
    recording(tmp_path / "data" / "a.wav")
    (tmp_path / "data" / "wav.scp").write_bytes(content)
    assert run("copy", "data/wav.scp", "-o", "o")[0] == 0  # paths beside the list
    assert sorted(p.relative_to(tmp_path / "o").as_posix() for p in (tmp_path / "o").rglob("*.wav")) == [
        "spk1/utt2.wav", "utt1.wav",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("utt1 a.wav\nutt1 b.wav\n", "line 2: utt1 is there twice, first in line 1"),
        ("e\u0301 a.wav\n\u00e9 b.wav\n", "line 2: \u00e9 is there twice"),
        ("a\n", "line 1: 'a', wanted an id and a path"),
        ("../a a.wav\n", "line 1: the id '../a' leads out of the folder"),
        ("a//b a.wav\n", "write it as 'a/b'"),
        (". a.wav\n", "line 1: the id '.' leads out of the folder"),
        ("a:b a.wav\n", "line 1: the id 'a:b' begins as Windows' drive a:"),
        ("u sox a.wav -t wav - |\n", "line 1: u is a command"),
        ("", "wav.scp is empty"),
    ],
)
def test_a_wrong_list_is_refused_with_its_line(run, tmp_path, content, says):
    (tmp_path / "wav.scp").write_text(content, encoding="utf-8")
    status, error, _ = run("copy", "wav.scp", "-o", "o")
    assert status == 2 and says in error and "wav.scp" in error


@pytest.mark.parametrize(
    ("content", "says"),
    [("a a.wav\nb \u00e9.wav\n".encode("latin1"), "wav.scp, line 2: byte 0xE9 is no UTF-8: save the file as UTF-8"),
     ("a a.wav\n".encode("utf-16"), "wav.scp is in UTF-16: save it as UTF-8"),
     ("a a.wav\nb b.wav\n".encode("utf-16-le"), "wav.scp, line 1: it holds zero bytes, as UTF-16 has them")],
)  # fmt: skip
def test_another_encoding_is_named(run, tmp_path, content, says):
    (tmp_path / "wav.scp").write_bytes(content)
    assert says in run("copy", "wav.scp", "-o", "o")[1]


def test_segments_are_refused(run, tmp_path):
    recording(tmp_path / "rec1.wav")
    (tmp_path / "wav.scp").write_text("rec1 rec1.wav\n")
    (tmp_path / "segments").write_text("u1 rec1 0 0.1\n")
    assert "segments divides the recordings of wav.scp" in run("copy", "wav.scp", "-o", "o")[1]


def test_composed_and_decomposed_names_are_one(run, tmp_path):
    pytest.importorskip("pysptk")
    composed, decomposed = (unicodedata.normalize(form, "\u00e9t\u00e9") for form in ("NFC", "NFD"))
    recording(tmp_path / "r" / f"{decomposed}.wav", 0.5)
    (tmp_path / "wav.scp").write_text(f"{composed} r/{composed}.wav\n", encoding="utf-8")
    assert run("copy", "wav.scp", "-o", "o")[0] == 0
    assert [path.name for path in (tmp_path / "o").iterdir()] == [f"{composed}.wav"]
    assert run("eval", "r", "o", "-o", "s", "--clips", 0)[0] == 0


def test_a_file_that_is_nowhere_is_named_with_all_places(run, tmp_path):
    recording(tmp_path / "data" / "a.wav")
    (tmp_path / "data" / "wav.scp").write_text("a a.wav\nb b.wav\n")
    status, error, _ = run("copy", "data/wav.scp", "-o", "o")
    assert status == 2 and error.endswith("1 of 2 not made: b") and (tmp_path / "o" / "a.wav").exists()


# One bad file among many


def test_the_good_ones_of_many_are_made_and_the_bad_ones_named(run, model, tmp_path, capsys):
    mels = {
        name: np.random.randn(20, frames).astype(np.float32)
        for name, frames in zip("abcdef", range(7, 13), strict=True)
    }
    mels["b"][3, 2], mels["d"], mels["e"] = np.nan, np.zeros((20, 0), np.float32), mels["e"][:19]
    (tmp_path / "m").mkdir()
    for name, mel in mels.items():
        np.save(tmp_path / "m" / f"{name}.npy", mel)
    assert main(["synthesize", "m", "-o", "o", "--batch-size", "4", "--checkpoint", str(model)]) == 2
    said = capsys.readouterr().err
    assert "m/b.npy holds 1 values that are not finite, of 160" in said and "m/d.npy is empty" in said
    assert "m/e.npy: mel is a Tensor of shape (19, 11)" in said
    assert said.splitlines()[-1] == "melglow synthesize: 3 of 6 not made: b, d, e"
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["a.wav", "c.wav", "f.wav"]
    np.save(tmp_path / "m" / "b.npy", mels["a"])
    status, error, out = run("synthesize", "m", "-o", "o", "--skip-existing")
    assert status == 2 and error.endswith("2 of 3 not made: d, e") and "1 wav in o, 3 left as they were" in out


def test_a_transposed_mel_is_read_by_its_bins_and_another_is_refused(run, tmp_path):
    mel = np.random.default_rng(0).standard_normal((20, 11)).astype(np.float32)
    for name, stored in (("a", mel), ("b", mel.T), ("c", mel[:19])):
        np.save(tmp_path / f"{name}.npy", stored)
    status, error, _ = run("synthesize", "a.npy", "b.npy", "c.npy", "-o", "o")
    assert status == 2 and error.endswith("1 of 3 not made: c")
    assert (tmp_path / "o" / "a.wav").read_bytes() == (tmp_path / "o" / "b.wav").read_bytes()


def test_a_name_that_cannot_be_written_stops_no_other(run, tmp_path, capsys):
    recording(tmp_path / "a.wav")
    (tmp_path / "wav.scp").write_text(f"u1 a.wav\n{'x' * 300} a.wav\nu2 a.wav\n")
    status, error, _ = run("copy", "wav.scp", "-o", "o")
    assert status == 2 and "1 of 3 not made: xxx" in error
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["u1.wav", "u2.wav"]
    assert run("copy", "wav.scp", "-o", "o", "--skip-existing")[0] == 2
    (tmp_path / "o2" / "u2.wav").mkdir(parents=True)
    assert "o2/u2.wav is a folder, wanted a file" in run("copy", "wav.scp", "-o", "o2", "--overwrite")[1]


def test_a_full_disk_ends_the_command(run, tmp_path, monkeypatch):
    for name in "ab":
        recording(tmp_path / f"d/{name}.wav")
    tried = []

    def write_wav(path, *_):
        tried.append(path)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("melglow_plugin.cli.shared.write_wav", write_wav)
    assert "No space left" in run("copy", "d", "-o", "o")[1] and len(tried) == 1


# Recordings


@pytest.mark.parametrize(
    ("wav", "options", "says"),
    [
        (speech(0.3).numpy() * 9000, {"subtype": "FLOAT"}, "scaled as integers?"),
        (np.array([0.0, 3, -2, 5] * 2000), {"subtype": "FLOAT"}, "has values to 5, wanted at most 1"),
        (np.array([0.0, np.nan] * 4000), {"subtype": "FLOAT"}, "4000 samples that are not finite, of 8000"),
        (np.zeros(0), {}, "is empty: 0 samples"),
    ],
)
def test_recordings_that_would_be_noise_are_refused(run, tmp_path, wav, options, says):
    soundfile.write(tmp_path / "a.wav", wav, 22_050, **options)
    status, error, _ = run("copy", "a.wav", "-o", "o")
    assert status == 2 and "a.wav" in error and says in error


def test_a_recording_above_full_scale_is_warned_of_once_and_kept(run, tmp_path):
    wav = speech(0.3).float()
    for name, peak in (("a", 2.5), ("b", 1.09)):
        soundfile.write(tmp_path / f"{name}.wav", (wav * peak / wav.abs().max()).numpy(), 22_050, subtype="FLOAT")
    with pytest.warns(UserWarning) as said:
        assert run("copy", "a.wav", "b.wav", "-o", "o")[0] == 0
    peaks = [str(each.message) for each in said if "peaks" in str(each.message)]
    assert peaks == ["a.wav peaks at 2.50, above full scale (1): copies of it will clip"]
    with pytest.warns(UserWarning, match="peaks"):
        assert read_wav(Path("a.wav"), 22_050).abs().max() == 2.5


@pytest.mark.parametrize("claimed", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_header_of_a_program_that_did_not_know_the_length(tmp_path, claimed):
    path = recording(tmp_path / "a.wav")
    wav, content = read_wav(path, 22_050), bytearray(path.read_bytes())
    content[40:44] = claimed.to_bytes(4, "little")
    path.write_bytes(content)
    assert torch.equal(read_wav(path, 22_050), wav)


def test_a_recording_cut_off_on_disk_is_refused(tmp_path):
    path = recording(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"a\.wav ends early: its header says 13230 bytes of samples, 4956 are there"):
        read_wav(path, 22_050)


def test_a_folder_is_taken_with_what_lies_in_it(run, tmp_path):
    recording(tmp_path / "in" / "deep" / "A.WAV"), recording(tmp_path / "in" / "b.flac")
    (tmp_path / "in" / "._b.flac").write_bytes(b"macOS")
    (tmp_path / "in" / "notes.txt").write_text("")
    status, error, out = run("copy", "in", "-o", "in/out")
    assert status == 0, error
    assert "2 wavs in in/out" in out and f"listen: {tmp_path / 'in/out/b.wav'}" in out
    assert run("copy", "in", "-o", "in/out", "--skip-existing")[2].startswith("0 wavs in in/out, 2 left")
    (tmp_path / "empty").mkdir()
    assert "empty is a folder without .flac, .wav" in run("copy", "empty", "-o", "o")[1]


# Mels


@pytest.mark.parametrize("kind", ["<f2", ">f4", ">f8", "longdouble", "fortran", "batch"])
def test_mels_of_any_floating_kind_are_read(tmp_path, kind):
    mel = np.random.default_rng(0).standard_normal((20, 9)).astype(np.float16).astype(np.float32)
    stored = np.asfortranarray(mel) if kind == "fortran" else mel[None] if kind == "batch" else mel.astype(kind)
    np.save(tmp_path / "a.npy", stored)
    found = read_mel(tmp_path / "a.npy", frames_first=False)
    assert found.dtype == torch.float32 and np.array_equal(found.numpy(), mel)
    assert torch.equal(read_mel(tmp_path / "a.npy", frames_first=True), found.T)
    for bins, way in ((found.shape[0], found), (found.shape[1], found.T)):  # one axis tells which is which
        assert torch.equal(read_mel(tmp_path / "a.npy", frames_first=True, bins=bins), way)


WRITERS = {
    "x.npz": lambda path, mel: np.savez(path, mel),
    "x.npz:b": lambda path, mel: np.savez_compressed(path, a=mel + 1, b=mel),
    "x.pt": lambda path, mel: torch.save(torch.from_numpy(mel), path),
    "old.pt": lambda path, mel: torch.save(torch.from_numpy(mel), path, _use_new_zipfile_serialization=False),
    "half.pt": lambda path, mel: torch.save(torch.from_numpy(mel).bfloat16().requires_grad_(), path),
    "x.pt:mel": lambda path, mel: torch.save({"wav": torch.zeros(3), "mel": torch.from_numpy(mel), "id": 3}, path),
    "view.pth": lambda path, mel: torch.save({"mel": torch.from_numpy(mel.T.copy()).T, "rate": 22_050}, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_mels_of_numpy_archives_and_of_torch_are_read(run, tmp_path, model, name):
    mel = np.random.default_rng(0).standard_normal((20, 9)).astype(np.float16).astype(np.float32)
    mel = torch.from_numpy(mel).bfloat16().float().numpy()
    WRITERS[name](tmp_path / name.partition(":")[0], mel)
    assert np.array_equal(read_mel(tmp_path / name, frames_first=False), mel)
    assert run("synthesize", tmp_path / name, "--checkpoint", model, "-o", "o")[0] == 0
    (wav,) = (tmp_path / "o").iterdir()
    assert wav.name == f"{name.partition('.')[0]}.wav" and soundfile.info(wav).frames == 9 * 64


def test_a_folder_of_mels_holds_every_kind_of_file_for_one(run, tmp_path, model):
    (tmp_path / "mels").mkdir()
    mel = np.random.default_rng(0).standard_normal((20, 9)).astype(np.float32)
    np.save(tmp_path / "mels" / "a.npy", mel), np.savez(tmp_path / "mels" / "b.npz", mel)
    torch.save(torch.from_numpy(mel), tmp_path / "mels" / "c.pt")
    assert run("synthesize", "mels", "--checkpoint", model, "-o", "o")[0] == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["a.wav", "b.wav", "c.wav"]


@pytest.mark.parametrize(("name", "says"), [("x.ark:15", "kaldiio"), ("x.h5", "h5py")])
def test_archives_are_read_or_what_reads_them_is_named(run, tmp_path, name, says):
    mel, (file, _, offset) = np.random.randn(9, 20).astype(np.float32), name.partition(":")
    package = pytest.importorskip(says)
    if offset:
        package.save_ark(str(tmp_path / file), {"u": mel}, scp=str(tmp_path / "feats.scp"))
        name = (tmp_path / "feats.scp").read_text().split(maxsplit=1)[1].strip()
    else:
        with package.File(tmp_path / file, "w") as content:
            content["wave"], content["feats"] = np.zeros(9 * 64), mel
    assert np.array_equal(read_mel(str(tmp_path / name) if not offset else name, frames_first=True), mel.T)


def test_a_missing_reader_of_archives_is_named(run, tmp_path, monkeypatch):
    (tmp_path / "x.ark").write_bytes(b"u \0BFM "), (tmp_path / "x.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "kaldiio", None), monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "feats.scp").write_text("u x.ark:2\n")
    assert run("synthesize", "feats.scp", "-o", "o")[1].endswith("pip install kaldiio reads it")
    assert run("synthesize", "x.h5", "-o", "o")[1].endswith("pip install h5py reads it")


@pytest.mark.parametrize("frames", [9, 20])
def test_a_file_of_espnet_means_its_layout(run, tmp_path, model, frames):
    (tmp_path / "config.yaml").write_text(
        "feats_extract: fbank\nfeats_extract_conf: {n_fft: 256, hop_length: 64, n_mels: 20}\n"
    )
    mel = np.random.randn(frames, 20).astype(np.float32)
    np.save(tmp_path / "a.npy", mel)
    assert run("synthesize", "a.npy", "--convention", "config.yaml", "-o", "o", "--sigma", 0)[0] == 0
    expected = Vocoder.from_pretrained(model)(torch.from_numpy(mel.T.copy()), sigma=0)
    np.testing.assert_allclose(soundfile.read(tmp_path / "o/a.wav")[0], expected.numpy(), atol=2e-4)


# Configurations


def test_a_coqui_configuration_with_comments_is_read_as_coqui_reads_it(tmp_path):
    text = """{ // a comment
    "model": "Tacotron2", /* another,
    over two lines */
    "url": "https://example.org/a//b",
    "audio": {"num_mels": 80, "num_freq": 513, "sample_rate": 22050, "hop_length": 256}  // the end
    }"""
    (tmp_path / "config.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_mapping(tmp_path / "config.json")["url"] == "https://example.org/a//b"
    wanted = MelConvention.coqui({"num_mels": 80, "sample_rate": 22_050, "hop_length": 256})
    assert MelConvention.from_file(tmp_path / "config.json") == wanted


def test_statistics_are_looked_for_beside_the_configuration(tmp_path, monkeypatch):
    stats = {"mel_mean": np.zeros(80), "mel_std": np.ones(80)}
    (tmp_path / "model").mkdir()
    np.save(tmp_path / "model" / "scale_stats.npy", stats, allow_pickle=True)
    for written in ("scale_stats.npy", "/home/trainer/scale_stats.npy"):
        (tmp_path / "model" / "config.json").write_text(
            f'{{"audio": {{"num_mels": 80, "fft_size": 1024, "stats_path": "{written}"}}}}'
        )
        assert MelConvention.from_file(tmp_path / "model").std == (1.0,) * 80
    (tmp_path / "model" / "scale_stats.npy").unlink()
    with pytest.raises(ValueError, match=r"neither /home/trainer/scale_stats\.npy, nor .*model/scale_stats\.npy"):
        MelConvention.from_file(tmp_path / "model")


def test_a_table_of_recordings_is_read_beside_the_list(tmp_path):
    recording(tmp_path / "egs" / "dump" / "a.flac")
    (tmp_path / "egs" / "data").mkdir()
    (tmp_path / "egs" / "data" / "wav.scp").write_text("a dump/a.flac\n")  # from the recipe's folder, above the list
    assert read_scp(tmp_path / "egs" / "data" / "wav.scp") == {"a": str(tmp_path / "egs" / "dump" / "a.flac")}


# Names and kinds of files


def test_a_file_in_the_place_of_a_folder_is_named(run, model, tmp_path):
    recording(tmp_path / "a.wav")
    (tmp_path / "o").write_text("mine")
    for command in (["copy", "a.wav"], ["convert", model], ["export", model, "--format", "coqui"]):
        for out in ("o", "o/deeper/folder"):
            assert run(*command, "-o", out)[1].endswith("o is a file, wanted a folder")
    assert (tmp_path / "o").read_text() == "mine"


def test_names_may_be_as_long_as_the_system_lets_them(run, tmp_path):
    name = "n" * 251 + ".wav"
    recording(tmp_path / name)
    assert run("copy", name, "-o", "o")[0] == 0 and (tmp_path / "o" / name).exists()


def test_files_of_other_kinds_are_named(run, tmp_path):
    recording(tmp_path / "a.wav")
    (tmp_path / "b.wav").touch()
    assert "a.wav is no .npy of numbers: it begins with b'RIFF" in run("synthesize", "a.wav", "-o", "o")[1]
    assert run("copy", "b.wav", "-o", "o")[1].endswith("b.wav is empty: 0 bytes")


@pytest.mark.parametrize("length", ["0", "-1", "nan", "inf", "x"])
def test_a_length_of_no_time_is_refused(run, capsys, length):
    with pytest.raises(SystemExit):
        main(["bench", "--lengths", length])
    assert f"'{length}' is no number above 0" in capsys.readouterr().err


# Models


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_of_a_model_means_its_folder(run, model, tmp_path, name):
    assert run("convert", model / name, "-o", "o")[0] == 0
    assert (tmp_path / "o" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_what_is_no_model_is_named(run, tmp_path):
    recording(tmp_path / "a.wav")
    says = "a.wav is no model: a model is a folder, or a .pth or .pkl beside its configuration"
    assert run("convert", "a.wav", "-o", "o")[1].endswith(says)


def test_weights_that_git_has_not_fetched_are_named(run, model, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_bytes((model / "config.json").read_bytes())
    (tmp_path / "m" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "m/model.safetensors is a pointer of Git LFS and not the weights" in run("convert", "m", "-o", "o")[1]


def test_what_another_command_has_made_meanwhile_is_left(run, tmp_path, monkeypatch):
    recording(tmp_path / "in" / "a.wav"), recording(tmp_path / "in" / "b.wav")
    read = shared.read_wav
    monkeypatch.setattr(shared, "read_wav", lambda *args: recording(tmp_path / "o" / "b.wav") and read(*args))
    status, _, out = run("copy", "in", "-o", "o", "--skip-existing")
    assert status == 0 and out.startswith("1 wav in o, 1 left as they were")
    assert (tmp_path / "o" / "b.wav").read_bytes() == (tmp_path / "in" / "b.wav").read_bytes()


def test_a_model_that_cannot_be_adapted_is_not_said_to_be(run, model):
    status, error, out = run("convert", model, "-o", "o", "--convention", "hifigan")
    assert status == 2 and out == "" and "no model of one mel can be adapted to the other: n_fft 256 -> 1024" in error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_log_on_a_full_disk_is_named():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        append_csv(Path("/dev/full"), {"id": "a"})
