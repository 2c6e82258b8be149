"""Speed: warm-up, synchronised clocks, interleaved repetitions, percentiles."""

import platform
import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from melglow_plugin.files import atomic_write, make_folder, write_json
from melglow_plugin.model.melglow import WaveGlow
from melglow_plugin.vocoder import Vocoder


@dataclass(frozen=True)
class Timing:
    """One system at one length and batch; times in seconds, ``rtf`` = compute / audio of the whole batch."""

    system: str
    seconds: float
    batch: int
    median: float
    p10: float
    p90: float
    rtf: float
    peak_mib: float | None  # of the tensors that one call makes; None where torch does not see them
    launches: int | None  # torch operations of one call


def waveglow(vocoder: Vocoder, channels: int) -> Callable[[Tensor], Tensor]:
    """A WaveGlow with random weights for the mel of ``vocoder``, on its device."""
    flow = WaveGlow(n_mels=vocoder.convention.n_mels, hop_length=vocoder.hop_length, channels=channels)
    other = Vocoder(flow, vocoder.convention).to(vocoder.device)
    return lambda mel: other(mel, seed=0)


def onnx(vocoder: Vocoder) -> Callable[[Tensor], Tensor]:
    """The same model, exported, in onnxruntime on the CPU with as many threads as torch; noise included."""
    import tempfile

    import onnxruntime

    from melglow_plugin.checkpoint.onnx import to_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        (path,) = to_onnx(vocoder.checkpoint, folder)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def synthesize(mel: Tensor) -> Tensor:
        z = vocoder.noise(0, 0.6, len(mel), mel.shape[-1])
        (wav,) = session.run(None, {"mel": mel.cpu().numpy(), "z": z.cpu().numpy()})
        return torch.from_numpy(wav)

    synthesize.outside_torch = True  # Resources would count the noise alone
    return synthesize


def run(
    vocoder: Vocoder,
    lengths: list[float],
    batches: list[int],
    against: Mapping[str, Callable[[Tensor], Tensor]],
    repeats: int = 5,
) -> list[Timing]:
    """Time every system at every length (seconds) and batch, in rounds: other load on the machine affects all alike.

    ``against``: name -> a function from mel (B, M, F) to audio. Random weights cost the same time as trained ones.
    """
    found = []
    own = type(vocoder.flow).__name__
    chosen = {own: lambda mel: vocoder(mel, seed=0)}
    if vocoder.refine:
        chosen[f"{own}, unrefined"] = lambda mel: vocoder(mel, seed=0, refine=0)
    chosen |= against
    for seconds in lengths:
        frames = max(1, round(seconds * vocoder.sample_rate / vocoder.hop_length))
        for batch in batches:
            mel = vocoder.flow.mel_mean[:, None] + torch.zeros(
                batch, vocoder.convention.n_mels, frames, device=vocoder.device
            )
            times: dict[str, list[float]] = {name: [] for name in chosen}
            for i in range(repeats + 1):
                for name, synthesize in chosen.items():
                    elapsed = _once(synthesize, mel, vocoder.device)
                    if i:  # the first round warms up
                        times[name].append(elapsed)
            audio = batch * frames * vocoder.hop_length / vocoder.sample_rate
            for name, synthesize in chosen.items():
                used = Resources()
                if not getattr(synthesize, "outside_torch", False):
                    with torch.no_grad(), used:
                        synthesize(mel)
                found.append(_summary(name, seconds, batch, times[name], audio, used))
    return found


def _once(synthesize: Callable, mel: Tensor, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    synthesize(mel)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


class Resources(TorchDispatchMode):
    """Counts, while active, torch's operations and the bytes of the tensors that they make and that are alive at once.

    Weights and inputs that were there before do not count, nor does scratch memory inside an operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.peak = 0, 0
        self._alive: dict[int, int] = {}  # storage -> bytes

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        known = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **kwargs)
        self.operations += not (func.is_view or func.overloadpacket.__name__ == "_unsafe_view")
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in known and key not in self._alive:
                    self._alive[key] = storage.nbytes()
                    weakref.finalize(storage, self._alive.pop, key, None)
                    self.peak = max(self.peak, sum(self._alive.values()))
        return out


def _summary(name: str, seconds: float, batch: int, times: list[float], audio: float, used: Resources) -> Timing:
    ordered = sorted(times)
    median = statistics.median(ordered)
    low, high = ordered[int(0.1 * len(ordered))], ordered[int(0.9 * len(ordered))]
    peak, launches = (used.peak / 2**20, used.operations) if used.operations else (None, None)
    return Timing(name, seconds, batch, median, low, high, median / audio, peak, launches)


def table(timings: list[Timing]) -> str:
    """Lines for a terminal; ``ratio`` is to the first system at the same length and batch, in the same rounds."""
    lines = [
        f"{'system':14} {'audio':>7} {'batch':>5} {'median':>10} {'p10':>9} {'p90':>9} {'RTF':>8} {'ratio':>6} "
        f"{'memory':>8} {'launches':>8}"
    ]
    first = {}
    for t in timings:
        base = first.setdefault((t.seconds, t.batch), t.median)
        ms = [1e3 * value for value in (t.median, t.p10, t.p90)]
        lines.append(
            f"{t.system:14} {t.seconds:6g}s {t.batch:5} {ms[0]:8.1f}ms {ms[1]:7.1f}ms {ms[2]:7.1f}ms "
            f"{t.rtf:8.4f} {t.median / base:6.2f} "
            + (f"{'-':>8} {'-':>8}" if t.launches is None else f"{t.peak_mib:5.0f}MiB {t.launches:8}")
        )
    return "\n".join(lines)


def write(timings: list[Timing], folder: Path, device: torch.device) -> None:
    """``bench.json`` with the machine, and ``bench.png``."""
    make_folder(folder)
    machine = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
    }
    content = {"machine": machine, "timings": [asdict(t) for t in timings]}
    write_json(folder / "bench.json", content)
    import matplotlib.pyplot as plt  # not before the figures are kept

    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    systems, batches = (
        list(dict.fromkeys(values)) for values in zip(*((t.system, t.batch) for t in timings), strict=True)
    )
    for name, batch in dict.fromkeys((t.system, t.batch) for t in timings):
        points = [(t.seconds, t.rtf) for t in timings if (t.system, t.batch) == (name, batch)]
        colour, style = f"C{systems.index(name)}", ("-", "--", ":", "-.")[batches.index(batch) % 4]
        axis.plot(*zip(*points, strict=True), style, color=colour, marker="o", label=f"{name}, batch {batch}")
    axis.set(xscale="log", xlabel="audio, seconds", ylabel="real-time factor (lower is faster)")
    axis.set_xticks(seconds := sorted({t.seconds for t in timings}), [f"{s:g}" for s in seconds])
    axis.minorticks_off()
    if max(t.rtf for t in timings) > 5 * min(t.rtf for t in timings):
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper")
    with atomic_write(folder / "bench.png") as file:
        figure.savefig(file, dpi=90, format="png")
    plt.close(figure)


def _processor() -> str:
    """Its name where the system tells it, and what of it torch uses."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
