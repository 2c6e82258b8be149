"""What fits the processor: threads that soon sleep while they wait, a thread for each free core, a fast precision."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from melglow_plugin import processor

ROOT = Path(__file__).parents[1]
# Stops at the first import that may bring OpenMP, and says how threads will wait.
STOP = """
import os, runpy, sys

class Stop:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ("torch", "numpy", "coqpit", "trainer", "TTS", "espnet2", "espnet3"):
            sys.stdout.write(name + " " + os.environ.get("GOMP_SPINCOUNT", "none"))
            sys.stdout.flush()
            os._exit(0)

sys.meta_path.insert(0, Stop)
kind, target, *sys.argv[1:] = sys.argv[1:]
if kind == "module":
    runpy.run_module(target, run_name="__main__", alter_sys=True)
else:
    sys.path.insert(0, os.path.dirname(target))
    runpy.run_path(target, run_name="__main__")
"""
MODULES = [
    ["melglow_plugin.cli", "info"], ["melglow_plugin.run", "-m", "torch"], ["melglow_plugin.espnet.train"],
    ["melglow_plugin.espnet.minutes"],
]  # fmt: skip
SCRIPTS = [*sorted(ROOT.glob("egs/*/coqui/*.py")), *sorted(ROOT.glob("egs/*/voc1_espnet3/*.py"))]


@pytest.mark.parametrize(
    "command", [*(["module", *each] for each in MODULES), *(["script", str(path)] for path in SCRIPTS)],
    ids=lambda command: Path(command[1]).name,
)  # fmt: skip
@pytest.mark.parametrize(
    ("chosen", "spins"),
    [({}, processor.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "none")],
    ids=["none", "spins", "policy"],
)
def test_every_command_limits_how_long_threads_look_before_torch_is_there(command, chosen, spins):
    environment = without_choice() | {"PYTHONPATH": str(ROOT), **chosen}
    result = subprocess.run([sys.executable, "-c", STOP, *command], env=environment, capture_output=True, text=True)
    assert result.stdout.split()[-1:] == [spins], result.stdout + result.stderr[-500:]


def test_the_recipe_limits_it_too():
    path = ROOT / "egs" / "ljspeech" / "voc1" / "path.sh"
    said = subprocess.check_output(["bash", "-c", f". {path}; echo $GOMP_SPINCOUNT"], env=without_choice(), text=True)
    assert said.strip() == processor.SPINS


def without_choice() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}


def test_cores_of_others_are_left_to_them(monkeypatch):
    monkeypatch.setattr(processor, "allowed_cores", lambda: 4)
    monkeypatch.setattr(processor.os, "cpu_count", lambda: 4)
    # Seconds on the clock, of all processes, of this one: others take 0, 1.4, 1.6, 9 cores, then it is not told.
    told = [(0, 0, 0), (10, 20, 20), (20, 54, 40), (30, 90, 60), (40, 200, 80), None]
    monkeypatch.setattr(processor, "_used", iter(told).__next__)
    cores = processor.Cores()
    assert [cores.free() for _ in told[1:]] == [4, 3, 2, 1, 4]


def test_torch_gets_the_free_cores_unless_the_user_says_how_many(monkeypatch):
    threads, cores = torch.get_num_threads(), processor.Cores()
    monkeypatch.setattr(cores, "free", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert processor.use_free_cores(cores) == threads
    monkeypatch.delenv("OMP_NUM_THREADS")
    try:
        assert processor.use_free_cores(cores) == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", float("inf")), ("150000 100000", 1.5), ("1 100000", 1)])
def test_the_limit_of_the_control_group_counts(tmp_path, quota, cores):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert processor._group_limit(tmp_path) == cores
    assert processor._group_limit(tmp_path / "none") == float("inf")


@pytest.mark.parametrize(
    ("native", "seconds", "chosen"),
    [(False, (9, 1), "float32"), (True, (1, 2), "float32"), (True, (1, 0.95), "float32"), (True, (2, 1), "bfloat16")],
)
def test_bfloat16_is_chosen_where_it_is_native_and_faster(monkeypatch, native, seconds, chosen):
    times = dict(zip((torch.float32, torch.bfloat16), seconds, strict=True))
    monkeypatch.setattr(processor, "has_bfloat16", lambda: native)
    monkeypatch.setattr(processor, "_seconds_of_product", times.__getitem__)
    processor.fast_dtype.cache_clear()
    try:
        assert processor.resolved_dtype("auto") == getattr(torch, chosen)
        assert processor.resolved_dtype("bfloat16") == torch.bfloat16
    finally:
        processor.fast_dtype.cache_clear()
    with pytest.raises(ValueError, match="dtype 'float8' is none of auto, float32, bfloat16"):
        processor.resolved_dtype("float8")


@pytest.mark.parametrize(
    ("limit", "allowed"), [("AVX2", False), ("AVX512_CORE_VNNI", False), ("AVX512_CORE_BF16", True), (None, True)]
)
def test_onednns_limit_counts(monkeypatch, limit, allowed):
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert processor._onednn_allows() == allowed


def test_emulation_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(processor, "has_bfloat16", lambda: False)
    processor.warn_if_emulated.cache_clear()
    for _ in range(2):
        processor.warn_if_emulated(torch.bfloat16)
        processor.warn_if_emulated(torch.float32)
    assert [record.message for record in caplog.records] == [
        "this processor has no bfloat16 of its own: it is emulated, and slower than float32"
    ]
    processor.warn_if_emulated.cache_clear()
