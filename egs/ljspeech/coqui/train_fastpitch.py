#!/usr/bin/env python3
"""Train a FastPitch, which can synthesize new sentences, with Coqui's Trainer, on the durations of align_fastpitch.py.

    python align_fastpitch.py CORPUS data       # texts, recordings, durations, F0
    python train_fastpitch.py --data data
    python train_fastpitch.py --data data --continue_path exp/fastpitch-...

Its mel is the one of --vocoder. The sizes suit an hour of speech and a CPU: 6 M parameters, half a second a step on one
thread. Options of the Trainer and fields of the configuration (--coqpit.epochs 3 ...) go on the same command line.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from melglow_plugin.processor import prepare

prepare()  # before torch is imported

import numpy as np
import torch
from train_melglow import HERE, read_arguments
from trainer import Trainer
from TTS.config.shared_configs import BaseAudioConfig, BaseDatasetConfig
from TTS.tts.configs.fast_pitch_config import FastPitchConfig
from TTS.tts.datasets import load_tts_samples
from TTS.tts.datasets.dataset import string2filename
from TTS.tts.models.forward_tts import ForwardTTS

from melglow_plugin.checkpoint.any_file import load
from melglow_plugin.checkpoint.coqui import config_of

VOCODER = HERE.parents[2] / "pretrained" / "melglow_universal"
DATASET, F0 = "lj", "pitch"  # Coqui's names of recordings begin with the first; folder of F0 in the data


def f0_file(data: Path, key: str) -> Path:
    """Where Coqui looks for the F0 of a recording."""
    return data / F0 / f"{string2filename(f'{DATASET}#wavs/{key}')}_pitch.npy"


def configuration(data: Path, output_path: str, vocoder: Path = VOCODER) -> FastPitchConfig:
    """Coqui's FastPitch at an eighth of its size."""
    config = FastPitchConfig(
        run_name="fastpitch", output_path=output_path, epochs=200, batch_size=4, eval_batch_size=4,
        num_loader_workers=0, num_eval_loader_workers=0, batch_group_size=0, print_step=25,
        save_step=250, save_n_checkpoints=8, save_best_after=500, test_delay_epochs=10_000, test_sentences=[],
        text_cleaner="phoneme_cleaners", use_phonemes=True, phonemizer="gruut", phoneme_language="en-us",
        phoneme_cache_path=str(data / "phonemes"), enable_eos_bos_chars=True, f0_cache_path=str(data / F0),
        min_seq_len=1, max_seq_len=1000, mixed_precision=False, use_ssim_loss=False, spec_loss_type="l1",
        dur_loss_alpha=0.5, pitch_loss_alpha=0.2, target_loss="loss_spec",
        lr=1e-3, grad_clip=1.0, lr_scheduler_params={"warmup_steps": 400},
        scheduler_after_epoch=False,  # Trainer 0.4 never steps the scheduler of a single optimizer after an epoch
    )  # fmt: skip
    for name, value in {
        "use_aligner": False, "hidden_channels": 192,
        "pitch_predictor_hidden_channels": 192, "pitch_predictor_dropout_p": 0.3, "pitch_predictor_kernel_size": 5,
        "duration_predictor_hidden_channels": 192, "duration_predictor_dropout_p": 0.3,
        # Relative positions in the encoder, because Coqui's fftransformer knows none but its convolutions' there.
        "encoder_type": "relative_position_transformer",
        "encoder_params": {
            "hidden_channels_ffn": 384, "num_heads": 2, "kernel_size": 3, "dropout_p": 0.1, "num_layers": 4,
            "rel_attn_window_size": 4, "input_length": None,
        },
        # On a CPU random numbers cost a sixth of a step.
        "decoder_params": {"hidden_channels_ffn": 384, "num_heads": 2, "num_layers": 4, "dropout_p": 0.0},
    }.items():  # fmt: skip
        setattr(config.model_args, name, value)
    # The vocoder's mel, with the natural logarithm of Coqui's recipes: MelGlow converts it.
    config.audio = BaseAudioConfig(**{**config_of(load(vocoder))["audio"], "log_func": "np.log"})
    config.datasets = [
        BaseDatasetConfig(
            formatter="ljspeech", dataset_name=DATASET, path=str(data), language="en",
            meta_file_train="train.csv", meta_file_val="dev.csv",
        )
    ]  # fmt: skip
    return config


