"""CUDA graphs over buckets of lengths: one launch replays the hundreds of a call, at any length.

Not run on a GPU yet: the tests put a stand-in in the place of :class:`Capture`.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

FIRST_BUCKET, RATIO = 32, 1.25  # frames; at most a quarter is padding, and 12 s of audio meet 17 buckets


def bucket(frames: int) -> int:
    """The length to which ``frames`` are padded: 32, and from there each by a quarter more, rounded up to eights."""
    size = FIRST_BUCKET
    while size < frames:
        size = -(-int(size * RATIO) // 8) * 8
    return size


class GraphedInverse:
    """``inverse(z, mel, lengths)`` replayed from graphs, one for each batch size and bucket, captured at first use.

    One call at a time: threads wait for each other.

    Args:
        inverse: z (B, T), mel (B, M, F), lengths (B,) -> wav (B, T), where nothing behind ``lengths`` changes what is
            before; no shape may depend on values, and nothing may wait for the device.
        hop_length: samples per mel frame.
        capture: makes a replay of a function from examples of its arguments; None: :class:`Capture`.
        limit: graphs that are kept; the one not used for longest makes room.
    """

    def __init__(
        self,
        inverse: Callable[[Tensor, Tensor, Tensor], Tensor],
        hop_length: int,
        capture: Callable | None = None,
        limit: int = 16,
    ) -> None:
        self.inverse, self.hop_length, self.limit = inverse, hop_length, limit
        self.capture = Capture() if capture is None else capture
        self._replays: OrderedDict[tuple[int, int], Callable] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, z: Tensor, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``z`` (B, T), ``mel`` (B, M, F), ``lengths`` (B,) in frames or None -> wav (B, T), a tensor of its own."""
        batch, frames = len(mel), mel.shape[-1]
        size = bucket(frames)
        mel = F.pad(mel, (0, size - frames))
        z = F.pad(z, (0, (size - frames) * self.hop_length))
        lengths = torch.full((batch,), frames, device=mel.device) if lengths is None else lengths.long()
        with self._lock:
            replay = self._replays.pop((batch, size), None)
            if replay is None:
                if len(self._replays) >= self.limit:
                    self._replays.popitem(last=False)
                replay = self.capture(self.inverse, z, mel, lengths)
            self._replays[batch, size] = replay
            return replay(z, mel, lengths)[:, : frames * self.hop_length]


class Capture:
    """Records functions of CUDA tensors as graphs. They share their memory, so their replays follow each other."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._done = torch.cuda.Event()  # whoever replays next, maybe on another stream, waits for it

    @torch.no_grad()
    def __call__(self, run: Callable[..., Tensor], *example: Tensor) -> Callable[..., Tensor]:
        """Record ``run``, which has no effect but its result.

        ``example`` are arguments of the shapes and dtypes of all later ones. The function that is returned copies its
        arguments in, replays the graph, and gives a copy of the result.
        """
        inputs = [tensor.clone() for tensor in example]
        device = inputs[0].device
        with torch.cuda.device(device):
            # Two runs on a stream of their own first: kernels are compiled, libraries take their workspaces.
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):
                    run(*inputs)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                out = run(*inputs)

        def replay(*arguments: Tensor) -> Tensor:
            with torch.cuda.device(device):
                torch.cuda.current_stream().wait_event(self._done)
                for mine, given in zip(inputs, arguments, strict=True):
                    mine.copy_(given)
                graph.replay()
                result = out.clone()
                self._done.record()
            return result

        return replay
