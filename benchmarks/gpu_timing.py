"""Times of calls on a GPU and their chart, and the precision of its products."""

import contextlib
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


def median_seconds(systems: dict[str, Callable], device: str, rounds: int, warm_up: int = 9) -> dict[str, float | None]:
    """Median of each, in turns, so that a slow spell hits all alike; None where memory was short."""
    times = {name: [] for name in systems}
    for i in range(rounds + warm_up):
        for name, run in systems.items():
            if times[name] is None:
                continue
            try:
                synchronize(device)
                start = time.perf_counter()
                run()
                synchronize(device)
            except torch.cuda.OutOfMemoryError:
                times[name] = None
                torch.cuda.empty_cache()
                continue
            if i >= warm_up:
                times[name].append(time.perf_counter() - start)
    return {name: values and statistics.median(values) for name, values in times.items()}


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
