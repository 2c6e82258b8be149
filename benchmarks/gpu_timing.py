"""Times of calls on a GPU, and the precision of its products."""

import contextlib
import statistics
import time
from collections.abc import Callable

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
