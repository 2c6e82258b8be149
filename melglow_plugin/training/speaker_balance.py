"""How often each recording of many speakers is trained on, so that no speaker has most of the training."""

import math
import random
from collections.abc import Mapping

from melglow_plugin.files import audio_info


def speaker_shares(seconds: Mapping[str, float], cap: float) -> dict[str, float]:
    """How much of the training each speaker gets, by the root of its ``seconds``; at most ``cap`` or an equal share."""
    if not 0 < cap <= 1:
        raise ValueError(f"a speaker's cap of {cap:g} is no share of the training, above 0 and up to 1")
    roots = {name: math.sqrt(each) for name, each in seconds.items()}
    cap, capped = max(cap, 1 / len(roots)), set()
    while True:
        rest = sum(root for name, root in roots.items() if name not in capped)
        left = 1 - cap * len(capped)
        shares = {name: cap if name in capped else left * root / rest for name, root in roots.items()}
        above = {name for name, share in shares.items() if share > cap * (1 + 1e-9)}
        if not above:
            return shares
        capped |= above


def copies(seconds: Mapping[str, float], speakers: Mapping[str, str], cap: float, most: int = 50_000) -> dict[str, int]:
    """How often a balanced list names each recording: its speaker's share, by its part of the speaker's seconds.

    Args:
        seconds: id -> length.
        speakers: id -> speaker.
        cap: largest share of one speaker (:func:`speaker_shares`).
        most: lines of the list, about.
    """
    total: dict[str, float] = {}
    for key, length in seconds.items():
        total[speakers[key]] = total.get(speakers[key], 0.0) + length
    shares = speaker_shares(total, cap)
    weight = {key: length * shares[speakers[key]] / total[speakers[key]] for key, length in seconds.items()}
    unit = max(min(weight.values()), 1 / most)
    return {key: max(1, round(each / unit)) for key, each in weight.items()}


def balanced_lines(paths: Mapping[str, str], counts: Mapping[str, int], seed: int = 0) -> list[str]:
    """Lines of a ``wav.scp`` with ``counts`` of each recording, under ids of their own, shuffled.

    ESPnet's reader makes a batch of neighbours, so copies must not stand together.
    """
    lines = [f"{key}{f'+{copy}' if copy else ''} {path}" for key, path in paths.items() for copy in range(counts[key])]
    random.Random(seed).shuffle(lines)
    return lines


def seconds_of(paths: Mapping[str, str]) -> dict[str, float]:
    """id -> length in seconds, from the headers."""
    return {key: audio_info(path).duration for key, path in paths.items()}
