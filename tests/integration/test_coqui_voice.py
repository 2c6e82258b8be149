"""The released voice in unmodified ``tts`` and ``TTS.api``: sentences that are in no corpus, through MelGlow."""

import numpy as np
import pytest

pytest.importorskip("TTS")
pytest.importorskip("gruut")

import soundfile
from coqui_parts import ROOT, SILENCE, python
from TTS.api import TTS

from melglow_plugin.cli import main as melglow

VOICE = ROOT / "pretrained" / "fastpitch_ljspeech"


@pytest.mark.skipif(not VOICE.is_dir(), reason="no released voice")
def test_tts_synthesizes_with_the_released_voice(tmp_path):
    recipe, vocoder = ROOT / "egs" / "ljspeech" / "coqui", ROOT / "pretrained" / "melglow_universal"
    python(str(recipe / "fastpitch.py"), "export", str(tmp_path / "voice"), cwd=tmp_path)
    assert melglow(["export", str(vocoder), "--format", "coqui", "-o", str(tmp_path / "melglow")]) == 0
    files = [tmp_path / part / name for part in ("voice", "melglow") for name in ("model.pth", "config.json")]
    names = ("model_path", "config_path", "vocoder_path", "vocoder_config_path")
    text = "Doctor Brown paid 250 dollars, did he?"
    options = [part for name, file in zip(names, files, strict=True) for part in (f"--{name}", str(file))]
    python("-m", "TTS.bin.synthesize", "--text", text, "--out_path", str(tmp_path / "a.wav"), *options, cwd=tmp_path)
    wav, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == 22_050 and (len(wav) - SILENCE) % 256 == 0 and 2 < len(wav) / rate < 8
    assert np.sqrt(np.mean(wav**2)) > 0.01
    TTS(**dict(zip(names, map(str, files), strict=True))).tts_to_file(text, file_path=str(tmp_path / "b.wav"))
    np.testing.assert_array_equal(soundfile.read(tmp_path / "b.wav")[0], wav)
