"""Fine-tuning on what Coqui's unmodified ``extract_tts_spectrograms`` writes (ground-truth-aligned mels)."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import speech

pytest.importorskip("TTS")

from coqui_parts import AUDIO, SIZES, UNITS, glow_tts, save
from TTS.bin import extract_tts_spectrograms, train_vocoder
from TTS.config.shared_configs import BaseAudioConfig, BaseDatasetConfig
from TTS.tts.configs.tacotron2_config import Tacotron2Config
from TTS.tts.models.tacotron2 import Tacotron2
from TTS.utils.audio import AudioProcessor
from TTS.vocoder.datasets.preprocess import load_wav_feat_data

from melglow_plugin.coqui.config import MelglowConfig
from melglow_plugin.coqui.model import Melglow

TEXT = "it is warm."
LENGTHS = (0.5, 0.56, 0.63)  # seconds


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Three recordings with silence around them, as an LJSpeech tree."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "wavs").mkdir()
    for index, seconds in enumerate(LENGTHS):
        wav = np.pad((0.5 + 0.1 * index) * speech(seconds).numpy(), 2000)
        soundfile.write(folder / "wavs" / f"{index}.wav", wav, 22_050, subtype="PCM_16")
    (folder / "metadata.csv").write_text("".join(f"{index}|{TEXT}|{TEXT}\n" for index in range(len(LENGTHS))))
    return folder


def tacotron2(folder: Path, corpus: Path, **audio) -> tuple[Path, Path]:
    """A Tacotron 2 that knows the corpus by heart: random weights, and a last layer solved for by least squares."""
    config = Tacotron2Config(
        audio=BaseAudioConfig(**{**AUDIO, **UNITS["recipes"], **audio}), text_cleaner="english_cleaners", r=1,
        use_phonemes=False, batch_size=2, num_loader_workers=0, eval_split_size=1, datasets=[dataset(corpus)],
    )  # fmt: skip
    torch.manual_seed(0)
    model = Tacotron2.init_from_config(config).eval()
    ap, last, inputs, mels = AudioProcessor(config.audio), model.decoder.linear_projection, [], []
    watch = last.register_forward_hook(lambda module, args, output: inputs.append(args[0].double()))
    text = torch.tensor([model.tokenizer.text_to_ids(TEXT)])
    with torch.no_grad():
        for path in sorted((corpus / "wavs").iterdir()):
            mels.append(torch.from_numpy(ap.melspectrogram(ap.load_wav(path))).T)
            model(text, torch.tensor([text.shape[1]]), mels[-1][None], torch.tensor([len(mels[-1])]))
        watch.remove()
        solved = torch.linalg.pinv(torch.cat(inputs)) @ torch.cat(mels).double()
        last.linear_layer.weight.copy_(solved.T)
        last.linear_layer.bias.zero_()
        for parameter in model.postnet.convolutions[-1].parameters():
            parameter.zero_()
    return save(model, folder)


def dataset(corpus: Path) -> BaseDatasetConfig:
    return BaseDatasetConfig(formatter="ljspeech", meta_file_train="metadata.csv", path=str(corpus))


def extract(acoustic: tuple[Path, Path], out: Path) -> Path:
    """The folder of mels that Coqui's command writes."""
    arguments = ["--checkpoint_path", str(acoustic[0]), "--config_path", str(acoustic[1]), "--output_path", str(out)]
    with pytest.raises(SystemExit) as end:
        extract_tts_spectrograms.main(arguments)
    assert end.value.code == 0 and len(list((out / "mel").iterdir())) == len(LENGTHS)
    return out / "mel"


@pytest.fixture(scope="module")
def extracted(corpus, tmp_path_factory) -> tuple[Path, Path]:
    """Mels, and the configuration of the model that made them."""
    folder = tmp_path_factory.mktemp("tacotron2")
    acoustic = tacotron2(folder, corpus)
    return extract(acoustic, folder / "gta"), acoustic[1]


