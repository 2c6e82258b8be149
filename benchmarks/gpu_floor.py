"""The least time of a call on a GPU: bytes and operations of a flow over the rates that the GPU reaches."""

import math

import torch
from gpu_timing import median_seconds, tf32

from melglow_plugin import MelGlow, Vocoder


def counted(flow: MelGlow, batch: int, frames: int) -> dict[str, float]:
    """Bytes that must move and operations of ``inverse`` with fused layers, in float32.

    A tensor counts once each time that a kernel writes or reads it; taps that a cache serves again do not. Couplings
    and 1x1 convolutions are a dozen elementwise passes over their channels. Linear prediction, in float64, reads a
    matrix for each frame in every block, twice, and for every frame that it remembers, and makes five of them.
    """
    net = flow.couplings[0].net
    taps, channels, outs = net.kernel_predictor.kernel_shape
    emitted, layers = taps * channels * outs + outs, net.kernel_predictor.n_layers
    width = net.kernel_predictor.input_conv.out_channels
    rows, steps = batch * frames, batch * frames * flow.hop_length // flow.squeeze_factor
    numbers = operations = 0
    for conv in flow.convs_1x1:
        mixed = conv.weight.shape[0]
        numbers += layers * (2 * rows * emitted + width * emitted + rows * width)  # kernels: written, read
        numbers += layers * 4 * steps * channels  # hidden read and written, gates written and read
        numbers += 12 * steps * mixed
        layers_before = len(net.kernel_predictor.residual_convs)
        operations += 2 * rows * width * (5 * flow.n_mels + 3 * width * layers_before + layers * emitted)
        operations += 2 * steps * (layers * taps * channels * outs + mixed / 2 * channels * (1 + 2 * layers) + mixed**2)
    if (prediction := flow.lpc).reach_frames:
        blocks, matrix = flow.hop_length // prediction.block, prediction.order * prediction.block
        products, passes = 2 + math.ceil(math.log2(blocks)), 2 * blocks + prediction.reach_frames
        numbers += 2 * rows * matrix * (3 * products + passes)
        operations += 2 * rows * matrix * (products * prediction.order + passes)
    return {"bytes": 4.0 * numbers, "operations": float(operations)}


def rates(device: str) -> dict[str, float]:
    """What this device reaches: bytes per second of a large copy (read and written), operations of large products."""
    n, side = (2**28, 8192) if device == "cuda" else (2**22, 512)
    a, b = torch.empty(n, device=device), torch.empty(n, device=device)
    found = {"bytes": 8 * n / median_seconds({"": lambda: b.copy_(a)}, device, 9, 3)[""]}
    for name, dtype, allow in (
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bf16", torch.bfloat16, False),
    ):
        c = torch.randn(side, side, device=device, dtype=dtype)
        with tf32(allow, False):
            found[name] = 2 * side**3 / median_seconds({"": lambda c=c: c @ c}, device, 5, 2)[""]
    print(f"copy {found['bytes'] / 1e12:.3f} TB/s; products: "
          + ", ".join(f"{k} {v / 1e12:.2f} T/s" for k, v in found.items() if k != "bytes"))  # fmt: skip
    return found


def distances(vocoder: Vocoder, rows: list[dict], reached: dict[str, float]) -> list[dict]:
    """How many times longer than the floor each system of ours took."""
    found = []
    for row in rows:
        if row["median"] is None or row["system"] not in ("plain", "fused", "graphs"):
            continue
        frames = max(1, round(row["seconds"] * vocoder.sample_rate / vocoder.hop_length))
        count = counted(vocoder.flow, row["batch"], frames)
        memory, arithmetic = count["bytes"] / reached["bytes"], count["operations"] / reached["fp32"]
        found.append({**row, **count, "memory_floor": memory, "arithmetic_floor": arithmetic,
                      "distance": row["median"] / max(memory, arithmetic)})  # fmt: skip
        print(f"{row['system']:22} batch {row['batch']:2} {row['seconds']:5g} s  {count['bytes'] / 1e9:6.2f} GB "
              f"{1e3 * memory:7.3f} ms, {count['operations'] / 1e9:6.1f} G operations {1e3 * arithmetic:7.3f} ms: "
              f"{found[-1]['distance']:.1f} times the larger")  # fmt: skip
    return found
