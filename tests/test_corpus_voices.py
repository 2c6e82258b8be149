import os
from dataclasses import replace

import numpy as np
import pytest

from melglow_plugin.files import audio_info, check_id
from melglow_plugin.training.corpus_voices import (
    Recording,
    at_rate,
    check_sets,
    hold_out,
    hold_out_recordings,
    read_source,
)

soundfile = pytest.importorskip("soundfile")
RATE = 22_050


def write(path, frequency=200.0, rate=RATE, seconds=0.5, level=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, level * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate), rate)
    return path


def speakers(source):
    return [(each.path.name, each.speaker) for each in read_source(source)]


# Where recordings are listed


def test_a_folder_names_its_speakers_by_folders(tmp_path):
    for name in ("anna/a.wav", "bob/wavs/b.flac"):
        write(tmp_path / name)
    (tmp_path / "anna" / "notes.txt").write_text("no recording")
    assert speakers(tmp_path) == [("a.wav", "anna"), ("b.flac", "bob")]


def test_folders_and_recordings_may_be_links_and_the_folders_of_the_links_name_the_speakers(tmp_path):
    write(tmp_path / "store/x/a.wav")
    write(tmp_path / "store/y.wav")
    corpus = tmp_path / "corpus"
    for speaker in ("bob", "carl"):
        (corpus / speaker).mkdir(parents=True)
    (corpus / "anna").symlink_to(tmp_path / "store/x")
    (corpus / "bob/1.wav").symlink_to(tmp_path / "store/y.wav")
    write(corpus / "carl/c.wav")
    (corpus / "carl/._c.wav").write_bytes(b"macOS writes these")
    wanted = [("a.wav", "anna"), ("y.wav", "bob"), ("c.wav", "carl")]
    assert speakers(corpus) == wanted
    (tmp_path / "list.txt").write_text("corpus/anna/a.wav\ncorpus/bob/1.wav\ncorpus/carl/c.wav\n")
    assert speakers(tmp_path / "list.txt") == wanted


def test_ids_keep_letters_of_every_script(tmp_path):
    names = ("王", "李", "हिन्दी", "Zoë", "a b/c(1)")
    ids = [Recording(tmp_path / "1.wav", name).key for name in names]
    assert ids == ["王-1", "李-1", "हिन्दी-1", "Zo\u00eb-1", "a_b_c_1_-1"]
    assert all(check_id(each, "") == each for each in ids)


@pytest.mark.parametrize(
    "text", ["anna/a.wav|Anna\n", "anna/a.wav\tAnna\n", "anna/a,Anna\n", "speaker,file\nAnna,anna/a.wav\n"]
)
def test_a_table_names_path_and_speaker(tmp_path, text):
    write(tmp_path / "anna/a.wav")
    (tmp_path / "list.csv").write_text(text)
    assert speakers(tmp_path / "list.csv") == [("a.wav", "Anna")]


def test_a_plain_list_takes_speakers_from_the_sources_above(tmp_path):
    write(tmp_path / "flac/x/a.wav")
    (tmp_path / "SOURCES.csv").write_text(
        "file,corpus,speaker,sex,language,f0_median_hz\nflac/x/a.wav,vctk,p1,,en-GB,110\n"
    )
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/eval.txt").write_text("flac/x/a.wav\n")
    assert read_source(tmp_path / "splits/eval.txt") == [Recording(tmp_path / "flac/x/a.wav", "vctk_p1", "M", "en")]


def test_a_kaldi_folder_gives_utt2spk(tmp_path):
    write(tmp_path / "recipe/dump/x/a.flac")
    folder = tmp_path / "recipe/dump/raw/dev"
    folder.mkdir(parents=True)
    (folder / "wav.scp").write_text("p1_a dump/x/a.flac\n")  # from the recipe's folder, as ESPnet writes it
    (folder / "utt2spk").write_text("p1_a p1\n")
    assert read_source(folder) == [Recording(tmp_path / "recipe/dump/x/a.flac", "p1")]
    (folder / "utt2spk").write_text("p1_b p1\n")
    with pytest.raises(ValueError, match="no speaker of p1_a"):
        read_source(folder)


@pytest.mark.parametrize(
    "text, words", [("a.wav|\n", "line 1: 'a.wav|' has no speaker"), ("none.wav\n", "none.wav is no file below")]
)
def test_a_wrong_line_is_named(tmp_path, text, words):
    write(tmp_path / "a.wav")
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError, match=words.replace("|", r"\|")):
        read_source(tmp_path / "list.txt")


def test_an_empty_source_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no recordings"):
        read_source(tmp_path)
    with pytest.raises(ValueError, match="neither a folder nor a list"):
        read_source(tmp_path / "nothing")


def test_recordings_of_other_kinds_are_passed_over_by_name(tmp_path):
    write(tmp_path / "anna" / "a.wav")
    for name in ("b.m4a", "._c.m4a", "notes.txt"):
        (tmp_path / "anna" / name).touch()
    with pytest.warns(UserWarning, match=r"b\.m4a: passed over, 1 such in .*; read are \.flac, \.wav") as found:
        assert [each.path.name for each in read_source(tmp_path)] == ["a.wav"]
    assert len(found) == 1


# Sets


def test_whole_speakers_are_held_out_and_stay_so_in_a_larger_corpus(tmp_path):
    def corpus(count):
        return [Recording(tmp_path / f"{s}-{i}.wav", f"s{s}") for s in range(count) for i in range(2)]

    parts = hold_out(corpus(40), share=0.05)
    names = [{each.speaker for each in part} for part in parts]
    assert [len(each) for each in names] == [36, 2, 2]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    assert sum(map(len, parts)) == 80
    later = hold_out(corpus(41), share=0.05)
    assert len({each.speaker for each in later[1]} & names[1]) >= 1


