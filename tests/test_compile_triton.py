"""Every Triton kernel compiles for an H100 that is not here, in the released models' sizes, and spills no register."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

COMPILE = """
import inspect, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from melglow_plugin.inference import noise_triton, refine_triton
from melglow_plugin.model.kernels import layers, lpc, predictors, triton as lvc

DOUBLES = {"coefficients", "log_gain", "start", "ends", "transitions"}
INTEGERS = {
    "frames", "hop", "channels", "out_channels", "dilation", "hops_reached", "kernel_row", "bias_row", "outputs",
    "all_channels", "n_mels", "reach", "batch", "inputs", "x_network", "x_example", "x_frame", "x_input",
    "length", "count", "n_fft", "left",
}
SIZES = {
    "TAPS": 3, "STEPS": 32, "IN": 16, "OUT": 32, "SUM": 16, "ALL": 16, "PRECISION": "ieee", "BIAS": True,
    "MASKED": True, "ORDER": 32, "SIZE": 32, "LAGS": 64, "MELS": 128, "COLUMNS": 64, "WIDENING": 0.985,
    "QUANTISATION": 1e-10,
    "FRAMES": 16, "RESIDUAL": True, "REFLECTS": True, "BLOCK": 1024, "SPAN": 4, "MAX_NATS": 200.0,
}

def compiled(function, warps, doubles=(), longs=(), **flags):
    def kind(name):
        if name in sizes:
            return "constexpr"
        if name in longs:
            return "*i64"
        return "*fp64" if name in doubles else "i32" if name in INTEGERS else "fp32" if name == "max_log_s" else "*fp32"

    names, sizes = function.arg_names, {**SIZES, **flags}
    fixed = {(i,): sizes[name] for i, name in enumerate(names) if name in sizes}
    source = ASTSource(function, {name: kind(name) for name in names}, fixed)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})

made = [compiled(f, lvc.WARPS) for f in (lvc._forward, lvc._backward_x, lvc._backward_kernel)]
made += [compiled(layers._layer, lvc.WARPS, BEGINS=not closes, CLOSES=closes) for closes in (False, True)]
made += [compiled(lpc._levinson, 1, DOUBLES), compiled(lpc._respond, 4, DOUBLES), compiled(lpc._synthesize, 1, DOUBLES)]
made += [compiled(predictors._frame_conv, 4, (), {"lengths"}, IN=16)]
made += [compiled(noise_triton._noise, 4, (), {"seeds", "start"})]
made += [compiled(f, 4, (), {"ends"}) for f in (refine_triton._frames, refine_triton._audio)]
for kernel in made:
    # The cosine in float64 has a table in local memory, for large arguments.
    spills = ".local" in kernel.asm["ptx"] and kernel.metadata.name != "_noise"
    print(kernel.metadata.name, len(kernel.asm["cubin"]) > 0, not spills)
"""


def test_the_kernels_compile(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    script = tmp_path / "compile.py"
    script.write_text(COMPILE)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    lines = subprocess.check_output([sys.executable, script], text=True).splitlines()
    assert len(lines) == 12 and all(line.split()[1:] == ["True", "True"] for line in lines)
