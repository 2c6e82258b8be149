"""What the benchmark of a GPU decides, of made-up tables; and its rounds, which follow the time that is left."""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from gpu_timing import Budget, median_seconds
from gpu_verdicts import verdicts

CASES = ((1, 1), (1, 10), (16, 10))
FAST = {"graphs": (0.9e-3, 1.7e-3, 15e-3), "graphs, tf32": (0.8e-3, 1.2e-3, 9e-3)}


def tables(bf16=(0.8e-3, 1.2e-3, 9e-3), launches=135, error=2e-6) -> dict:
    rows = [
        {"system": system, "batch": batch, "seconds": seconds, "median": median}
        for system, medians in {**FAST, "graphs, bf16": bf16}.items()
        for (batch, seconds), median in zip(CASES, medians, strict=True)
    ]
    return {
        "speeds": rows, "wav_errors": {"fused": {"max": 1e-6}, "graphs": {"max": error}},
        "launches": {"graphs": {"on_device": launches}},
        "operators": [{"fused": True, "warps": warps, "training step": 1 / warps} for warps in (1, 4)],
    }  # fmt: skip


def refused(result: dict) -> list[str]:
    return [answer["question"] for answer in verdicts(result) if not answer["ok"]]


def test_what_keeps_its_word_passes():
    assert len(verdicts(tables())) == 9 and refused(tables()) == []
    assert verdicts({}) == []


@pytest.mark.parametrize("change, question", [
    ({"bf16": (0.8e-3, 1.8e-3, 9e-3)}, "bf16: least gain over float32"), ({"launches": 151}, "kernels of a call"),
    ({"error": 2e-4}, "largest error of the wav, graphs"),
    ({"error": float("nan")}, "largest error of the wav, graphs"),
])  # fmt: skip
def test_what_does_not_is_named(change, question):
    assert refused(tables(**change)) == [question]


def test_a_slow_system_has_fewer_rounds_and_the_time_is_kept():
    calls = {"fast": 0, "slow": 0}

    def run(name: str, seconds: float):
        calls[name] += 1
        time.sleep(seconds)

    systems = {"fast": lambda: run("fast", 1e-4), "slow": lambda: run("slow", 0.05)}
    start = time.monotonic()
    found = median_seconds(systems, "cpu", rounds=20, warm_up=9, seconds=0.5)
    assert time.monotonic() - start < 2 and calls == {"fast": 30, "slow": pytest.approx(5, abs=2)}
    assert found["slow"] == pytest.approx(0.05, rel=0.5) and found["fast"] < found["slow"]
    assert Budget(10).share(0.5) == pytest.approx(5, abs=0.1) and Budget(-1).share(0.5) == 0


def test_the_model_that_is_compared_has_one_round(monkeypatch):
    """Resynthesis of two devices differs by more than the limit."""
    pytest.importorskip("triton")
    import gpu

    assert gpu.load("cpu").refine == 1
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    assert gpu.load("cpu").refine == 1
