"""Boundaries of phones by pocketsphinx, whose wheel holds its model of US English, as durations of tokens."""

from itertools import pairwise
from pathlib import Path

import numpy as np
from phones import SEPARATORS, SPACE, Sound, words_of

from melglow_plugin.checks import naming

RATE, HOP = 22_050, 256  # Hz, samples: of the acoustic model
FRAME = 0.01  # s, from one frame of the recogniser to the next
CENTRE = 0.0078  # s, from the start of a frame to the middle between its window's centre and the window before
LEAD = 2 * HOP  # samples of silence kept before the first word


def seconds(frame: int) -> float:
    return frame * FRAME + CENTRE


class Aligner:
    """pocketsphinx, given the words of an utterance, says where each phone begins and ends.

    Raises:
        ImportError: the package is missing; names it.
    """

    def __init__(self, pronunciations: set[str], dictionary: Path) -> None:
        try:
            import pocketsphinx
        except ModuleNotFoundError as error:
            raise ImportError("the alignment needs pocketsphinx: pip install pocketsphinx") from error
        self.names = {phones: f"w{i}" for i, phones in enumerate(sorted(pronunciations))}
        dictionary.write_text("".join(f"{name} {phones}\n" for phones, name in self.names.items()))
        model = Path(pocketsphinx.get_model_path()) / "en-us" / "en-us"
        self.decoder = pocketsphinx.Decoder(
            hmm=str(model), dict=str(dictionary), lm=None, samprate=16_000, cmn="batch", loglevel="FATAL",
            bestpath=False, beam=1e-80, wbeam=1e-60, pbeam=1e-80,
        )  # fmt: skip

    def __call__(self, wav: np.ndarray, words: list[str]) -> list[list[tuple[float, float]]]:
        """Start and end in seconds of each phone of each word; ``wav`` at 16 kHz, ``words`` as pronunciations."""
        if not words:
            raise ValueError("no word in its text")
        samples = (np.clip(wav / np.abs(wav).max(), -1, 1) * 32_000).astype("<i2").tobytes()
        self.decoder.set_align_text(" ".join(self.names[word] for word in words))
        self._pass(samples)
        self.decoder.set_alignment()
        self._pass(samples)
        # Entries are read as they come: pocketsphinx frees them with their iterator.
        found = [
            (word.name, [(seconds(phone.start), seconds(phone.start + phone.duration)) for phone in word])
            for word in self.decoder.get_alignment()
        ]
        found = [times for name, times in found if name[0] == "w"]
        if len(found) != len(words):
            raise ValueError(f"{len(found)} words found, {len(words)} are spoken")
        return found

    def _pass(self, samples: bytes) -> None:
        self.decoder.start_utt()
        self.decoder.process_raw(samples, full_utt=True)
        self.decoder.end_utt()


def words_by_id(tokens: dict[str, list[str]]) -> dict[str, list[list[Sound]]]:
    """The words of each text, whose tokens are given by id; ValueError names the id of one with an unknown token."""
    found = {}
    for key, each in tokens.items():
        with naming(key):
            found[key] = words_of(each)
    return found


def pronunciation(word: list[Sound]) -> str:
    return " ".join(sound.phones for sound in word)


def boundaries(words: list[list[Sound]], times: list[list[tuple[float, float]]]) -> dict[int, tuple[float, float]]:
    """Start and end in seconds of each token that lasts: the letters of a diphthong share its time equally."""
    spans = {}
    for word, phones in zip(words, times, strict=True):
        phones = iter(phones)
        for sound in word:
            own = [next(phones) for _ in sound.phones.split()]
            edges = np.linspace(own[0][0], own[-1][1], len(sound.tokens) + 1)
            spans.update(zip(sound.tokens, pairwise(edges), strict=False))
    return spans


def durations(tokens: list[str], spans: dict[int, tuple[float, float]], offset: float, frames: int) -> list[int]:
    """Frames of each token and of the end of the sentence; together ``frames``.

    A pause belongs to the first punctuation mark in it, or to the space; the silence after the last word to the end.
    """
    starts, spoken = np.zeros(len(tokens) + 2), sorted(spans)
    pauses = {}
    for before, after in pairwise(spoken):
        between = [i for i in range(before + 1, after) if tokens[i] in SEPARATORS]
        if between:
            pauses[next((i for i in between if tokens[i] != SPACE), between[0])] = spans[before][1]
    at = 0.0
    for i in range(len(tokens)):
        if i in spans:
            at = spans[i][0] if i != spoken[0] else 0.0
        elif i in pauses:
            at = pauses[i]
        elif i < spoken[-1]:
            following = min(j for j in [*spans, *pauses] if j > i)
            at = spans[following][0] if following in spans else pauses[following]
            at = 0.0 if following == spoken[0] else at
        else:
            at = spans[spoken[-1]][1]
        starts[i] = max(at - offset, 0.0)
    starts[len(tokens)] = spans[spoken[-1]][1] - offset
    edges = np.minimum(np.ceil(starts * RATE / HOP), frames).astype(int)  # frame f is centred at sample f * HOP
    edges[0], edges[-1] = 0, frames
    return np.diff(edges).tolist()
