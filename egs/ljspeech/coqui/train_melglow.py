#!/usr/bin/env python3
"""Train MelGlow on LJSpeech with Coqui's Trainer; without --corpus, on the bundled recordings, to see it work.

Options of the Trainer (--continue_path, --restore_path, --small_run ...) and fields of the configuration
(--coqpit.epochs 3, --coqpit.model_params.channels 8 ...) go on the same command line.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from melglow_plugin.processor import prepare

prepare()  # before torch is imported

from coqpit import Coqpit
from trainer import Trainer, TrainerArgs, TrainerModel

from melglow_plugin.coqui.config import MelglowConfig
from melglow_plugin.coqui.model import Melglow
from melglow_plugin.training.corpus import find_recordings, read_metadata, split

HERE = Path(__file__).resolve().parent
MIN_STEPS_PER_EPOCH = 200  # a small corpus is repeated, so that evaluation does not eat up the time


def read_arguments(config: Coqpit, parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, TrainerArgs]:
    """Our options, the Trainer's, and the configuration's fields, which are set before the model is built."""
    args, rest = parser.parse_known_args()
    trainer_args = TrainerArgs()
    parser = trainer_args.init_argparse(arg_prefix="")
    known, overrides = parser.parse_known_args(rest)
    trainer_args.parse_args(known, arg_prefix="")
    for name, path in (("continue_path", trainer_args.continue_path), ("restore_path", trainer_args.restore_path)):
        if path and "://" not in path and not Path(path).exists():
            parser.error(f"--{name} {path}: no such {'folder' if name == 'continue_path' else 'file'}")
    if trainer_args.continue_path:  # as it was begun
        config.load_json(Path(trainer_args.continue_path) / "config.json")
    if unknown := [text for text in overrides if text.startswith("--") and not text.startswith("--coqpit.")]:
        parser.error(f"unknown {', '.join(unknown)}")
    if overrides and trainer_args.continue_path:
        parser.error(f"{overrides[0]}: a run goes on with its own config.json, change it there")
    if overrides:
        config.parse_known_args(overrides, relaxed_parser=True)
    return args, trainer_args


def train(config: Coqpit, make_model: Callable[[Coqpit], TrainerModel], description: str) -> None:
    """Train ``make_model(config)`` with the options of the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=HERE.parent / "voc1" / "corpus", help="metadata.csv and wavs/")
    args, trainer_args = read_arguments(config, parser)
    try:
        texts = read_metadata(args.corpus)
        recordings = find_recordings(args.corpus, texts)
        train, dev, _ = ([str(recordings[key]) for key in keys] for keys in split(args.corpus, list(texts)).values())
    except ValueError as error:
        parser.error(str(error))
    train *= max(1, MIN_STEPS_PER_EPOCH * config.batch_size // len(train))
    trainer = Trainer(
        trainer_args,
        config,
        model=make_model(config),
        train_samples=train,
        eval_samples=dev,
        parse_command_line_args=False,
    )
    trainer.fit()


def settings(name: str) -> dict:
    """Fields that this recipe sets in both vocoders' configurations."""
    return {"run_name": f"{name}_ljspeech", "output_path": str(HERE / "exp"), "eval_split_size": 8, "print_step": 20}


if __name__ == "__main__":
    train(MelglowConfig(**settings("melglow")), Melglow, __doc__)
