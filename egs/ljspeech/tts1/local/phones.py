"""Tokens of ESPnet's ``espeak_ng_english_us_vits`` (one IPA letter each) and the ARPAbet phones of a recogniser."""

from dataclasses import dataclass

SPACE = "<space>"
STRESS = "ˈˌ"
SEPARATORS = {SPACE, *',.;:!?"()-'}  # between words; they carry the pauses
PHONES = {
    "tʃ": "CH", "dʒ": "JH", "n̩": "AH N", "l̩": "AH L",
    "aɪ": "AY", "aʊ": "AW", "eɪ": "EY", "oʊ": "OW", "ɔɪ": "OY",
    "ɔː": "AO", "oː": "AO", "ɑː": "AA", "iː": "IY", "uː": "UW", "ɜː": "ER", "ɚ": "ER", "ɜ": "ER",
    "ə": "AH", "ɐ": "AH", "ʌ": "AH", "ɪ": "IH", "ᵻ": "IH", "i": "IY", "u": "UW", "ʊ": "UH", "ɛ": "EH", "æ": "AE",
    "ɔ": "AO", "ɑ": "AA", "o": "OW", "e": "EY", "a": "AA", "ɾ": "T", "ʔ": "T", "ɹ": "R", "r": "R", "ɡ": "G", "j": "Y",
    "h": "HH", "ð": "DH", "θ": "TH", "ŋ": "NG", "ʃ": "SH", "ʒ": "ZH", "x": "K", "ɬ": "L",
    **{letter: letter.upper() for letter in "bdfklmnpstvwz"},
}  # fmt: skip


@dataclass(frozen=True)
class Sound:
    """A stretch of tokens that the recogniser knows as one phone, or as two."""

    phones: str  # ARPAbet, space-separated
    tokens: tuple[int, ...]  # indices of the tokens that last; stress and length marks do not


def words_of(tokens: list[str]) -> list[list[Sound]]:
    """The words between separators, each as its sounds.

    Raises:
        ValueError: a token that is no separator, stress mark or known letter.
    """
    words, word, at = [], [], 0
    while at < len(tokens):
        if tokens[at] in SEPARATORS:
            words, word, at = words + [word] * bool(word), [], at + 1
        elif tokens[at] in STRESS:
            at += 1
        else:
            size = 2 if "".join(tokens[at : at + 2]) in PHONES else 1
            letters = "".join(tokens[at : at + size])
            if letters not in PHONES:
                raise ValueError(f"token {tokens[at]!r} has no ARPAbet phone")
            marks = sum(letter in "ː̩" for letter in letters)
            word.append(Sound(PHONES[letters], tuple(range(at, at + size - marks))))
            at += size
    return words + [word] * bool(word)
