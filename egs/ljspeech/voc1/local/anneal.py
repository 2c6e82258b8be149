#!/usr/bin/env python3
"""Change the learning rates or the weights of a run that was stopped; stage 2 then continues with them.

ESPnet's trainer restores both from its checkpoint, so a new value in the configuration has no effect on a resumed run.

    local/anneal.py exp/melglow --gamma 0.85
    local/anneal.py exp/melglow --lr 2e-4 --kernel_lr_ratio 2 --average
    local/anneal.py exp/melglow --features 0.4 corpus/wavs/*.flac
"""

import argparse
import os
import sys
from pathlib import Path

import torch

from melglow_plugin.files import read_wav

PREFIXES = ("flow.", "ema.module.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp", type=Path, help="folder with checkpoint.pth")
    parser.add_argument("--lr", type=float, help="learning rate of the next epoch")
    parser.add_argument("--gamma", type=float, help="factor of exponentiallr, once an epoch")
    parser.add_argument("--kernel_lr_ratio", type=float, help="learning rate of kernel-emitting layers, to --lr")
    parser.add_argument("--average", action="store_true", help="continue from the averaged weights (ema_decay above 0)")
    parser.add_argument("--features", nargs="+", metavar=("RMS", "WAV"), help=(
        "couplings whose predictor gives features above this root mean square on these recordings get smaller ones: in "
        "long training they can grow until the net is chaotic, which gains nothing and drowns all gradients in noise"
    ))  # fmt: skip
    args = parser.parse_args()
    if args.features and len(args.features) < 2:
        parser.error("--features needs an RMS and recordings")
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
    if args.features:
        calm(args.exp, states["model"], float(args.features[0]), [Path(wav) for wav in args.features[1:]])
    temporary = path.with_suffix(".new")
    torch.save(states, temporary)
    os.replace(temporary, path)
    print(f"now lr {[each['lr'] for each in optimizer['param_groups']]}, gamma {scheduler.get('gamma')}")


def calm(exp: Path, state: dict[str, torch.Tensor], target: float, recordings: list[Path]) -> None:
    """Bring the features of every coupling's kernel predictor down to ``target``, in the weights and their average."""
    from melglow_plugin.checkpoint.espnet import from_espnet_trainer

    vocoder = from_espnet_trainer(exp / "checkpoint.pth", exp / "config.yaml")
    flow, convention = vocoder.flow, vocoder.convention
    mel = torch.cat([convention.extract(read_wav(path, convention.sample_rate)) for path in recordings], dim=-1)
    with torch.no_grad():
        levels = flow.activation_rms(mel[None])[:, 0].tolist()
    for number, rms in enumerate(levels):
        factor = min(1.0, target / rms)
        if factor < 1:
            # Leaky rectifiers scale with their input: the reader and all biases scaled scale the features.
            for head in (f"{prefix}couplings.{number}.net.kernel_predictor." for prefix in PREFIXES):
                names = [head + "read.weight", *(key for key in state if key.startswith(head) and key.endswith("bias"))]
                for name in (name for name in names if name in state and ".emit." not in name):
                    state[name].mul_(factor)
        print(f"coupling {number}: features {rms:.2f}" + (f", times {factor:.2f}" if factor < 1 else ""))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"anneal.py: {error}")
