"""The text settings of ESPnet's own LJSpeech recipe, unmodified: cleaner tacotron, phonemes by g2p_en_no_space."""

import pytest

pytest.importorskip("espnet2")
TEXT = "Dr. Smith paid $5."
PHONEMES = ["D", "AA1", "K", "T", "ER0", "S", "M", "IH1", "TH"]
TOKENS = ["<blank>", "<unk>", *PHONEMES, "<sos/eos>"]


@pytest.fixture
def preprocessor():
    """What the recipe's training and inference make of text, as ``espnet2.bin.tts_inference`` builds it."""
    from espnet2.train.preprocessor import CommonPreprocessor

    return CommonPreprocessor(
        train=False, token_type="phn", token_list=TOKENS, text_cleaner="tacotron", g2p_type="g2p_en_no_space"
    )


def test_the_cleaner_is_there(preprocessor):
    assert preprocessor.text_cleaner(TEXT) == "DOCTOR SMITH PAID FIVE DOLLARS."


def test_words_become_phonemes(preprocessor):
    pytest.importorskip("g2p_en")
    import nltk

    for data in ("corpora/cmudict", "taggers/averaged_perceptron_tagger_eng"):
        try:
            nltk.data.find(f"{data}.zip")
        except LookupError:
            pytest.skip(f"NLTK has no {data} here: python -m nltk.downloader cmudict averaged_perceptron_tagger_eng")
    numbers = preprocessor("a", {"text": "Dr. Smith"})["text"]
    assert [TOKENS[number] for number in numbers] == PHONEMES