def test_two_speakers_are_too_few():
    with pytest.raises(ValueError, match="2 speakers .*--same_speakers true holds recordings out"):
        hold_out([Recording("a.wav", "a"), Recording("b.wav", "b")])


def test_recordings_of_one_voice_are_held_out_and_stay_so_in_a_larger_corpus(tmp_path):
    def corpus(count):
        return [Recording(tmp_path / f"{i:03}.wav", "anna") for i in range(count)]

    held_out, trained = set(), set()
    for count in (3, 4, 20, 40, 100, 104, 400, 2000, 4000):
        train, dev, evaluated = ({each.key for each in part} for part in hold_out_recordings(corpus(count)))
        assert len(train | dev | evaluated) == len(train) + len(dev) + len(evaluated) == count and train
        assert all(
            max(1, count // 50) <= len(part) <= max(1, count // 12) or len(part) == 50 for part in (dev, evaluated)
        )
        assert not trained & (dev | evaluated)  # a model that is trained on would be scored on its own recordings
        assert count < 100 or held_out & dev
        trained, held_out = trained | train, dev
    assert len(dev) == len(evaluated) == 50
    with pytest.raises(ValueError, match="2 recordings .*three are needed"):
        hold_out_recordings(corpus(2))


def test_recordings_of_one_id_are_all_there_for_the_check(tmp_path):
    """Of two sessions, say: none is dropped without a word, and the check names both."""
    pairs = [Recording(tmp_path / session / f"{i}.wav", "anna") for session in "ab" for i in range(5)]
    assert sorted(each.path for part in hold_out_recordings(pairs) for each in part) == [each.path for each in pairs]


def test_a_recording_in_two_sets_is_refused_even_under_another_name(tmp_path):
    train = [Recording(write(tmp_path / "a.wav"), "anna")]
    soundfile.write(tmp_path / "copy.flac", soundfile.read(tmp_path / "a.wav", dtype="int16")[0], RATE)
    same = [Recording(tmp_path / "copy.flac", "bob")]
    with pytest.raises(ValueError, match=r"copy\.flac of eval is the recording .*a\.wav of train"):
        check_sets({"train": train, "eval": same})


def test_a_speaker_in_two_sets_is_refused_unless_allowed(tmp_path):
    train = [Recording(write(tmp_path / "a.wav"), "anna")]
    held_out = [Recording(write(tmp_path / "b.wav", 300), "anna")]
    with pytest.raises(ValueError, match="speaker anna is in train and in eval"):
        check_sets({"train": train, "eval": held_out})
    assert check_sets({"train": train, "eval": held_out}, speakers_apart=False) == {"train": [], "eval": []}


def test_a_duplicate_is_named_with_its_first(tmp_path):
    pair = [Recording(write(tmp_path / name), "anna") for name in ("a.wav", "b.wav")]
    ((key, reason),) = check_sets({"train": pair})["train"]
    assert key == "anna-b" and "a.wav" in reason


def test_two_recordings_of_one_id_are_refused(tmp_path):
    pair = [Recording(write(tmp_path / folder / "a.wav", hz), "anna") for folder, hz in (("x", 200), ("y", 300))]
    with pytest.raises(ValueError, match="one id, anna-a"):
        check_sets({"train": pair})


# One sample rate


def test_another_rate_is_resampled_once(tmp_path):
    source = Recording(write(tmp_path / "a.wav", 440, 48_000, level=0.999), "anna")
    copy = at_rate(source, RATE, tmp_path / "audio")
    wav, rate = soundfile.read(copy.path)
    assert rate == RATE and copy.speaker == "anna"
    expected = np.sin(2 * np.pi * 440 * np.arange(len(wav)) / RATE)
    middle = slice(1000, -1000)
    assert np.abs(wav[middle] / np.abs(wav[middle]).max() - expected[middle]).max() < 0.01
    assert np.abs(wav).max() < 0.999  # not clipped: stage 1 would leave it out
    made = copy.path.stat().st_mtime_ns
    assert at_rate(source, RATE, tmp_path / "audio").path.stat().st_mtime_ns == made


def test_a_copy_is_of_these_samples_at_this_rate(tmp_path):
    first = Recording(write(tmp_path / "one/a.wav", 440, 48_000), "anna")
    other = Recording(write(tmp_path / "other/a.wav", 440, 48_000, seconds=0.8), "anna")
    os.utime(other.path, (0, 0))  # older than the copy of the first
    found = [
        at_rate(each, rate, tmp_path / "audio").path for each, rate in ((first, RATE), (other, RATE), (first, 24_000))
    ]
    assert [(audio_info(path).samplerate, round(audio_info(path).duration, 3)) for path in found] == [
        (RATE, 0.5), (RATE, 0.8), (24_000, 0.5),
    ]  # fmt: skip


def test_the_right_rate_stays_and_a_lower_one_is_refused(tmp_path):
    source = Recording(write(tmp_path / "a.wav"), "anna")
    assert at_rate(source, RATE, tmp_path) == source
    with pytest.raises(ValueError, match="16000 Hz, wanted 22050 Hz"):
        at_rate(replace(source, path=write(tmp_path / "b.wav", rate=16_000)), RATE, tmp_path)


def test_what_cannot_be_read_stays_for_stage_1_to_leave_out(tmp_path):
    broken = write(tmp_path / "nan.wav", rate=24_000)
    soundfile.write(broken, np.full(20_000, np.nan), 24_000, subtype="FLOAT")
    (tmp_path / "empty.wav").touch()
    for path in (broken, tmp_path / "empty.wav"):
        source = Recording(path, "anna")
        assert at_rate(source, RATE, tmp_path / "audio") == source
