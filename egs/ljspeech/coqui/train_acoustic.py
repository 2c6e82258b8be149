#!/usr/bin/env python3
"""Train a SpeedySpeech on one recording, or a few, with Coqui's Trainer, until it says the sentence.

Its mel is that of --vocoder, so that `tts` speaks it through MelGlow. Characters, no phonemes: nothing else is needed.
Options of the Trainer and fields of the configuration (--coqpit.epochs 3 ...) go on the same command line.
"""

import argparse
from pathlib import Path

from train_melglow import HERE, read_arguments
from trainer import Trainer
from TTS.config.shared_configs import BaseAudioConfig
from TTS.tts.configs.speedy_speech_config import SpeedySpeechConfig
from TTS.tts.models.forward_tts import ForwardTTS

from melglow_plugin import Vocoder
from melglow_plugin.coqui_format import config_of
from melglow_plugin.corpus import find_recordings, read_metadata

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=HERE.parent / "voc1" / "corpus", help="metadata.csv and wavs/")
    parser.add_argument("--clips", nargs="+", default=CLIPS, help="their names in metadata.csv")
    parser.add_argument("--vocoder", default=HERE.parents[2] / "pretrained" / "melglow_ljspeech", help="model folder")
    parser.add_argument("--steps_per_epoch", type=int, default=100, help="a small corpus is repeated")
    config = configuration(str(HERE / "exp"))
    args, trainer_args = read_arguments(config, parser)
    texts = read_metadata(args.corpus)
    if unknown := sorted(set(args.clips) - set(texts)):
        parser.error(f"--clips {', '.join(unknown)}: not in {args.corpus / 'metadata.csv'}")
    # The vocoder's mel, with the natural logarithm of Coqui's recipes: MelGlow converts it.
    mel = config_of(Vocoder.from_pretrained(args.vocoder))["audio"]
    config.audio = BaseAudioConfig(**{**mel, "log_func": "np.log"})
    config.batch_size = len(args.clips)
    samples = [
        {
            "text": texts[key], "audio_file": str(path), "audio_unique_name": key, "speaker_name": "lj", "language": "",
            "root_path": str(args.corpus),
        }
        for key, path in find_recordings(args.corpus, args.clips).items()
    ]  # fmt: skip
    model = ForwardTTS.init_from_config(config)
    Trainer(
        trainer_args,
        config,
        model=model,
        train_samples=samples * args.steps_per_epoch,
        eval_samples=samples,
        parse_command_line_args=False,
    ).fit()


if __name__ == "__main__":
    main()
