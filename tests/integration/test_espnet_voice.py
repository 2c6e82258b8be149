"""The released voice in unmodified ``espnet2.bin.tts_inference``: a sentence that is in no corpus, through MelGlow."""

import numpy as np
import pytest
from espnet_parts import ROOT, python

pytest.importorskip("espnet2")
pytest.importorskip("phonemizer")
espeak = pytest.importorskip("espeakng_loader")
soundfile = pytest.importorskip("soundfile")
VOICE = ROOT / "pretrained" / "fastspeech2_ljspeech"


@pytest.mark.skipif(not VOICE.is_dir(), reason="no released voice")
def test_tts_inference_synthesizes_with_the_released_voice(tmp_path):
    python(str(ROOT / "egs" / "ljspeech" / "tts1" / "voice.py"), "export", str(tmp_path / "voice"))
    python("-m", "melglow_plugin.cli", "export", "--format", "espnet", "-o", str(tmp_path / "melglow"))
    (tmp_path / "text").write_text("a Doctor Brown paid 250 dollars, did he?\n")
    python(
        "-m", "melglow_plugin.run", "-m", "espnet2.bin.tts_inference", "--output_dir", str(tmp_path / "decode"),
        "--data_path_and_name_and_type", f"{tmp_path / 'text'},text,text",
        "--train_config", str(tmp_path / "voice" / "config.yaml"),
        "--model_file", str(tmp_path / "voice" / "model.pth"),
        "--vocoder_file", str(tmp_path / "melglow" / "checkpoint.pkl"),
        PHONEMIZER_ESPEAK_LIBRARY=espeak.get_library_path(), ESPEAK_DATA_PATH=espeak.get_data_path(),
    )  # fmt: skip
    wav, rate = soundfile.read(tmp_path / "decode" / "wav" / "a.wav")
    feats = np.load(tmp_path / "decode" / "denorm" / "a.npy")
    assert rate == 22_050 and len(wav) == 256 * len(feats) and 2 < len(wav) / rate < 8
    assert np.sqrt(np.mean(wav**2)) > 0.01
