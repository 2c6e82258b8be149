#!/usr/bin/env python3
"""Train a SpeedySpeech on one recording, or a few, with Coqui's Trainer, until it reproduces the sentence.

Its mel is the one of --vocoder, so `tts` can use MelGlow. It uses characters and no phonemes, and needs nothing else.
--model tacotron2 makes a stand-in for trying `extract_tts_spectrograms`, which knows no SpeedySpeech: see `solve`.

Options of the Trainer and fields of the configuration (--coqpit.epochs 3 ...) go on the same command line.
"""

import argparse
from pathlib import Path

from melglow_plugin.processor import prepare

prepare()  # before torch is imported

import soundfile
import torch
from train_melglow import HERE, read_arguments
from trainer import Trainer
from TTS.config.shared_configs import BaseAudioConfig, BaseDatasetConfig
from TTS.tts.configs.speedy_speech_config import SpeedySpeechConfig
from TTS.tts.configs.tacotron2_config import Tacotron2Config
from TTS.tts.models.forward_tts import ForwardTTS
from TTS.tts.models.tacotron2 import Tacotron2

from melglow_plugin.checkpoint.any_file import load
from melglow_plugin.checkpoint.coqui import config_of
from melglow_plugin.training.corpus import find_recordings, read_metadata

CLIPS = ["LJ002-0198"]  # the shortest of the bundled ones


def configuration(output_path: str) -> SpeedySpeechConfig:
    """Coqui's SpeedySpeech, which aligns by itself; set to learn a sentence by heart."""
    config = SpeedySpeechConfig(
        run_name="acoustic", output_path=output_path, text_cleaner="english_cleaners", use_phonemes=False,
        epochs=15, run_eval=False, save_step=10_000, print_step=20, num_loader_workers=0, max_seq_len=10_000,
        test_delay_epochs=10_000, test_sentences=[], lr=1e-3, optimizer_params={"betas": [0.9, 0.998]},
        # A step, not an epoch: Coqui's Trainer 0.4 never steps the scheduler of a single optimizer after an epoch.
        lr_scheduler="ExponentialLR", lr_scheduler_params={"gamma": 0.998},
        scheduler_after_epoch=False, shuffle=True,  # or clips would come sorted by length, and be forgotten in turn
    )  # fmt: skip
    config.model_args.duration_predictor_dropout_p = 0.0  # its noise would move letters by a frame
    return config


@torch.no_grad()
def solve(config: Tacotron2Config, samples: list[dict], folder: Path) -> None:
    """A Tacotron 2 that nearly repeats the samples under teacher forcing, and can do nothing else.

    Its weights are random, but for the last layer, which is solved for by least squares, and the postnet, which adds
    nothing. ``folder`` gets ``model.pth`` and ``config.json``.
    """
    torch.manual_seed(0)
    model = Tacotron2(config).eval()
    last, inputs, mels = model.decoder.linear_projection, [], []
    watch = last.register_forward_hook(lambda module, args, output: inputs.append(args[0].double()))
    for sample in samples:
        text = torch.tensor([model.tokenizer.text_to_ids(sample["text"])])
        mels.append(torch.from_numpy(model.ap.melspectrogram(model.ap.load_wav(sample["audio_file"]))).T.float())
        model(text, torch.tensor([text.shape[1]]), mels[-1][None], torch.tensor([len(mels[-1])]))
    watch.remove()
    inverse = torch.linalg.pinv(torch.cat(inputs), rtol=1e-5)  # what is smaller drowns in float32
    last.linear_layer.weight.copy_((inverse @ torch.cat(mels).double()).T)
    last.linear_layer.bias.zero_()
    for parameter in model.postnet.convolutions[-1].parameters():
        parameter.zero_()
    folder.mkdir(exist_ok=True)
    torch.save({"model": model.state_dict()}, folder / "model.pth")
    config.save_json(folder / "config.json")


def copy_clips(corpus: Path, clips: list[str], folder: Path) -> list[dict]:
    """The clips as a small LJSpeech tree, which ``datasets`` in config.json names for Coqui's other commands."""
    texts = read_metadata(corpus)
    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    (folder / "metadata.csv").write_text("".join(f"{key}|{texts[key]}|{texts[key]}\n" for key in clips))
    for key, path in find_recordings(corpus, clips).items():
        soundfile.write(folder / "wavs" / f"{key}.wav", *soundfile.read(path, dtype="int16"))
    return [
        {
            "text": texts[key], "audio_file": str(folder / "wavs" / f"{key}.wav"), "audio_unique_name": key,
            "speaker_name": "lj", "language": "en", "root_path": str(folder),
        }
        for key in clips
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["speedy_speech", "tacotron2"], default="speedy_speech")
    parser.add_argument("--corpus", type=Path, default=HERE.parent / "voc1" / "corpus", help="metadata.csv and wavs/")
    parser.add_argument("--clips", nargs="+", default=CLIPS, help="their names in metadata.csv")
    parser.add_argument("--vocoder", default=HERE.parents[2] / "pretrained" / "melglow_ljspeech", help="model folder")
    parser.add_argument("--steps_per_epoch", type=int, default=100, help="a small corpus is repeated")
    config = configuration(str(HERE / "exp"))
    args, trainer_args = read_arguments(config, parser)
    if unknown := sorted(set(args.clips) - set(read_metadata(args.corpus))):
        parser.error(f"--clips {', '.join(unknown)}: not in {args.corpus / 'metadata.csv'}")
    # The vocoder's mel, with the natural logarithm of Coqui's recipes: MelGlow converts it.
    mel = config_of(load(args.vocoder))["audio"]
    config.audio = BaseAudioConfig(**{**mel, "log_func": "np.log"})
    config.batch_size = len(args.clips)
    clips = Path(config.output_path) / "clips"
    samples = copy_clips(args.corpus, args.clips, clips)
    config.datasets = [
        BaseDatasetConfig(
            formatter="ljspeech", dataset_name="clips", meta_file_train="metadata.csv", path=str(clips), language="en"
        )
    ]
    if args.model == "tacotron2":
        same = {name: config[name] for name in ("audio", "datasets", "text_cleaner", "use_phonemes")}
        # One at a time, as in `solve`: padding in a batch changes the output of the encoder's convolutions.
        tacotron2 = Tacotron2Config(**same, batch_size=1, r=1, eval_split_size=1, num_loader_workers=0)
        return solve(tacotron2, samples, Path(config.output_path) / "tacotron2")
    Trainer(
        trainer_args,
        config,
        model=ForwardTTS(config),
        train_samples=samples * args.steps_per_epoch,
        eval_samples=samples,
        parse_command_line_args=False,
    ).fit()


if __name__ == "__main__":
    main()
