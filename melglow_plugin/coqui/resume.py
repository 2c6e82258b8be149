"""The position in a run of Coqui's Trainer: a continued run uses the same crops and noise as an uninterrupted one.

The Trainer keeps the number of its epoch and of its step, and begins that epoch again. Here the order of the
recordings, the place of each crop and the noise of each step follow from the seed and the position in the run alone,
so no state of a random generator has to be saved.
"""

import itertools
import logging
from dataclasses import asdict, dataclass

import numpy as np
from torch.utils.data import DistributedSampler
from trainer.io import load_fsspec

logger = logging.getLogger(__name__)
POSITION, LEARNING = "melglow_position", "melglow_learning"  # entries of a checkpoint, besides Coqui's


@dataclass
class Position:
    """A place in a run."""

    epoch: int = 0
    batches: int = 0  # of that epoch, taken so far
    steps: int = 0  # of the Trainer, done
    skipped_steps: int = 0

    def saved(self, steps: int) -> dict[str, int]:
        """What goes into a checkpoint; ``steps`` as the Trainer writes it, which inside of an epoch is one behind."""
        return asdict(self) | {"steps": steps + (self.batches > 0)}

    def noise_seed(self, seed: int, rank: int = 0) -> int:
        """The seed of this step's noise, on one rank."""
        words = np.random.SeedSequence((seed, self.epoch, self.batches, rank)).generate_state(1, np.uint64)
        return int(words[0])


def read(checkpoint: str) -> tuple[Position | None, dict | None]:
    """Position, and the raw weights with their number of steps; None for what a checkpoint lacks."""
    state = load_fsspec(checkpoint, map_location="cpu")
    if POSITION not in state:
        logger.warning("%s has no position in its epoch: the epoch begins again", checkpoint)
        return None, None
    return Position(**state[POSITION]), state.get(LEARNING)


class EpochSampler(DistributedSampler):
    """An order that follows from seed and epoch, for one process or a rank; the first ``skip`` items are left out."""

    skip = 0

    def __iter__(self):
        return itertools.islice(super().__iter__(), self.skip, None)

    def __len__(self) -> int:
        return max(0, super().__len__() - self.skip)
