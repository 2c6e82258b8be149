"""Speakers in Coqui TTS: FastPitch and Glow-TTS of several voices synthesize through the universal model.

Of Coqui's voice conversion, FreeVC and OpenVoice make their wav themselves; kNN-VC hands WavLM features to a vocoder.
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("TTS")

from coqui_parts import SENTENCE, SILENCE, UNITS, options, python, save, synthesizer
from TTS.config import register_config
from TTS.config.shared_configs import BaseAudioConfig
from TTS.tts.models import setup_model
from TTS.tts.utils.text.tokenizer import TTSTokenizer

from melglow_plugin import MelConvention, Vocoder
from melglow_plugin.checkpoint.pretrained import pretrained_model
from melglow_plugin.cli import main as melglow

NAMES = ["anna", "bob", "carl"]
AUDIO = {"mel_fmin": 0.0, "mel_fmax": 8000.0, "do_trim_silence": False, **UNITS["recipes"]}  # of Coqui's VCTK recipes
SMALL = {
    "fast_pitch": {"hidden_channels": 16},
    "glow_tts": {"hidden_channels_enc": 16, "hidden_channels_dec": 16, "hidden_channels_dp": 16,
                 "num_flow_blocks_dec": 2, "num_block_layers": 1, "use_encoder_prenet": False},
}  # fmt: skip
LAYERS = {"hidden_channels_ffn": 16, "num_layers": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def universal(tmp_path_factory) -> Path:
    """The released model for any voice, as exported for Coqui."""
    folder = tmp_path_factory.mktemp("universal")
    assert melglow(["export", str(pretrained_model()), "--format", "coqui", "-o", str(folder / "coqui")]) == 0
    return folder


def several_voices(folder: Path, kind: str) -> tuple[Path, Path]:
    """A model of three speakers with random weights, as Coqui's trainer would leave it."""
    config = register_config(kind)(
        text_cleaner="english_cleaners", use_phonemes=False, audio=BaseAudioConfig(**AUDIO),
        use_speaker_embedding=True, speakers=NAMES,
    )  # fmt: skip
    sizes = config if kind == "glow_tts" else config.model_args
    for name, value in SMALL[kind].items():
        setattr(sizes, name, value)
    for name in ("encoder_params", "decoder_params"):
        if hasattr(sizes, name):
            getattr(sizes, name).update(LAYERS)
    _, config = TTSTokenizer.init_from_config(config)
    torch.manual_seed(0)
    model = setup_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        durations = model.encoder.duration_predictor if kind == "glow_tts" else model.duration_predictor
        durations.proj.bias.fill_(1.5)  # a letter lasts a few frames
    return save(model, folder)


@pytest.mark.parametrize("kind", SMALL)
def test_each_speaker_has_a_wav_of_its_own(universal, tmp_path, kind, monkeypatch):
    host = synthesizer(universal, several_voices(tmp_path, kind))
    mels, run = [], host._run_vocoder
    monkeypatch.setattr(host, "_run_vocoder", lambda mel, device: mels.append(mel.detach().T) or run(mel, device))
    direct = Vocoder.from_pretrained(pretrained_model())
    torch.manual_seed(0)
    for name in NAMES[:2]:
        wav = torch.tensor(np.array(host.tts(SENTENCE, speaker_name=name)))[:-SILENCE].float()
        expected = direct(MelConvention.coqui(AUDIO).convert(mels[-1], direct.convention), seed=0)
        torch.testing.assert_close(wav, expected, atol=1e-3 * float(expected.std()), rtol=0)
        assert host.output_sample_rate == 22_050 and len(wav) > 10 * 256
    frames = min(mel.shape[1] for mel in mels)
    assert (mels[0][:, :frames] - mels[1][:, :frames]).abs().max() > 1e-3


def test_the_command_line_takes_a_speaker(universal, tmp_path):
    acoustic = several_voices(tmp_path, "fast_pitch")
    said = ["--text", SENTENCE, "--speaker_idx", "bob", "--out_path", "out.wav"]
    python("-m", "TTS.bin.synthesize", *said, *options(universal, acoustic), cwd=tmp_path)
    wav, rate = soundfile.read(tmp_path / "out.wav")
    expected = np.array(synthesizer(universal, acoustic).tts(SENTENCE, speaker_name="bob"))
    assert rate == 22_050
    np.testing.assert_allclose(wav / np.abs(wav).max(), expected / np.abs(expected).max(), atol=1e-4)


def test_features_of_voice_conversion_are_refused_in_words(universal):
    """kNN-VC hands its vocoder (1, F, 1024), features of WavLM: no mel."""
    from TTS.config import load_config
    from TTS.vocoder.models import setup_model as setup_vocoder

    vocoder = setup_vocoder(load_config(universal / "coqui" / "config.json"))
    vocoder.load_checkpoint(vocoder.config, universal / "coqui" / "model.pth", eval=True)
    with pytest.raises(ValueError, match=r"features of WavLM arrived, of shape \(1, 50, 1024\).*kNN-VC"):
        vocoder.inference(torch.zeros(1, 50, 1024))