def configuration(corpus: Path, mels: Path, acoustic_config: Path, **changes) -> MelglowConfig:
    config = MelglowConfig()
    values = {
        "model_params": SIZES, "loss_params": {"spectral_start": 0, "windows": [512, 256]}, "seq_len": 2048,
        "eval_seq_len": 2048, "batch_size": 2, "eval_batch_size": 1, "num_loader_workers": 0,
        "num_eval_loader_workers": 0, "eval_split_size": 1, "epochs": 1, "data_path": str(corpus / "wavs"),
        "feature_path": str(mels), "feature_config": str(acoustic_config),
    }  # fmt: skip
    config.from_dict({**values, **changes})
    return config


def samples(config: MelglowConfig) -> list:
    return load_wav_feat_data(config.data_path, config.feature_path, 1)[1]


def test_its_mels_are_converted_and_lie_beside_their_samples(corpus, extracted):
    config = configuration(corpus, *extracted)
    model = Melglow(config)
    (batch,) = model.get_data_loader(config=config, is_eval=False, samples=samples(config), verbose=False)
    batch = model.format_batch_on_device(model.format_batch(batch))
    assert batch["waveform"].shape == (2, 2048) and batch["input"].shape == (2, 80, 8)
    # Frames whose window lies inside the crop see the samples that they lie beside.
    own = model.convention.extract(batch["waveform"])[..., 2:6]
    torch.testing.assert_close(batch["input"][..., 2:6], own, atol=0.02, rtol=0)


def test_the_trainer_trains_on_them(corpus, extracted, tmp_path):
    config = configuration(corpus, *extracted, output_path=str(tmp_path / "out"), run_name="gta")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(SystemExit) as end:
        train_vocoder.main(["--config_path", str(tmp_path / "config.json")])
    assert end.value.code == 0
    (best,) = (tmp_path / "out").glob("gta-*/best_model.pth")
    weights = torch.load(best, weights_only=True)["model"]
    expected = torch.cat([torch.from_numpy(np.load(mel)) for _, mel in samples(config)], 1) / np.log(10)
    torch.testing.assert_close(weights["vocoder.flow.mel_mean"], expected.mean(1), atol=1e-3, rtol=0)


def test_another_trimming_is_refused_by_field(corpus, tmp_path):
    acoustic = tacotron2(tmp_path, corpus, do_trim_silence=True, trim_db=40)
    mels = extract(acoustic, tmp_path / "gta")
    config = configuration(corpus, mels, acoustic[1])
    with pytest.raises(ValueError, match=r"audio.do_trim_silence is False, in feature_config .*tts.json it is True"):
        Melglow(config).dataset(samples(config), is_eval=False)
    with pytest.raises(ValueError, match=r"has shape \(80, \d+\), .*\d.wav asks for \(80, \d+\): .*do_trim_silence"):
        Melglow(configuration(corpus, mels, "")).dataset(samples(config), is_eval=False)
    config = configuration(corpus, mels, acoustic[1], audio={"do_trim_silence": True, "trim_db": 60})
    with pytest.raises(ValueError, match="audio.trim_db is 60, in feature_config .*tts.json it is 40"):
        Melglow(config).dataset(samples(config), is_eval=False)
    config = configuration(corpus, mels, acoustic[1], audio={"do_trim_silence": True, "trim_db": 40})
    dataset = Melglow(config).dataset(samples(config), is_eval=False)
    own = dataset.convention.extract(dataset.load(dataset.items[0][0]))
    torch.testing.assert_close(dataset.mel(0), own, atol=0.02, rtol=0)


def test_the_latent_that_glow_tts_gives_is_refused(corpus, tmp_path):
    acoustic = glow_tts(tmp_path, **UNITS["recipes"])
    config = json.loads(acoustic[1].read_text())
    settings = {"datasets": [dataset(corpus).to_dict()], "eval_split_size": 1, "batch_size": 1, "num_loader_workers": 0}
    acoustic[1].write_text(json.dumps({**config, **settings}))
    config = configuration(corpus, extract(acoustic, tmp_path / "gta"), acoustic[1])
    even = [pair for pair in samples(config) if np.load(pair[1]).shape[1] % 2 == 0]
    with pytest.raises(ValueError, match=r"is not the mel of .*: correlation -?0\.[0-4]\d, below 0.5"):
        Melglow(config).dataset(even, is_eval=False)
