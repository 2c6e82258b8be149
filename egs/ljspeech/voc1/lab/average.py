#!/usr/bin/env python3
"""The mean of the weights of models that one training passed through: a start for its next stage.

    lab/average.py EARLIER LATER -o MODEL      # model folders

Two ends of one road, one good at this and one at that, have a middle that may be nearly as good at both. Models that
were trained apart have none. A model that went on without early outputs is averaged with those that had them, too.
"""

import argparse
from pathlib import Path

import torch

from melglow_plugin.checkpoint import folder as checkpoint
from melglow_plugin.checkpoint.adapt import without_early_outputs
from melglow_plugin.checks import run_main


def mean(folders: list[Path]) -> checkpoint.Checkpoint:
    """The last model with the mean weights of all; ValueError: they are of another architecture or mel."""
    models = [checkpoint.load(folder) for folder in folders]
    last = models[-1]
    if last.flow.early_every >= len(last.flow.convs_1x1):
        for model in models:
            model.flow = without_early_outputs(model.flow)
    for folder, model in zip(folders, models, strict=True):
        for name, found, wanted in (
            ("architecture", type(model.flow).__name__, type(last.flow).__name__),
            ("sizes", model.flow.hyperparameters, last.flow.hyperparameters),
            ("mel", model.convention, last.convention),
        ):
            if found != wanted:
                raise ValueError(f"{folder}: {name} {found}, that of {folders[-1]}: {wanted}")
    weights = [model.flow.state_dict() for model in models]
    last.flow.load_state_dict({k: torch.stack([each[k] for each in weights]).mean(0) for k in weights[-1]})
    last.training.pop("metrics", None)  # they were of the last one alone
    return last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="model folders, the last one's facts are kept")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    checkpoint.save(args.out, mean(args.models))
    print(args.out)


if __name__ == "__main__":
    run_main(main)
