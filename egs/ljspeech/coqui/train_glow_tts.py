#!/usr/bin/env python3
"""Train a GlowTTS, which can synthesize new sentences, with Coqui's Trainer, in the mel of a vocoder.

    pip install gruut                            # phonemes; its English lexicon is a wheel, too
    python train_glow_tts.py --corpus DIR        # DIR: metadata.csv, wavs/ and splits/{train,dev}.txt
    python train_glow_tts.py --continue_path exp/glow_tts-...

GlowTTS aligns by itself. The sizes suit an hour of speech and a CPU: one epoch was run, a voice was not trained yet.
Options of the Trainer and fields of the configuration (--coqpit.epochs 3 ...)
go on the same command line.
"""

import argparse
from pathlib import Path

from melglow_plugin.processor import prepare

prepare()  # before torch is imported

from train_acoustic import copy_clips
from train_melglow import HERE, read_arguments
from trainer import Trainer
from TTS.config.shared_configs import BaseAudioConfig, BaseDatasetConfig
from TTS.tts.configs.glow_tts_config import GlowTTSConfig
from TTS.tts.models.glow_tts import GlowTTS

from melglow_plugin.checkpoint.any_file import load
from melglow_plugin.checkpoint.coqui import config_of
from melglow_plugin.training.corpus import find_recordings, read_metadata, split

SENTENCES = ["The birch canoe slid on the smooth planks.", "It's easy to tell the depth of a well."]  # in no clip


def configuration(output_path: str) -> GlowTTSConfig:
    """Coqui's GlowTTS at a fifth of its size: 5.5 M parameters instead of 28 M."""
    return GlowTTSConfig(
        run_name="glow_tts", output_path=output_path, epochs=200, batch_size=8, eval_batch_size=8,
        num_loader_workers=0, num_eval_loader_workers=0, print_step=20, save_step=10_000, test_delay_epochs=20,
        text_cleaner="phoneme_cleaners", use_phonemes=True, phonemizer="gruut", phoneme_language="en-us",
        phoneme_cache_path=str(Path(output_path) / "phonemes"), test_sentences=SENTENCES,
        hidden_channels_enc=128, hidden_channels_dec=96, hidden_channels_dp=128, num_flow_blocks_dec=8,
        encoder_params={
            "kernel_size": 3, "dropout_p": 0.1, "num_layers": 4, "num_heads": 2, "hidden_channels_ffn": 384,
            "input_length": None,
        },
        inference_noise_scale=0.33, max_seq_len=1000, mixed_precision=False,
        lr_scheduler_params={"warmup_steps": 1000}, scheduler_after_epoch=False,
    )  # fmt: skip


def main() -> None:
    config = configuration(str(HERE / "exp"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=HERE.parent / "voc1" / "corpus", help="metadata.csv and wavs/")
    parser.add_argument("--vocoder", default=HERE.parents[2] / "pretrained" / "melglow_ljspeech", help="model folder")
    args, trainer_args = read_arguments(config, parser)
    # The vocoder's mel, with the natural logarithm of Coqui's recipes: MelGlow converts it.
    config.audio = BaseAudioConfig(**{**config_of(load(args.vocoder))["audio"], "log_func": "np.log"})
    found = find_recordings(args.corpus, read_metadata(args.corpus))
    train, dev, _ = split(args.corpus, list(found)).values()
    clips = Path(config.output_path) / "corpus"
    samples = {sample["audio_unique_name"]: sample for sample in copy_clips(args.corpus, [*train, *dev], clips)}
    config.datasets = [
        BaseDatasetConfig(
            formatter="ljspeech", dataset_name="lj", meta_file_train="metadata.csv", path=str(clips), language="en"
        )
    ]
    Trainer(
        trainer_args,
        config,
        model=GlowTTS(config),
        train_samples=[samples[key] for key in train],
        eval_samples=[samples[key] for key in dev],
        parse_command_line_args=False,
    ).fit()


if __name__ == "__main__":
    main()
