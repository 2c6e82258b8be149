import importlib
from pathlib import Path

import numpy as np
import pytest

from melglow_plugin.files import read_scp
from melglow_plugin.training.corpus import find_recordings, read_metadata, recording_faults, split, write_data_dir

soundfile = pytest.importorskip("soundfile")
RATE = 22_050


def names(count):
    return [f"LJ{i:05d}" for i in range(count)]


# metadata.csv


def test_metadata_gives_the_normalised_text(tmp_path):
    (tmp_path / "metadata.csv").write_text('a|It was 2|It was "two", naïve\nb|only text\n', encoding="utf-8")
    assert read_metadata(tmp_path) == {"a": 'It was "two", naïve', "b": "only text"}


def test_metadata_names_the_line_that_is_wrong(tmp_path):
    (tmp_path / "metadata.csv").write_text("a|text\nb text\n")
    with pytest.raises(ValueError, match=r"metadata\.csv, line 2: 1 field"):
        read_metadata(tmp_path)


def test_missing_metadata_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"metadata\.csv is missing"):
        read_metadata(tmp_path)


def test_recordings_lie_in_wavs_or_beside_and_are_wav_or_flac(tmp_path):
    (tmp_path / "wavs").mkdir()
    paths = [tmp_path / "wavs/a.wav", tmp_path / "wavs/b.flac", tmp_path / "c.wav", tmp_path / "d.flac"]
    for path in paths:
        path.touch()
    assert find_recordings(tmp_path, "abcd") == dict(zip("abcd", paths, strict=True))


def test_a_recording_that_is_missing_is_named(tmp_path):
    (tmp_path / "a.wav").touch()
    with pytest.raises(ValueError, match="names b,"):
        find_recordings(tmp_path, "ab")


# The split


@pytest.mark.parametrize("count", [5000, 13_100])
def test_a_large_corpus_is_split_as_espnet_does(tmp_path, count):
    ids = names(count)
    sets = split(tmp_path, ids[::-1])
    assert sets == {"tr_no_dev": ids[:-500], "dev": ids[-500:-250], "eval1": ids[-250:]}


@pytest.mark.parametrize("count, dev, evaluation", [(3, 1, 1), (30, 2, 1), (100, 5, 5), (4999, 250, 249)])
def test_a_small_corpus_gives_a_tenth(tmp_path, count, dev, evaluation):
    ids = names(count)
    sets = split(tmp_path, ids[::-1])
    assert [len(keys) for keys in sets.values()] == [count - dev - evaluation, dev, evaluation]
    assert [key for keys in sets.values() for key in keys] == ids


def test_too_small_a_corpus_is_refused(tmp_path):
    with pytest.raises(ValueError, match="2 recordings are too few to hold 2"):
        split(tmp_path, names(2))


def write_lists(corpus, train, dev, evaluation):
    (corpus / "splits").mkdir()
    for stem, keys in (("train", train), ("dev", dev), ("eval", evaluation)):
        (corpus / "splits" / f"{stem}.txt").write_text("\n".join(keys) + "\n")


def test_lists_win(tmp_path):
    ids = names(6)
    write_lists(tmp_path, ids[3:], ids[:1], ids[1:2])
    assert split(tmp_path, ids) == {"tr_no_dev": ids[3:], "dev": ids[:1], "eval1": ids[1:2]}


def test_a_list_that_names_a_stranger_is_refused(tmp_path):
    write_lists(tmp_path, ["a"], ["b"], ["z"])
    with pytest.raises(ValueError, match=r"eval\.txt names z"):
        split(tmp_path, ["a", "b", "c"])


# Kaldi-style directories


def test_a_data_dir_is_sorted_and_complete(tmp_path):
    keys = ["b", "a10", "B", "a9"]
    write_data_dir(tmp_path / "set", {k: tmp_path / f"{k}.wav" for k in keys}, {k: f"text of {k}" for k in keys})
    read = {path.name: path.read_text().splitlines() for path in (tmp_path / "set").iterdir()}
    assert read == {
        "wav.scp": [f"{k} {(tmp_path / k).resolve()}.wav" for k in ("B", "a10", "a9", "b")],
        "utt2spk": ["B LJ", "a10 LJ", "a9 LJ", "b LJ"],
        "spk2utt": ["LJ B a10 a9 b"],
        "text": ["B text of B", "a10 text of a10", "a9 text of a9", "b text of b"],
    }


def test_a_data_dir_without_recordings_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no recordings"):
        write_data_dir(tmp_path / "set", {}, {})


def test_scp_is_read_as_written(tmp_path):
    recordings = {k: tmp_path / "a folder" / f"{k}.flac" for k in ("a", "b")}
    write_data_dir(tmp_path, recordings, {"a": "", "b": ""})
    assert read_scp(tmp_path / "wav.scp") == {k: str(path.resolve()) for k, path in recordings.items()}


def test_a_missing_scp_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"wav\.scp is missing"):
        read_scp(tmp_path / "wav.scp")


