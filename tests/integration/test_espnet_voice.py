"""The released voice through ESPnet's own commands, unmodified: a sentence that is in no corpus, through MelGlow."""

from pathlib import Path

import numpy as np
import pytest
from espnet_parts import ROOT, python

pytest.importorskip("espnet2")
pytest.importorskip("phonemizer")
espeak = pytest.importorskip("espeakng_loader")
soundfile = pytest.importorskip("soundfile")
VOICE = ROOT / "pretrained" / "fastspeech2_ljspeech"
pytestmark = pytest.mark.skipif(not VOICE.is_dir(), reason="no released voice")
SENTENCE = "Doctor Brown paid 250 dollars, did he?"
ESPEAK = {"PHONEMIZER_ESPEAK_LIBRARY": espeak.get_library_path(), "ESPEAK_DATA_PATH": espeak.get_data_path()}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> Path:
    """A folder with the voice and the vocoder as ESPnet's files, and what tts_inference made of the sentence."""
    folder = tmp_path_factory.mktemp("spoken")
    python(str(ROOT / "egs" / "ljspeech" / "tts1" / "voice.py"), "export", str(folder / "voice"))
    python("-m", "melglow_plugin.cli", "export", "--format", "espnet", "-o", str(folder / "melglow"))
    (folder / "text").write_text(f"a {SENTENCE}\n")
    python(
        "-m", "melglow_plugin.run", "-m", "espnet2.bin.tts_inference", "--output_dir", str(folder / "decode"),
        "--data_path_and_name_and_type", f"{folder / 'text'},text,text",
        "--train_config", str(folder / "voice" / "config.yaml"), "--model_file", str(folder / "voice" / "model.pth"),
        "--vocoder_file", str(folder / "melglow" / "checkpoint.pkl"), **ESPEAK,
    )  # fmt: skip
    return folder


def assert_same(path: Path, spoken: Path) -> None:
    """The same samples as tts_inference's, within a step of 16 bits."""
    wav, rate = soundfile.read(path)
    expected, _ = soundfile.read(spoken / "decode" / "wav" / "a.wav")
    assert rate == 22_050
    np.testing.assert_allclose(wav, expected, atol=1.01 / 32768)


def test_tts_inference_synthesizes_with_the_released_voice(spoken):
    wav, rate = soundfile.read(spoken / "decode" / "wav" / "a.wav")
    feats = np.load(spoken / "decode" / "denorm" / "a.npy")
    assert rate == 22_050 and len(wav) == 256 * len(feats) and 2 < len(wav) / rate < 8
    assert np.sqrt(np.mean(wav**2)) > 0.01


def test_espnet_synthesize_says_it_from_a_pack(spoken, tmp_path):
    voice = spoken / "voice"
    statistics = [part for path in sorted(voice.glob("*.npz")) for part in ("--option", str(path))]
    python("-m", "espnet2.bin.pack", "tts", "--train_config", str(voice / "config.yaml"), "--model_file",
           str(voice / "model.pth"), *statistics, "--outpath", str(tmp_path / "tts.zip"))  # fmt: skip
    python("-m", "melglow_plugin.espnet.pack", str(tmp_path / "tts.zip"), "--vocoder_file",
           str(spoken / "melglow" / "checkpoint.pkl"), "-o", str(tmp_path / "voice.zip"))  # fmt: skip
    python("-m", "melglow_plugin.run", "-m", "espnet2.bin.cli", "synthesize", SENTENCE, "--model",
           str(tmp_path / "voice.zip"), "-o", str(tmp_path / "a.wav"), **ESPEAK)  # fmt: skip
    assert_same(tmp_path / "a.wav", spoken)


def test_the_infer_stage_of_espnet3_says_it(spoken, tmp_path):
    pytest.importorskip("lightning")
    pytest.importorskip("distributed")
    settings = {"voice": spoken / "voice", "vocoder": spoken / "melglow", "text": spoken / "text", "exp_dir": tmp_path}
    (tmp_path / "conf.yaml").write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
    python("-m", "melglow_plugin.espnet.espnet3.tts", "--stages", "infer", "--inference_config",
           str(tmp_path / "conf.yaml"), **ESPEAK)  # fmt: skip
    key, path = (tmp_path / "espnet3" / "sentences" / "wav.scp").read_text().split()
    assert key == "a"
    assert_same(Path(path), spoken)
