"""CUDA graphs over buckets of lengths: one launch replays the hundred and more of a call, at any length.

Replay on a GPU was measured for the flow's inverse alone (docs/speed.md). That the whole call is one graph was not
run on a GPU: the tests put a stand-in in the place of :class:`Capture`.
"""

import functools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from melglow_plugin.inference.noise import scaled_noise
from melglow_plugin.inference.refine import refine
from melglow_plugin.inference.sharpening import sharpened
from melglow_plugin.mel.convention import MelConvention

FIRST_BUCKET, RATIO = 32, 1.25  # frames; at most a quarter is padding, and 12 s of audio meet 17 buckets
_CAPTURING = threading.Lock()  # torch captures one graph at a time in a process


def bucket(frames: int) -> int:
    """The length to which ``frames`` are padded: 32, and from there each by a quarter more, rounded up to eights."""
    size = FIRST_BUCKET
    while size < frames:
        size = -(-int(size * RATIO) // 8) * 8
    return size


class GraphedSynthesis:
    """A vocoder's calls replayed from graphs, one for each kind, batch size and bucket, captured at first use.

    One call at a time: threads wait for each other. The weights are those that ``inverse`` holds.

    Args:
        inverse: z (B, T), mel (B, M, F), lengths (B,) -> wav (B, T), where nothing behind ``lengths`` changes what is
            before; no shape may depend on values, and nothing may wait for the device.
        convention: what the mel means.
        capture: makes a replay of a function from examples of its arguments; None: :class:`Capture`.
        limit: graphs that are kept; beyond that the least recently used one is dropped.
    """

    def __init__(
        self,
        inverse: Callable[[Tensor, Tensor, Tensor], Tensor],
        convention: MelConvention,
        capture: Callable | None = None,
        limit: int = 16,
    ) -> None:
        self._inverse, self.convention, self.limit = inverse, convention, limit
        self.capture = Capture() if capture is None else capture
        self._replays: OrderedDict[tuple, Callable] = OrderedDict()
        self._lock = threading.Lock()

    def inverse(self, z: Tensor, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``z`` (B, T), ``mel`` (B, M, F), ``lengths`` (B,) in frames or None -> wav (B, T), a tensor of its own."""
        missing = bucket(mel.shape[-1]) - mel.shape[-1]
        padded = F.pad(z, (0, missing * (z.shape[1] // mel.shape[-1])))

        def run(mel: Tensor, lengths: Tensor, z: Tensor) -> tuple[Tensor]:
            return (self._inverse(z, mel, lengths),)

        return self._replay("inverse", run, mel, lengths, padded)[0]

    def synthesize(
        self,
        mel: Tensor,
        lengths: Tensor | None,
        seeds: Sequence[int],
        sigma: float,
        rounds: int,
        strength: float = 0.0,
        start: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """A whole call: sharpening, noise, flow, refinement, limits, silence behind each length.

        Args:
            mel: (B, M, F).
            lengths: (B,) in frames, or None.
            seeds: of each example.
            sigma: standard deviation of the noise.
            rounds: of refinement.
            strength: of sharpening.
            start: the sample of the noise at which the mel begins.

        Returns:
            wav (B, T), and the largest absolute value of ``mel``, (), NaN where it holds one: both on the device.
        """

        def run(mel: Tensor, lengths: Tensor, seeds: Tensor, start: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
            samples = torch.arange(mel.shape[-1] * self.convention.hop_length, device=mel.device)
            sharp = sharpened(mel, self.convention, strength)
            wav = self._inverse(scaled_noise(seeds, start, sigma, len(samples)), sharp, lengths).clamp(-1, 1)
            if rounds:
                wav = refine(wav, sharp, self.convention, rounds, lengths).clamp(-1, 1)
            wav = wav.masked_fill_(samples >= lengths[:, None] * self.convention.hop_length, 0.0)
            return wav, torch.linalg.vector_norm(mel, math.inf)

        scalars = torch.tensor(start), torch.tensor(float(sigma))
        wav, largest = self._replay(("synthesize", rounds, strength), run, mel, lengths, torch.tensor(seeds), *scalars)
        return wav, largest

    def _replay(self, kind, run: Callable, mel: Tensor, lengths: Tensor | None, *more: Tensor) -> tuple[Tensor, ...]:
        """``run(mel, lengths, *more)`` at the next bucket; of what it gives, the first is a wav, cut to the mel."""
        batch, frames = len(mel), mel.shape[-1]
        size = bucket(frames)
        mel = F.pad(mel, (0, size - frames))
        lengths = torch.full((batch,), frames, device=mel.device) if lengths is None else lengths.long()
        key = (kind, batch, size)
        with self._lock:
            replay = self._replays.pop(key, None)
            if replay is None:
                if len(self._replays) >= self.limit:
                    self._replays.popitem(last=False)
                replay = self.capture(run, mel, lengths, *(given.to(mel.device) for given in more))
            self._replays[key] = replay
            wav, *rest = replay(mel, lengths, *more)
        return wav[:, : frames * (wav.shape[1] // size)], *rest


class Recorder:
    """Runs and records functions of one device's tensors. The graphs share memory: one is replayed after the other.

    Args:
        device: of the functions' tensors; None: the current one.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        # Graphs share memory if they are captured on one stream; torch's default one is of the device that captured
        # first.
        self.stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def run_aside(self, run: Callable):
        """``run()`` on the stream of the captures, as it has to be before: kernels are compiled, libraries prepared."""
        with torch.cuda.device(self.stream.device):
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                results = run()
            torch.cuda.current_stream().wait_stream(self.stream)
        return results

    def record(self, run: Callable, **options) -> Callable:
        """Record ``run`` without running it; the function returned replays it into the same results.

        ``options`` are those of ``torch.cuda.graph``.
        """
        device, graph = self.stream.device, torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(graph, pool=self._pool, stream=self.stream, **options):
            results = run()

        def replay():
            with torch.cuda.device(device):
                graph.replay()
            return results

        return replay


class Capture:
    """Makes replays of functions of one device's tensors, for any thread."""

    def __init__(self) -> None:
        self._done = torch.cuda.Event()  # whoever replays next, maybe on another stream, waits for it
        self._recorder: Recorder | None = None  # of the device of the first function

    @torch.no_grad()
    def __call__(self, run: Callable[..., tuple[Tensor, ...]], *example: Tensor) -> Callable[..., tuple[Tensor, ...]]:
        """Record ``run``, which has no effect but its results.

        ``example`` are arguments of the shapes and dtypes of all later ones. The function that is returned copies its
        arguments in, from the device or the CPU, replays the graph, and gives copies of the results.
        """
        inputs = [tensor.clone() for tensor in example]
        device, run = inputs[0].device, functools.partial(run, *inputs)
        with _CAPTURING:
            recorder = self._recorder = self._recorder or Recorder(device)
            for _ in range(2):
                recorder.run_aside(run)
            # Other threads may use the device meanwhile.
            graph = recorder.record(run, capture_error_mode="thread_local")

        def replay(*arguments: Tensor) -> tuple[Tensor, ...]:
            with torch.cuda.device(device):
                torch.cuda.current_stream().wait_event(self._done)
                for mine, given in zip(inputs, arguments, strict=True):
                    mine.copy_(given, non_blocking=True)
                results = tuple(result.clone() for result in graph())
                self._done.record()
            return results

        return replay