class Batches(torch.utils.data.Sampler):
    """Recordings of about the same length follow each other; every epoch has other batches, in another order.

    Fewer recordings than a batch holds, as in a small dev set, are one batch.
    """

    def __init__(self, lengths: list[int], size: int) -> None:
        self.lengths, self.size = np.array(lengths), max(1, min(size, len(lengths)))

    def __len__(self) -> int:
        return len(self.lengths) // self.size * self.size

    def __iter__(self) -> Iterator[int]:
        order = np.argsort(self.lengths * np.random.uniform(0.9, 1.1, len(self.lengths)))
        start = np.random.randint(len(order) - len(self) + 1)
        batches = order[start : start + len(self)].reshape(-1, self.size)
        return iter(np.random.permutation(batches).ravel().tolist())


class AlignedFastPitch(ForwardTTS):
    """Coqui's model, trained with durations that are known, and mels that are computed once.

    Coqui's own way to known durations, masks of attention, mixes up the recordings of a batch (coqui-tts 0.28.0).
    """

    def prepare(self, data: Path, samples: list[dict]) -> None:
        """Read the durations; begin with the mean of the samples' mels, which are kept for the training."""
        rows = (line.split("|") for line in (data / "durations.csv").read_text().splitlines())
        self.frames = {f"{DATASET}#wavs/{key}": torch.tensor([*map(int, row.split())]) for key, row in rows}
        compute, found = self.ap.melspectrogram, {}

        def melspectrogram(wav: np.ndarray) -> np.ndarray:
            key = hash(wav.tobytes())
            if key not in found:
                found[key] = compute(wav)
            return found[key]

        self.ap.melspectrogram = melspectrogram
        mels = [melspectrogram(np.asarray(self.ap.load_wav(item["audio_file"]), np.float32)) for item in samples]
        mean = torch.from_numpy(np.concatenate(mels, axis=1).mean(axis=1)).float()
        self.decoder.decoder.postnet.bias.data.copy_(mean)

    def format_batch(self, batch: dict) -> dict:
        batch = super().format_batch(batch)
        frames = [self.frames[name] for name in batch["audio_unique_names"]]
        for name, row, tokens, mel in zip(
            batch["audio_unique_names"], frames, batch["text_lengths"], batch["mel_lengths"], strict=True
        ):
            if (len(row), row.sum()) != (tokens, mel):
                raise ValueError(f"{name}: {len(row)} durations of {row.sum()} frames, {tokens} tokens of {mel} frames")
        batch["durations"] = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True).float()
        return batch

    def get_sampler(self, config, dataset) -> Batches:
        return Batches([item["audio_length"] for item in dataset.samples], config.batch_size)

    def _create_logs(self, batch: dict, outputs: dict) -> tuple[dict, dict]:
        return {}, {}  # pictures and Griffin-Lim's audio would cost as much as ten steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="what align_fastpitch.py has written")
    parser.add_argument("--vocoder", type=Path, default=VOCODER, help="model folder, whose mel is learned")
    known, _ = parser.parse_known_args()
    if not (known.data / "durations.csv").is_file():
        parser.error(f"--data {known.data}: no durations.csv there, which align_fastpitch.py writes")
    config = configuration(known.data.resolve(), str(HERE / "exp"), known.vocoder)
    args, trainer_args = read_arguments(config, parser)
    train, dev = load_tts_samples(config, eval_split=True)
    model = AlignedFastPitch(config)
    model.prepare(args.data, train)
    Trainer(
        trainer_args, config, model=model, train_samples=train, eval_samples=dev, parse_command_line_args=False
    ).fit()  # fmt: skip


if __name__ == "__main__":
    main()
