"""How a vocoder's flow is computed: in the precision that was chosen, and on a GPU by CUDA graphs."""

import functools
import operator
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from melglow_plugin.inference.chunks import CHUNK_FRAMES, forward_in_chunks, inverse_in_chunks, refine_in_chunks
from melglow_plugin.inference.cuda_graphs import GraphedSynthesis
from melglow_plugin.inference.noise import noise_of
from melglow_plugin.inference.resynthesis import RESYNTHESIS, resynthesize
from melglow_plugin.inference.sharpening import sharpened
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.kernels import choice
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.processor import warn_if_emulated

_MAKING = threading.Lock()  # of graphs, so that threads find the same ones


class Engine:
    """Both directions of a flow, and whole calls, for tensors that were checked.

    Args:
        flow: its weights may change in place at any time: graphs that hold old ones are made anew.
        convention: what the mel means; None: for :meth:`inverse` alone.
        dtype: bfloat16 or float16 run the conditioners in that precision.

    With ``graphs``, CUDA graphs are used wherever the flow is on a CUDA device, and where they fail the plain call
    after one warning. The environment variable MELGLOW_CUDA_GRAPHS=0 is for commands that have no such option.
    """

    GRAPH_DEVICE = "cuda"

    def __init__(self, flow: MelModel, convention: MelConvention | None, dtype: torch.dtype | None) -> None:
        self.flow, self.convention, self.dtype = flow, cast(MelConvention, convention), dtype
        self.graphs = os.environ.get("MELGLOW_CUDA_GRAPHS") != "0"
        self.make_graphs = GraphedSynthesis
        self.forget_graphs()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_graphed": None, "_weights": []}  # a copy makes graphs of its own

    @property
    def device(self) -> torch.device:
        return self.flow.mel_mean.device

    def forget_graphs(self) -> None:
        """Free the graphs: the next call makes new ones."""
        self._graphed: GraphedSynthesis | None = None
        self._weights: list[Tensor] = []
        self._version = 0

    # What a vocoder asks for

    def synthesize(
        self,
        mel: Tensor,
        lengths: Tensor | None,
        seeds: Sequence[int],
        sigma: float,
        rounds: int | str,
        strength: float = 0.0,
        start: int = 0,
    ) -> tuple[Tensor, Tensor | None]:
        """wav (B, T) of ``mel`` (B, M, F): sharpening, noise, flow, refinement, limits.

        Arguments as :class:`GraphedSynthesis`'s; ``rounds`` may be :data:`RESYNTHESIS`, which follows the graph.

        Returns:
            wav (B, T), and of a graph the largest absolute value of ``mel``, (), NaN where it holds one; else None.
        """
        if rounds == RESYNTHESIS:
            wav, largest = self.synthesize(mel, lengths, seeds, sigma, 0, strength, start)
            return self._towards_mel(wav, sharpened(mel, self.convention, strength), lengths, rounds), largest
        if mel.shape[-1] <= CHUNK_FRAMES:
            graphed = self._by_graph(
                lambda graphs: graphs.synthesize(mel, lengths, seeds, sigma, cast(int, rounds), strength, start)
            )
            if graphed is not None:
                return graphed
        z = noise_of(seeds, sigma, mel.shape[-1] * self.flow.hop_length, mel.device, start)
        return self.from_latent(z, mel, lengths, rounds, strength), None

    def from_latent(
        self, z: Tensor, mel: Tensor, lengths: Tensor | None, rounds: int | str, strength: float = 0.0
    ) -> Tensor:
        """wav (B, T) in [-1, 1] of ``z`` (B, T) and the sharpened ``mel``, refined, and zeros behind each length."""
        mel = sharpened(mel, self.convention, strength)
        return self._towards_mel(self.inverse(z, mel, lengths).clamp(-1, 1), mel, lengths, rounds)

    def _towards_mel(self, wav: Tensor, mel: Tensor, lengths: Tensor | None, rounds: int | str) -> Tensor:
        """The refined ``wav`` (B, T) in [-1, 1], and zeros behind each length."""
        if rounds == RESYNTHESIS:
            wav, rounds = resynthesize(wav, mel, self.convention, lengths, self.flow.postfilter), 0
        wav = refine_in_chunks(wav, mel, lengths, self.convention, cast(int, rounds)).clamp(-1, 1)
        if lengths is None:
            return wav
        samples = torch.arange(wav.shape[1], device=wav.device)
        return wav.masked_fill(samples >= lengths[:, None] * self.flow.hop_length, 0.0)

    def inverse(self, z: Tensor, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The flow's own inverse of ``z`` (B, T), (B, T), in bounded memory."""
        return inverse_in_chunks(self._inverse, self.flow, z, mel, lengths)

    def forward(self, wav: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, T) and log_det (B,) of ``wav`` (B, T), in bounded memory."""
        return self._in_precision(forward_in_chunks, self.flow, wav, mel)

    # How

    def _inverse(self, z: Tensor, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        graphed = self._by_graph(lambda graphs: graphs.inverse(z, mel, lengths))
        return self._in_precision(self.flow.inverse, z, mel, lengths) if graphed is None else graphed

    def _in_precision(self, run: Callable, *args):
        if self.device.type == "cpu":
            warn_if_emulated(self.dtype)
        reduced = self.dtype not in (None, torch.float32)
        with torch.autocast(self.device.type, self.dtype if reduced else torch.bfloat16, enabled=reduced):
            return run(*args)

    def _by_graph(self, call: Callable[[GraphedSynthesis], object]):
        """What ``call`` gives, or None where there are no graphs, or where they failed."""
        if not self.graphs or self.device.type != self.GRAPH_DEVICE:
            return None
        try:
            # A caller's autocast would be recorded.
            with torch.autocast(self.device.type, enabled=False):
                return call(self._current_graphs())
        except Exception as error:
            self.graphs = False
            self.forget_graphs()
            if isinstance(error, torch.cuda.OutOfMemoryError):
                torch.cuda.empty_cache()
            first_line = str(error).splitlines()[0] if str(error) else ""
            warnings.warn(
                f"CUDA graphs do not run here, launches one by one do instead, slower: {type(error).__name__}: "
                f"{first_line}",
                stacklevel=4,
            )
            return None

    def _current_graphs(self) -> GraphedSynthesis:
        """Graphs with the weights of this moment."""
        with _MAKING:
            if self._graphed is None or self._version != _version(self._weights):
                self._weights = [*self.flow.parameters(), *self.flow.buffers()]
                self._version = _version(self._weights)
                self._graphed = self.make_graphs(self._inverse_to_capture(), self.convention)
            return self._graphed

    def _inverse_to_capture(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The inverse with the weights of this moment, in few kernels as long as they run."""
        fused = self._fused_inverse()

        @functools.cache
        def plain() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
            return functools.partial(self._in_precision, self.flow.with_constant_inverses().inverse)

        if fused is None:
            return plain()

        def inverse(z: Tensor, mel: Tensor, lengths: Tensor) -> Tensor:
            if choice.takes_fused(z, z.dtype):
                try:
                    return fused(z, mel, lengths)
                except Exception as error:
                    choice.fall_back(error)
            return plain()(z, mel, lengths)

        return inverse

    def _fused_inverse(self) -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
        """None where the kernels do not take the flow, or do not run."""
        if choice.takes_fused(self.flow.mel_mean, torch.float32):
            try:
                from melglow_plugin.inference import fused_inverse  # needs Triton

                if fused_inverse.runs(self.flow):
                    return fused_inverse.FusedInverse(self.flow, self.dtype or torch.float32)
            except Exception as error:
                choice.fall_back(error)
        return None


def _version(weights: list[Tensor]) -> int:
    """A number that grows with each change in place of any of ``weights``."""
    return sum(map(operator.attrgetter("_version"), weights))
