"""egs/universal/voc1: RESULTS.md and the page, from a JSON of benchmarks/voices.py."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import soundfile
from conftest import speech

pytest.importorskip("librosa")
pytest.importorskip("matplotlib")
LOCAL = Path(__file__).parents[2] / "egs" / "universal" / "voc1" / "local"
KEYS = ("anna/a", "anna/b", "bob/c")


def program(name):
    spec = importlib.util.spec_from_file_location(f"universal_{name}", LOCAL / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data():
    clips = {key: {"speaker": key.split("/")[0], "sex": "F", "language": "en"} for key in KEYS}
    rows = {
        name: {key: {"pesq": base + i, "distill_mos": None, "rtf": 0.1} for i, key in enumerate(KEYS)}
        for name, base in (("peer", 1.0), ("recordings", 3.0), ("universal r1", 2.0))
    }
    return {"clips": clips, "systems": {name: {"identity": "", "scores": each} for name, each in rows.items()}}


def test_markers_are_filled_and_can_be_filled_again(data, tmp_path):
    (tmp_path / "scores.json").write_text(json.dumps(data))
    (tmp_path / "loud.json").write_text(json.dumps({"music": {"level": 2.0, "level_p95": 0, "burst": 0, "pop": 1}}))
    results = program("results")
    text = (
        "# Results\n<!-- scores: scores.json against peer -->\nold\n<!-- end -->\nbetween\n"
        "<!-- scores: scores.json without anna -->\n<!-- end -->\n<!-- robustness: loud.json -->\n<!-- end -->\n"
    )
    filled = results.filled(text, tmp_path)
    assert "\nold\n" not in filled and "between" in filled and "| music | **2.00** |" in filled
    assert filled.index("| recordings | 3") < filled.index("| universal r1 | 3") < filled.index("| peer | 3")
    assert "| universal r1 | 1 | 4.000 |" in filled  # bob alone
    assert results.filled(filled, tmp_path) == filled
    with pytest.raises(ValueError, match="no marker"):
        results.filled("# Results\n", tmp_path)


def test_the_page_plays_the_clips_chosen_of_each_speaker(data, tmp_path):
    for name in data["systems"]:
        for key in KEYS:
            path = tmp_path / "wav" / name.replace(" ", "_") / f"{key.replace('/', '--')}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, speech(0.3).numpy(), 22_050)
    page = program("page")
    keys = page.chosen(data["clips"], [], 1)
    assert keys == ["anna/a", "bob/c"]
    out = page.page(data, tmp_path / "wav", ["recordings", "universal r1"], keys, "Voices", tmp_path / "page")
    text = out.read_text()
    assert "2 of 2 speakers; scores over all 3" in text and "anna, woman, en" in text
    assert len(list((tmp_path / "page" / "audio").iterdir())) == 4
    with pytest.raises(ValueError, match="speaker carl is none of anna, bob"):
        page.chosen(data["clips"], ["carl"], 1)


def test_speakers_are_listed_with_their_licences(tmp_path):
    (tmp_path / "splits").mkdir()
    rows = ["file,speaker,sex,language,licence,repo"]
    for index, name in enumerate(["anna", "anna", "bob"]):
        soundfile.write(tmp_path / f"{index}.wav", speech(0.5).numpy(), 22_050)
        rows.append(f"{index}.wav,{name},F,en,CC BY 4.0 (LICENSE in repo),someone/corpus")
    (tmp_path / "SOURCES.csv").write_text("\n".join(rows))
    (tmp_path / "splits" / "train.txt").write_text("0.wav\n1.wav\n")
    (tmp_path / "splits" / "eval.txt").write_text("2.wav\n")
    speakers = program("speakers").speakers
    lists = {part: [tmp_path / "splits" / f"{name}.txt"] for part, name in (("train", "train"), ("held out", "eval"))}
    anna, bob = sorted(speakers(lists), key=lambda row: row["speaker"])
    assert (anna["set"], anna["recordings"], anna["seconds"], anna["licence"]) == ("train", 2, 1.0, "CC BY 4.0")
    assert (bob["set"], bob["corpus"], bob["from"]) == ("held out", "someone", "someone/corpus")
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tmp_path / "0.wav", other)
    (other / "SOURCES.csv").write_text(rows[0])
    (other / "train.txt").write_text("0.wav\n")
    with pytest.raises(ValueError, match="names its licence"):
        speakers({"train": [other / "train.txt"]})
