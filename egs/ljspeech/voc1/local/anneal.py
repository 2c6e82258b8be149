#!/usr/bin/env python3
"""Change the learning rate or its decay per epoch where a run stands; the next start of stage 2 goes on with them.

ESPnet's trainer restores both from its checkpoint, so a new value in the configuration has no effect on a resumed run.

    local/anneal.py exp/melglow --gamma 0.85
"""

import argparse
import os
import sys
from pathlib import Path

import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp", type=Path, help="folder with checkpoint.pth")
    parser.add_argument("--lr", type=float, help="learning rate of the next epoch")
    parser.add_argument("--gamma", type=float, help="factor of exponentiallr, once an epoch")
    args = parser.parse_args()
    path = args.exp / "checkpoint.pth"
    states = torch.load(path, map_location="cpu", weights_only=True)
    (optimizer,), (scheduler,) = states["optimizers"], states["schedulers"]
    group = optimizer["param_groups"][0]
    print(f"epoch {states['reporter']['epoch']}: lr {group['lr']:.3g}, gamma {scheduler.get('gamma')}")
    if args.gamma is not None:
        if "gamma" not in scheduler:
            raise ValueError(f"{path}: its scheduler is no exponentiallr, it has no gamma")
        scheduler["gamma"] = args.gamma
    if args.lr is not None:
        factor = args.lr / group["lr"]
        for each in optimizer["param_groups"]:  # the layers that emit kernels keep their ratio
            each["lr"] *= factor
        scheduler["_last_lr"] = [each["lr"] for each in optimizer["param_groups"]]
    temporary = path.with_suffix(".new")
    torch.save(states, temporary)
    os.replace(temporary, path)
    print(f"now lr {group['lr']:.3g}, gamma {scheduler.get('gamma')}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"anneal.py: {error}")
