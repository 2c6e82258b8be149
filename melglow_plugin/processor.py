"""The processor: how many cores are free, and which precision is fast on it."""

import functools
import logging
import os
import sys
import time
from pathlib import Path

logger = logging.getLogger(__name__)
DTYPES = ("auto", "float32", "bfloat16")
STEPS_BETWEEN = 10  # training steps from one measurement of what other processes use to the next
SPINS = "1000"  # turns of GNU OpenMP, which torch's Linux wheels use, before a waiting thread sleeps
FASTER = 0.9  # bfloat16 is taken where it needs less than this share of float32's time


# Cores


def prepare() -> None:
    """Before torch is imported: threads that wait for each other spin for a moment and then sleep.

    Without the limit they would spin for milliseconds, on cores that other processes need. If they slept at once, a
    step on idle cores would take twice as long (docs/speed.md). What the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def allowed_cores() -> int:
    """Cores that this process may use: affinity and the limit of its control group."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, round(min(count, _group_limit())))


def _group_limit(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores that the control group may use; infinite where it has no limit."""
    try:
        if (root / "cpu.max").is_file():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float("inf") if quota.strip() in ("max", "-1") else max(1.0, float(quota) / float(period))
    except (OSError, ValueError):
        return float("inf")


class Cores:
    """How many cores other processes leave free, measured between two calls of :meth:`free`."""

    def __init__(self) -> None:
        self._seen = _used()
        self._steps = 0

    def count_step(self) -> None:
        """At every tenth training step on a CPU, give torch a thread for each core that is free."""
        self._steps += 1
        if self._steps % STEPS_BETWEEN == 0:
            use_free_cores(self)

    def free(self) -> int:
        """At least 1; all that are allowed where the system does not report what other processes use."""
        before, self._seen = self._seen, _used()
        allowed = allowed_cores()
        if before is None or self._seen is None or (seconds := self._seen[0] - before[0]) <= 0:
            return allowed
        others = (self._seen[1] - before[1] - (self._seen[2] - before[2])) / seconds
        # A process that uses less than half a core costs less than one thread fewer.
        return max(1, allowed - max(0, round(others - (os.cpu_count() or allowed) + allowed)))


def _used() -> tuple[float, float, float] | None:
    """Seconds on the clock, seconds that all processes have computed, and those of this one; None: not reported."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(value) for value in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    busy = sum(ticks) - ticks[3] - ticks[4]  # less idle and waiting for disks
    return time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), time.process_time()


def use_free_cores(cores: Cores | None = None) -> int:
    """Give torch a thread for each free core, unless OMP_NUM_THREADS says how many; returns how many it has.

    Args:
        cores: measures since its last call; None: measure now, for a fifth of a second.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        if cores is None:
            cores = Cores()
            time.sleep(0.2)
        torch.set_num_threads(cores.free())
    return torch.get_num_threads()


# Precision


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself, and torch lets it."""
    import torch

    capabilities = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    native = any(bool(supported and supported()) for supported in capabilities) or _arm_has_bfloat16()
    return native and torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2") and _onednn_allows()


def _onednn_allows() -> bool:
    """Whether ONEDNN_MAX_CPU_ISA, which limits oneDNN to older instructions, leaves bfloat16 in."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "DEFAULT")).upper()
    return any(name in limit for name in ("DEFAULT", "ALL", "BF16", "FP16", "AMX", "AVX10"))


def _arm_has_bfloat16() -> bool:
    try:
        return sys.platform == "linux" and " bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="ignore")
    except OSError:
        return False


@functools.cache
def fast_dtype():
    """bfloat16 where this processor computes it itself and a short measurement finds it faster, else float32."""
    import torch

    if not has_bfloat16():
        logger.info("conditioner_dtype auto: float32, this processor has no bfloat16 of its own")
        return torch.float32
    seconds = {dtype: _seconds_of_product(dtype) for dtype in (torch.float32, torch.bfloat16)}
    chosen = torch.bfloat16 if seconds[torch.bfloat16] < FASTER * seconds[torch.float32] else torch.float32
    logger.info(
        "conditioner_dtype auto: %s; a product took %.2f ms in float32 and %.2f ms in bfloat16",
        str(chosen).removeprefix("torch."), 1e3 * seconds[torch.float32], 1e3 * seconds[torch.bfloat16],
    )  # fmt: skip
    return chosen


def _seconds_of_product(dtype) -> float:
    """The fastest of some products of the size that a conditioner's kernels are predicted by."""
    import torch

    a, b = torch.ones(128, 96, dtype=dtype), torch.ones(96, 4096, dtype=dtype)
    times = []
    with torch.no_grad():
        for _ in range(6):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
    return min(times)


def resolved_dtype(name: str, device_type: str = "cpu"):
    """The torch dtype of ``auto``, ``float32`` or ``bfloat16``; ValueError for another name.

    ``auto`` is :func:`fast_dtype` on a CPU, and bfloat16 on a GPU that has it.
    """
    import torch

    if name not in DTYPES:
        raise ValueError(f"dtype {name!r} is none of {', '.join(DTYPES)}")
    if name != "auto":
        return getattr(torch, name)
    if device_type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return fast_dtype() if device_type == "cpu" else torch.float32


@functools.cache
def warn_if_emulated(dtype) -> None:
    """Say once that 16-bit numbers are emulated on this CPU."""
    import torch

    if dtype == torch.bfloat16 and not has_bfloat16():
        logger.warning("this processor has no bfloat16 of its own: it is emulated, and slower than float32")


def main() -> None:
    """``python -m melglow_plugin.processor``: the cores of this machine, for a recipe."""
    count = allowed_cores()
    print(f"{count} CPU {'core' if count == 1 else 'cores'}")


if __name__ == "__main__":
    main()