# Recordings


def sound(samples=6000):
    return 0.3 * np.sin(np.arange(samples) / 7) + 0.01 * np.random.default_rng(0).standard_normal(samples)


def clipped(share):
    wav = sound()
    wav[: int(share * len(wav))] = 1.0
    return wav


@pytest.fixture
def faults(tmp_path):
    def check(wav, rate=RATE, suffix="wav", **options):
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, wav, rate, **options)
        return recording_faults(path, sample_rate=RATE, min_samples=5000)

    return check


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_good_recording_has_no_fault(faults, suffix):
    assert faults(sound(), suffix=suffix) == []


@pytest.mark.parametrize(
    "wav, rate, fault",
    [
        (sound(), 16_000, "sample rate 16000 Hz, wanted 22050 Hz"),
        (np.stack([sound()] * 2, axis=1), RATE, "2 channels, wanted 1"),
        (sound(4999), RATE, "4999 samples, a training crop needs 5000"),
        (np.zeros(6000), RATE, "silence: values from 0 to 0"),
        (np.full(6000, 0.25), RATE, "silence: values from 0.25 to 0.25"),
        (clipped(0.01), RATE, "clipped: 1.00% of the samples are at full scale"),
    ],
)
def test_a_fault_is_named_with_what_was_found(faults, wav, rate, fault):
    assert faults(wav, rate) == [fault]


def test_all_faults_are_named(faults):
    found = faults(np.zeros((100, 2)), 8000)
    assert [fault.split()[0] for fault in found] == ["sample", "2", "100", "silence:"]


def test_a_few_samples_at_full_scale_are_no_clipping(faults):
    assert faults(clipped(0.0005)) == []


def test_values_that_are_no_numbers_are_named(faults):
    wav = sound()
    wav[7] = np.nan
    assert faults(wav, subtype="FLOAT") == ["holds 1 samples that are not finite, of 6000"]


def test_an_empty_recording_is_too_short(faults):
    assert faults(np.zeros(0)) == ["is empty: 0 samples"]


@pytest.mark.parametrize("content", [b"", b"no audio at all" * 50, None])
def test_what_cannot_be_read_is_a_fault(tmp_path, content):
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    (fault,) = recording_faults(path, RATE, 5000)
    expected = {None: "no such file", b"": "is empty: 0 bytes"}
    assert fault.startswith(expected.get(content, "cannot be read"))


@pytest.mark.parametrize("suffix", ["flac", "wav"])
def test_a_recording_cut_off_on_disk_is_a_fault(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, sound(60_000), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 20])
    assert recording_faults(path, RATE, 5000)


def test_a_recording_in_two_lists_is_refused(tmp_path):
    (tmp_path / "splits").mkdir()
    for name, keys in (("train", "a b"), ("dev", "b"), ("eval", "c")):
        (tmp_path / "splits" / f"{name}.txt").write_text(keys.replace(" ", "\n"))
    with pytest.raises(ValueError, match="b is in .*train.txt and again in .*dev.txt"):
        split(tmp_path, ["a", "b", "c"])


def test_one_list_alone_is_refused(tmp_path):
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "dev.txt").write_text("a")
    with pytest.raises(ValueError, match="dev.txt is there, but .*train.txt.*eval.txt is not"):
        split(tmp_path, ["a", "b", "c"])


def test_a_repeated_id_and_a_byte_order_mark(tmp_path):
    (tmp_path / "metadata.csv").write_bytes("\ufeffa|A\u2028a\r\nb|B\r\n".encode())
    assert read_metadata(tmp_path) == {"a": "A\u2028a", "b": "B"}
    (tmp_path / "metadata.csv").write_text("a|A\na|B\n")
    with pytest.raises(ValueError, match="line 2: a is there twice"):
        read_metadata(tmp_path)


@pytest.mark.parametrize(
    ("train", "dev", "says"),
    [
        ("a r/a.wav", "a r/b.wav", "a is in "),
        ("a r/a.wav", "b r/../r/a.wav", "r/a.wav is in "),
        ("a r/a.wav", "b r/b.wav", ""),
    ],
)
def test_a_dump_that_evaluates_what_it_trains_on_is_refused(tmp_path, monkeypatch, train, dev, says):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "egs" / "ljspeech" / "voc1" / "local"))
    check_sets = importlib.import_module("check_corpus").check_sets
    (tmp_path / "r").mkdir()
    for name in "abc":
        soundfile.write(tmp_path / "r" / f"{name}.wav", np.zeros(100), RATE)
    for name, line in (("tr_no_dev", train), ("dev", dev), ("eval1", "c r/c.wav")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "wav.scp").write_text(line.replace("r/", f"{tmp_path}/r/", 1) + "\n")
    if not says:
        return check_sets(tmp_path)
    with pytest.raises(ValueError, match=says) as refusal:
        check_sets(tmp_path)
    assert all(str(tmp_path / name / "wav.scp") in str(refusal.value) for name in ("tr_no_dev", "dev"))
