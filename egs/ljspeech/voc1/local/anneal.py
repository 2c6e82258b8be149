#!/usr/bin/env python3
"""Change the learning rates of a run where it stands, or take its averaged weights; stage 2 then goes on with them.

ESPnet's trainer restores both from its checkpoint, so a new value in the configuration has no effect on a resumed run.

    local/anneal.py exp/melglow --gamma 0.85
    local/anneal.py exp/melglow --lr 2e-4 --kernel_lr_ratio 2 --average
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
    parser.add_argument("--kernel_lr_ratio", type=float, help="learning rate of kernel-emitting layers, to --lr")
    parser.add_argument("--average", action="store_true", help="go on from the averaged weights (ema_decay above 0)")
    args = parser.parse_args()
    if args.kernel_lr_ratio is not None and args.lr is None:
        parser.error("--kernel_lr_ratio needs --lr")
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
        rates = [args.lr * each["lr"] / group["lr"] for each in optimizer["param_groups"]]
        if args.kernel_lr_ratio is not None:
            if len(rates) != 2:
                raise ValueError(f"{path}: its run had no kernel_lr_ratio, all parameters have one learning rate")
            rates[1] = args.lr * args.kernel_lr_ratio
        for each, rate in zip(optimizer["param_groups"], rates, strict=True):
            each["lr"] = rate
        scheduler["_last_lr"] = rates
    if args.average:
        average = {k.replace("ema.module.", "flow.", 1): v for k, v in states["model"].items() if "ema.module." in k}
        if not average:
            raise ValueError(f"{path}: its run had ema_decay 0, there is no average")
        states["model"].update({name: value.clone() for name, value in average.items()})
    temporary = path.with_suffix(".new")
    torch.save(states, temporary)
    os.replace(temporary, path)
    print(f"now lr {[each['lr'] for each in optimizer['param_groups']]}, gamma {scheduler.get('gamma')}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"anneal.py: {error}")
