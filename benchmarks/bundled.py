"""The bundled LJSpeech recordings."""

from pathlib import Path

CORPUS = Path(__file__).parents[1] / "egs" / "ljspeech" / "voc1" / "corpus"
CLIPS = sorted((CORPUS / "wavs").glob("*.flac"))
HELD_OUT = [CORPUS / "wavs" / f"{key}.flac" for key in (CORPUS / "splits" / "eval.txt").read_text().split()]
