"""Times of calls on a GPU and their chart, and the precision of its products."""

import contextlib
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch


@contextlib.contextmanager
def tf32(products: bool, convolutions: bool):
    """TF32, which rounds factors to 10 bits, in matrix products and in cuDNN; PyTorch's defaults are no and yes."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if products else "highest")
    torch.backends.cudnn.allow_tf32 = convolutions
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


class Budget:
    """The time that a run may take, and what of it is left."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def share(self, part: float) -> float:
        """Seconds: that ``part`` of what is left."""
        return part * max(0.0, self.end - time.monotonic())


def median_seconds(
    systems: dict[str, Callable], device: str, rounds: int, warm_up: int = 9, seconds: float = math.inf
) -> dict[str, float | None]:
    """Median of each, in turns, so that a slow spell hits all alike; None where memory was short.

    Each system has the same share of ``seconds``; a slow one has fewer rounds, at least two and one before them.
    """
    times: dict[str, list | None] = {name: [] for name in systems}
    counts = dict.fromkeys(systems, warm_up + rounds)

    def run(name: str) -> None:
        try:
            synchronize(device)
            start = time.perf_counter()
            systems[name]()
            synchronize(device)
            times[name].append(time.perf_counter() - start)
        except torch.cuda.OutOfMemoryError:
            times[name] = None
            torch.cuda.empty_cache()

    for name in systems:
        run(name)  # compiles, and captures
    for i in range(warm_up + rounds):
        for name in systems:
            if times[name] is None or i >= counts[name]:
                continue
            run(name)
            if i == 0 and times[name]:
                counts[name] = int(max(3, min(counts[name], seconds / len(systems) / times[name][-1])))
    return {name: own and statistics.median(own[1 + min(warm_up, counts[name] // 3) :]) for name, own in times.items()}


def launches(systems: dict[str, Callable], mel: torch.Tensor) -> dict[str, int]:
    """Kernels on the device and launches by the host, of one call each."""
    from torch.profiler import ProfilerActivity, profile

    found = {}
    for name, speak in systems.items():
        speak(mel)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as record:
            speak(mel)
            torch.cuda.synchronize()
        events = record.events()
        on_device = sum(e.device_type == torch.autograd.DeviceType.CUDA for e in events)
        by_host = sum("Launch" in e.name for e in events)
        found[name] = {"on_device": on_device, "by_host": by_host}
        print(f"{name:22} {on_device} on the device, {by_host} launches")
    return found


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def chart(rows: list[dict], path: Path) -> None:
    """Times real time of each system, one panel for each batch and length."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = sorted({(row["batch"], row["seconds"]) for row in rows})
    figure, panels = pyplot.subplots(1, len(cases), figsize=(5 * len(cases), 4), squeeze=False, layout="constrained")
    for panel, (batch, seconds) in zip(panels[0], cases, strict=True):
        own = [row for row in rows if (row["batch"], row["seconds"]) == (batch, seconds) and row["median"]]
        speeds = [row["batch"] * row["seconds"] / row["median"] for row in own]
        bars = panel.barh([row["system"] for row in own], speeds)
        panel.bar_label(bars, [f"{speed:,.0f}" for speed in speeds], padding=2)
        panel.set(title=f"{batch} x {seconds:g} s", xlabel="times real time", xscale="log")
        panel.invert_yaxis()
        panel.margins(x=0.2)
    figure.savefig(path, dpi=120)
    print(path)
