"""The recipe of the acoustic model: sounds and pauses, tokens without time, and the released folder."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TTS1 = ROOT / "egs" / "ljspeech" / "tts1"
MAKEFILE, WARNINGS = (ROOT / "Makefile").read_text(), re.compile(r"PYTHONWARNINGS=(\S+)")  # of make speak


@pytest.fixture
def local(monkeypatch):
    """A module of local/, by name."""
    monkeypatch.syspath_prepend(str(TTS1 / "local"))
    return importlib.import_module


def test_letters_become_the_recognisers_phones(local):
    words = local("phones").words_of([*"tʃˈeɪnd,", "<space>", *"fˈɔːɹ"])
    assert [[sound.phones for sound in word] for word in words] == [["CH", "EY", "N", "D"], ["F", "AO", "R"]]
    assert words[0][0].tokens == (0, 1) and words[0][1].tokens == (3, 4)
    assert words[1][1].tokens == (11,), "the length mark lasts no time of its own"


def test_a_letter_without_a_phone_is_named(local):
    with pytest.raises(ValueError, match="'ʘ' has no ARPAbet phone"):
        local("phones").words_of(list("kˈʘ"))


def test_without_pocketsphinx_its_package_is_named(local, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ImportError, match="the alignment needs pocketsphinx: pip install pocketsphinx"):
        local("aligner").Aligner({"HH AH T"}, tmp_path / "dictionary.txt")


def test_durations_fill_the_recording_and_pauses_go_to_the_comma(local):
    pytest.importorskip("pocketsphinx")
    align = local("aligner")
    tokens = ["h", "ˈ", "a", "ɪ", ",", "<space>", "ð", "ɛ", "."]
    words = local("phones").words_of(tokens)
    times = [[(0.10, 0.20), (0.20, 0.40)], [(0.60, 0.70), (0.70, 0.90)]]
    counts = align.durations(tokens, align.boundaries(words, times), offset=0.08, frames=80)
    assert sum(counts) == 80 and len(counts) == len(tokens) + 1
    seconds = np.array(counts) * align.HOP / align.RATE
    wanted = [0.12, 0.0, 0.1, 0.1, 0.2, 0.0, 0.1, 0.2, 0.0]
    np.testing.assert_allclose(seconds[:-1], wanted, atol=align.HOP / align.RATE)


def test_tokens_without_frames_take_their_neighbours_values(local):
    filled = local("fill").fill(np.array([[0.0], [4.0], [0.0], [6.0], [0.0]]), np.array([0, 3, 0, 2, 0]))
    np.testing.assert_allclose(filled[:, 0], [4, 4, 5, 6, 6])


class Times:
    """In the place of the aligner and of the tokenizer: each phone lasts 0.1 s, each letter is a token."""

    def __init__(self, *_) -> None:
        pass

    def __call__(self, wav: np.ndarray, words: list[str]) -> list[list[tuple[float, float]]]:
        if not words:
            raise ValueError("no word in its text")
        starts = iter(np.arange(2, 50) / 10)
        return [[(start, start + 0.1) for _, start in zip(word.split(), starts, strict=False)] for word in words]

    @staticmethod
    def text2tokens(text: str) -> list[str]:
        return list(text.replace(" ", ","))


@pytest.fixture
def align(local, tmp_path, monkeypatch):
    """Runs align.py on recordings (wav by id) and their texts; returns the data folder."""
    soundfile = pytest.importorskip("soundfile")
    for package in ("espnet2", "pocketsphinx", "librosa"):
        pytest.importorskip(package)
    module = local("align")
    monkeypatch.setattr(module, "Aligner", Times)
    monkeypatch.setattr(module, "PhonemeTokenizer", Times)

    def run(texts: dict[str, str], **wavs: np.ndarray) -> Path:
        (tmp_path / "corpus" / "wavs").mkdir(parents=True)
        for key, wav in wavs.items():
            soundfile.write(tmp_path / "corpus" / "wavs" / f"{key}.flac", wav, 22_050)
        (tmp_path / "corpus" / "metadata.csv").write_text("".join(f"{k}|raw|{text}\n" for k, text in texts.items()))
        monkeypatch.setattr(sys, "argv", ["align.py", str(tmp_path / "corpus"), str(tmp_path / "data")])
        module.main()
        return tmp_path / "data"

    return run


WAV = 0.1 * np.ones(30_000)


@pytest.mark.parametrize("text", ["", "..."])
def test_a_text_without_a_word_is_left_out_by_its_id(align, caplog, text):
    """Without splits/ the last recordings are held out, as in the recipe of the vocoder."""
    data = align({"a": "hat", "b": text, "c": "pan tin", "d": "man"}, a=WAV, b=WAV, c=WAV, d=WAV)
    assert "b left out: no word in its text" in caplog.text
    assert [(data / name / "text").read_text() for name in ("train", "dev", "eval")] == [
        "a hat\n", "c pan tin\n", "d man\n"
    ]  # fmt: skip
    durations = (data / "dev" / "durations").read_text().split()[1:]
    assert len(durations) == len("pan tin") + 1


@pytest.mark.parametrize(
    ("texts", "bad", "says"),
    [
        ({}, np.ones((30_000, 2)), "b.flac has 2 channels, the model 1"),
        ({"e": "hat"}, WAV, "metadata.csv names e, but there is no"),
        ({"b": "hʘt"}, WAV, "b: token 'ʘ' has no ARPAbet phone"),
    ],
)
def test_a_recording_that_cannot_be_used_is_refused_by_name(align, texts, bad, says):
    with pytest.raises(ValueError, match=says):
        align({"a": "hat", "b": "pan", "c": "tin", "d": "man", **texts}, a=WAV, b=0.1 * bad, c=WAV, d=WAV)


def scored(mos: float, errors: int) -> dict:
    heard = "one two" if errors else "one two three"
    return {"distill_mos": mos, "words": 3, "whisper_errors": errors, "whisper_heard": heard}


def test_the_tables_of_sentences_come_from_their_scores(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "egs" / "universal" / "voc1" / "local"))
    rows = {"melglow_r0_s0.6": {"a": scored(3.0, 1), "b": scored(4.0, 0)}, "recordings": {"a": scored(4.5, 0)}}
    (tmp_path / "scores.json").write_text(json.dumps(rows))
    text = "Before.\n<!-- sentences: scores.json -->\nold\n<!-- end -->\nAfter.\n"
    filled = importlib.import_module("results").filled(text, tmp_path)
    assert filled.startswith("Before.\n") and filled.endswith("<!-- end -->\nAfter.\n") and "old" not in filled
    head, _, recordings, melglow = [line for line in filled.splitlines() if line.startswith("|")]
    assert head == "| system | sentences | WER, Whisper tiny.en, % | Distill-MOS |"
    assert recordings.startswith("| recordings | 1 | 0.0 |") and melglow.startswith(
        "| melglow_r0_s0.6 | 2 | 16.7 | 3.5 ± "
    )


def test_the_page_plays_the_best_and_the_worst_sentence(tmp_path, local, monkeypatch):
    soundfile = pytest.importorskip("soundfile")
    texts = {"a": "One two three.", "b": "One, two, three.", "c": "One two, three."}
    rows = {
        "x": {"a": scored(3.0, 1), "b": scored(4.0, 0), "c": scored(2.0, 0)},
        "y": {key: scored(1.0, 0) for key in texts},
    }
    for system in rows:
        (tmp_path / "exp" / system).mkdir(parents=True)
        for key in texts:
            soundfile.write(tmp_path / "exp" / system / f"{key}.wav", 0.1 * np.ones(2048), 22_050)
    (tmp_path / "exp" / "scores.json").write_text(json.dumps(rows))
    (tmp_path / "sentences.csv").write_text("".join(f"{key}|{text}\n" for key, text in texts.items()))
    monkeypatch.setattr(sys, "argv", ["page.py", str(tmp_path / "sentences.csv"), "--voice", f"Ours={tmp_path}/exp:x,y",
                                      "--number", "1", "-o", str(tmp_path / "page")])  # fmt: skip
    local("page").main()
    html = (tmp_path / "page" / "index.html").read_text()
    sources = re.findall(r'src="([^"]+)"', html)
    assert [Path(source).stem for source in sources] == ["exp-b-x", "exp-b-y", "exp-c-x", "exp-c-y"]
    assert all(soundfile.info(tmp_path / "page" / source).frames == 2048 for source in sources)


def test_the_released_folder_gives_back_the_model(tmp_path, local, monkeypatch):
    """Statistics exactly, weights in float16; marks that the corpus lacks mean what a full stop or a comma means."""
    torch, yaml = pytest.importorskip("torch"), pytest.importorskip("yaml")
    release = local("release")
    monkeypatch.syspath_prepend(str(TTS1))
    state = {release.EMBEDDING: torch.arange(12.0).view(6, 2), "tts.encoder.weight": torch.randn(3, 3)}
    config = {"token_list": ["<unk>", "?", "!", "-", ".", ","], "output_dir": "/somewhere", "tts": "fastspeech2"}
    for name in ("normalize", "pitch_normalize", "energy_normalize"):
        state |= {f"{name}.mean": torch.tensor([5.27]), f"{name}.std": torch.tensor([0.24])}
        config[f"{name}_conf"] = {"stats_file": "gone.npz"}
    torch.save(state, tmp_path / "model.pth")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(sys, "argv", ["release.py", str(tmp_path / "model.pth"), "--out", str(tmp_path / "folder")])
    release.main()
    written, model = local("voice").export(tmp_path / "folder", tmp_path / "espnet")
    again, options = torch.load(model, weights_only=True), yaml.safe_load(written.read_text())
    torch.testing.assert_close(again["tts.encoder.weight"], state["tts.encoder.weight"], atol=0, rtol=1e-3)
    assert again[release.EMBEDDING].tolist() == [[10, 11], [8, 9], [8, 9], [10, 11], [8, 9], [10, 11]]
    assert "output_dir" not in options
    statistics = np.load(options["pitch_normalize_conf"]["stats_file"])
    mean = statistics["sum"] / statistics["count"]
    std = (statistics["sum_square"] / statistics["count"] - mean**2) ** 0.5
    assert mean == pytest.approx(5.27) and std == pytest.approx(0.24, rel=1e-5)


def test_variance_of_spoken_mels_becomes_that_of_recordings(local, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(TTS1))
    torch.manual_seed(0)
    feats, recorded = 0.7 * torch.randn(500, 3) + torch.tensor([0.5, 0.0, -1.0]), 1.1 * torch.randn(400, 3)
    state = {"normalize.mean": torch.tensor([-2.0, -1.0, 0.0]), "normalize.std": torch.tensor([0.8, 0.5, 1.0])}
    before = feats * state["normalize.std"] + state["normalize.mean"]
    wanted = (recorded * state["normalize.std"]).std(0)
    local("release").match_variance(state, feats, recorded)
    after = feats * state["normalize.std"] + state["normalize.mean"]
    torch.testing.assert_close(after.std(0), wanted)
    torch.testing.assert_close(after.mean(0), before.mean(0))


RELEASED = pytest.mark.skipif(not (ROOT / "pretrained/fastspeech2_ljspeech").is_dir(), reason="no released voice")


@pytest.mark.parametrize("text", ["", " \n "])
def test_blank_text_is_status_2_and_one_line(text, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(TTS1))
    monkeypatch.setattr(sys, "argv", ["voice.py", "speak", text, "-o", str(tmp_path / "a.wav")])
    with pytest.raises(SystemExit) as end:
        importlib.import_module("voice").main()
    assert end.value.code == 2 and capsys.readouterr().err == "voice: no text to speak\n"
    assert not (tmp_path / "a.wav").exists()


@RELEASED
def test_the_script_replaces_no_file_unasked(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(TTS1))
    voice = importlib.import_module("voice")

    def status(*arguments) -> int:
        monkeypatch.setattr(sys, "argv", ["voice.py", *map(str, arguments)])
        try:
            voice.main()
        except SystemExit as end:
            return end.code
        return 0

    (tmp_path / "model.pth").write_text("mine")
    (tmp_path / "s.csv").write_text("a|Yes.\n../b|No.\n")
    assert status("export", tmp_path) == status("speak", "Yes.", "-o", tmp_path / "model.pth") == 2
    assert capsys.readouterr().err.count("model.pth is there already") == 2
    assert status("--overwrite", "--voice", tmp_path, "export", tmp_path) == 2
    assert status("mels", tmp_path / "s.csv", "-o", tmp_path) == 2
    assert "line 2: the id '../b' leads out of the folder" in capsys.readouterr().err
    assert (tmp_path / "model.pth").read_text() == "mine"
    assert status("--overwrite", "export", tmp_path) == 0 and (tmp_path / "model.pth").stat().st_size > 1e6


@RELEASED
def test_the_released_voice_speaks_a_new_sentence(tmp_path):
    pytest.importorskip("espnet2")
    pytest.importorskip("phonemizer")
    soundfile = pytest.importorskip("soundfile")
    command = [sys.executable, str(TTS1 / "voice.py"), "speak", "Dr. Xylo paid $250?", "-o", str(tmp_path / "a.wav")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": WARNINGS.search(MAKEFILE)[1]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    wav, rate = soundfile.read(tmp_path / "a.wav")
    assert done.stdout + done.stderr == f"{tmp_path / 'a.wav'}: {len(wav) / rate:.2f} s\n"
    assert rate == 22_050 and 1 < len(wav) / rate < 8 and np.abs(wav).max() > 0.05
