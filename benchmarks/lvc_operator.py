#!/usr/bin/env python3
"""Location-variable convolution beside the bare batched matmul of its shapes, forward and backward, on one device.

    OMP_NUM_THREADS=1 python benchmarks/lvc_operator.py -o benchmarks/results/lvc_operator.json

The bare product has its windows ready and no bias: what is left is padding, gathering the taps, and the bias.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from melglow_plugin import location_variable_conv

# frames, steps per frame, channels in, channels out; taps 3, dilation 8
SHAPES = [(86, 32, 16, 32), (860, 32, 16, 32), (64, 32, 48, 96), (400, 32, 48, 96)]
TAPS, DILATION = 3, 8


def case(frames: int, hop: int, channels: int, out_channels: int, device: str) -> dict:
    """What is timed for one shape, by name, all on the same numbers."""
    x = torch.randn(1, frames * hop, channels, device=device, requires_grad=True)
    kernel = torch.randn(1, frames, TAPS, channels, out_channels, device=device, requires_grad=True)
    bias = torch.randn(1, frames, out_channels, device=device, requires_grad=True)
    windows = torch.randn(frames, hop, TAPS * channels, device=device, requires_grad=True)
    flat = kernel.detach().reshape(frames, TAPS * channels, out_channels).requires_grad_()
    gradient = torch.randn(1, frames * hop, out_channels, device=device)

    def product():
        return torch.bmm(windows, flat)

    def operator():
        return location_variable_conv(x, kernel, bias, DILATION)

    def training(forward, inputs):
        out = forward()
        return torch.autograd.grad(out, inputs, gradient.view_as(out))

    return {
        ("forward", "product"): torch.no_grad()(product),
        ("forward", "operator"): torch.no_grad()(operator),
        ("training", "product"): lambda: training(product, (windows, flat)),
        ("training", "operator"): lambda: training(operator, (x, kernel, bias)),
    }


def measure(systems: dict, device: str, rounds: int, repeats: int) -> dict:
    """Median seconds of each, in turns, so that a slow spell hits all alike."""
    times = {name: [] for name in systems}
    for i in range(rounds + 2):
        for name, run in systems.items():
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            if device == "cuda":
                torch.cuda.synchronize()
            if i >= 2:  # the first two warm up
                times[name].append((time.perf_counter() - start) / repeats)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("-o", "--out", type=Path, help="JSON")
    args = parser.parse_args()
    rows = []
    for shape in SHAPES:
        frames, hop, channels, out_channels = shape
        seconds = measure(case(*shape, args.device), args.device, args.rounds, args.repeats)
        flop = 2 * frames * hop * TAPS * channels * out_channels
        for mode, factor in (("forward", 1), ("training", 3)):
            product, operator = seconds[mode, "product"], seconds[mode, "operator"]
            row = {
                "frames": frames, "channels": channels, "out_channels": out_channels, "mode": mode,
                "product_gflops": factor * flop / product / 1e9, "operator_gflops": factor * flop / operator / 1e9,
                "ratio": product / operator,
            }  # fmt: skip
            rows.append(row)
            print(
                f"{frames:4} frames {channels:3} -> {out_channels:3} {mode:8}  product {row['product_gflops']:6.1f} "
                f"GFLOP/s  operator {row['operator_gflops']:6.1f}  ratio {row['ratio']:.2f}"
            )
    if args.out:
        settings = {"device": args.device, "threads": torch.get_num_threads(), "torch": torch.__version__}
        args.out.write_text(json.dumps({**settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
