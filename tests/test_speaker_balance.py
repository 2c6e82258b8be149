"""How often each recording is trained on: by the root of its speaker's seconds, up to a cap, and shuffled."""

from itertools import pairwise

import pytest

from melglow_plugin.training.speaker_balance import balanced_lines, copies, speaker_shares


def test_shares_follow_the_root_up_to_a_cap():
    assert speaker_shares({"a": 900.0, "b": 100.0}, 1.0) == pytest.approx({"a": 0.75, "b": 0.25})
    shares = speaker_shares({"a": 10_000.0, "b": 2500.0, "c": 100.0, "d": 100.0}, 0.4)
    assert shares == pytest.approx({"a": 0.4, "b": 0.4, "c": 0.1, "d": 0.1})
    assert speaker_shares({"a": 900.0, "b": 100.0}, 0.1) == pytest.approx({"a": 0.5, "b": 0.5})
    with pytest.raises(ValueError, match="cap of 0 is no share"):
        speaker_shares({"a": 1.0}, 0.0)


def test_a_speaker_counts_by_the_root_of_its_seconds_up_to_the_cap():
    seconds = {"a1": 16.0, "a2": 4.0, "b1": 5.0, **{f"long{i}": 10.0 for i in range(100)}}
    who = {key: key.rstrip("0123456789") for key in seconds}
    counts = copies(seconds, who, cap=0.5)
    total = {name: sum(n for key, n in counts.items() if who[key] == name) for name in ("a", "b", "long")}
    assert total["a"] == pytest.approx(2 * total["b"], rel=0.05)
    assert total["long"] == pytest.approx(total["a"] + total["b"], rel=0.05)
    assert counts["a1"] == pytest.approx(4 * counts["a2"], abs=2)


def test_the_list_is_bounded():
    counts = copies({"a": 1e-3, "b": 100.0}, {"a": "a", "b": "b"}, cap=1.0, most=500)
    assert sum(counts.values()) <= 502


def test_copies_have_ids_of_their_own_and_are_shuffled():
    paths = {"a": "/a.wav", "b": "/b.wav"}
    lines = balanced_lines(paths, {"a": 30, "b": 30})
    keys, files = zip(*(line.split() for line in lines), strict=True)
    assert len(set(keys)) == 60 and files.count("/a.wav") == 30
    assert "a" in keys and "a+29" in keys
    assert 10 < sum(x != y for x, y in pairwise(files)) < 50
