"""A listening test of two systems in one HTML file: order and names are hidden until the answers are in."""

import json
import secrets
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from melglow_plugin.evaluation.clips import Clip, System, levelled, spread
from melglow_plugin.evaluation.page import asset, document
from melglow_plugin.files import audio_bytes, write_bytes

RECORDING = System("recording")


def write_blind(
    path: Path, recordings: Mapping[str, Path], systems: Mapping[str, Mapping[str, Path]], clips: int
) -> Path:
    """Write the page.

    Both copies of a clip are played at the level of its recording and cut to one length. Which is which stands in the
    page in base64, so that no name, order or source text tells it at a glance; it is not encrypted.

    Args:
        recordings: id -> the recording.
        systems: two, name -> id -> the copy; the ids of ``recordings``.
        clips: how many at most, spread evenly over the sorted ids.

    Raises:
        ValueError: there are not two systems, or no clip; or a clip's files differ in sample rate.
    """
    if len(systems) != 2:
        raise ValueError(f"a blind test compares 2 systems, not {len(systems)}: {', '.join(systems)}")
    keys = spread(sorted(recordings), clips)
    if not keys:
        raise ValueError("a blind test needs a clip")
    trials, first = [], [secrets.randbelow(2) for _ in keys]
    for key, swapped in zip(keys, first, strict=True):
        wavs = {name: copies[key] for name, copies in systems.items()}
        trials.append({"clip": key, **_trial(Clip(key, "", {RECORDING.name: recordings[key], **wavs}), swapped)})
    answers = {"systems": list(systems), "first": first}
    data = {"trials": trials, "key": b64encode(json.dumps(answers).encode()).decode()}
    script = asset("blind.js").replace("DATA", json.dumps(data).replace("</", "<\\/"), 1)
    html = document("Blind listening test", asset("blind.html"), asset("blind.css"), script)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, html.encode())
    return path


def _trial(clip: Clip, swapped: int) -> dict[str, str]:
    """Base64 of FLACs: of the recording, and of both copies in the order of the systems or, ``swapped``, the other."""
    wavs, rate = levelled(clip, [System(name) for name in clip.wavs])
    recording, *copies = wavs.values()
    length = min(map(len, copies))
    one, two = (copy[:length] for copy in (copies[::-1] if swapped else copies))
    files = {"reference": recording, "one": one, "two": two}
    return {name: b64encode(audio_bytes(wav, rate, "FLAC")).decode() for name, wav in files.items()}
