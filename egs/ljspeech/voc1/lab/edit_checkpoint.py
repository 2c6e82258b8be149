#!/usr/bin/env python3
"""Change the learning rates or the weights of a run that was stopped; stage 2 then continues with them.

ESPnet's trainer restores both from its checkpoint, so a new value in the configuration has no effect on a resumed run.

    lab/edit_checkpoint.py exp/melglow --gamma 0.85
    lab/edit_checkpoint.py exp/melglow --lr 2e-4 --kernel_lr_ratio 2 --average
    lab/edit_checkpoint.py exp/melglow --rescale_predictors 0.4 corpus/wavs/*.flac
"""

import argparse
import os
from pathlib import Path

import torch

from melglow_plugin.checks import run_main
from melglow_plugin.files import read_wav
from melglow_plugin.model.melflow import current_names

PREFIXES = ("flow.", "ema.module.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp", type=Path, help="folder with checkpoint.pth")
    parser.add_argument("--lr", type=float, help="learning rate of the next epoch")
    parser.add_argument("--gamma", type=float, help="factor of exponentiallr, once an epoch")
    parser.add_argument("--kernel_lr_ratio", type=float, help="learning rate of the layers that give kernels, to --lr")
    parser.add_argument("--average", action="store_true", help="continue from the averaged weights (ema_decay above 0)")
    parser.add_argument("--rescale_predictors", nargs="+", metavar=("RMS", "WAV"), help=(
        "kernel predictors whose hidden values have a root mean square above RMS on these recordings get smaller ones: "
        "in long training they can grow until all gradients are noise, which gains nothing"
    ))  # fmt: skip
    args = parser.parse_args()
    if args.rescale_predictors and len(args.rescale_predictors) < 2:
        parser.error("--rescale_predictors needs an RMS and recordings")
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
    if args.rescale_predictors:
        rescale_predictors(
            args.exp,
            states["model"],
            float(args.rescale_predictors[0]),
            [Path(wav) for wav in args.rescale_predictors[1:]],
        )
    temporary = path.with_suffix(".new")
    torch.save(states, temporary)
    os.replace(temporary, path)
    print(f"now lr {[each['lr'] for each in optimizer['param_groups']]}, gamma {scheduler.get('gamma')}")


def rescale_predictors(exp: Path, state: dict[str, torch.Tensor], target: float, recordings: list[Path]) -> None:
    """Bring the hidden values of every kernel predictor down to ``target``, in the weights and their average."""
    from melglow_plugin.checkpoint.espnet import from_espnet_trainer

    model = from_espnet_trainer(exp / "checkpoint.pth", exp / "config.yaml")
    flow, convention = model.flow, model.convention
    mel = torch.cat([convention.extract(read_wav(path, convention.sample_rate)) for path in recordings], dim=-1)
    with torch.no_grad():
        levels = flow.activation_rms(mel[None])[:, 0].tolist()
    for prefix in PREFIXES:  # of version 0.1, maybe
        own = {name: state.pop(name) for name in list(state) if name.startswith(prefix)}
        own = current_names({name.removeprefix(prefix): value for name, value in own.items()})
        state.update({prefix + name: value for name, value in own.items()})
    for number, rms in enumerate(levels):
        factor = min(1.0, target / rms)
        if factor < 1:
            # Leaky rectifiers scale with their input: with the first weight and all biases the hidden values scale.
            for head in (f"{prefix}couplings.{number}.net.kernel_predictor." for prefix in PREFIXES):
                biases = [key for key in state if key.startswith(head) and key.endswith("bias")]
                for name in [head + "input_conv.weight", *biases]:
                    if name in state and ".to_kernel." not in name:
                        state[name].mul_(factor)
        print(f"coupling {number}: hidden values {rms:.2f}" + (f", times {factor:.2f}" if factor < 1 else ""))


if __name__ == "__main__":
    run_main(main)
