"""Streaming and long recordings, exactly: each piece is computed with the whole receptive field around it."""

from collections.abc import Callable, Iterable, Iterator
from typing import cast

import torch
from torch import Tensor

from melglow_plugin.inference.refine import reach_frames, refine
from melglow_plugin.inference.resynthesis import RESYNTHESIS, Resynthesis, resynthesized
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.model.melflow import MelFlow
from melglow_plugin.model.postfilter import Postfilter

CHUNK_FRAMES = 1024  # computed at once; 12 s at 22,050 Hz and hop 256


def _windows(frames: int, chunk_frames: int, past: int, future: int) -> Iterator[tuple[int, int, int, int]]:
    """For each chunk its first frame and the one behind it, and both of the window that it is computed in.

    A window has ``past`` frames before the chunk and ``future`` frames behind it. Where one window of that size would
    hold all ``frames``, there is one chunk.
    """
    step = frames if frames <= chunk_frames + past + future else chunk_frames
    for start in range(0, frames, step):
        stop = min(start + step, frames)
        yield start, stop, max(0, start - past), min(frames, stop + future)


def inverse_in_chunks(
    inverse: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    flow: MelModel,
    z: Tensor,
    mel: Tensor,
    lengths: Tensor | None,
    chunk_frames: int = CHUNK_FRAMES,
) -> Tensor:
    """``inverse(z, mel, lengths)`` in bounded memory: beyond the receptive field nothing changes a sample.

    Args:
        z: (B, T).
        mel: (B, M, F).
        lengths: frames of each example, or None.
        chunk_frames: frames computed at once, besides the context.

    Returns:
        wav (B, T).
    """
    hop, context, pieces = flow.hop_length, flow.context_frames, []
    windows = _windows(mel.shape[-1], chunk_frames, context + flow.memory_frames, context)
    for start, stop, first, last in windows:
        # An example that ended before this piece keeps one frame: its samples are dropped by the caller.
        own_lengths = None if lengths is None else (lengths - first).clamp(1, last - first)
        wav = inverse(z[:, first * hop : last * hop], mel[..., first:last], own_lengths)
        pieces.append(wav[:, (start - first) * hop : (stop - first) * hop])
    return torch.cat(pieces, dim=1)


def forward_in_chunks(
    flow: MelFlow, wav: Tensor, mel: Tensor, chunk_frames: int = CHUNK_FRAMES
) -> tuple[Tensor, Tensor]:
    """``flow(wav, mel)`` in bounded memory, without gradients.

    A window's log_det includes its context, and the outer ends of the context are not exact. Where two windows overlap
    around a joint, the log_det of the overlap, computed with the same ends, is subtracted.

    Args:
        wav: (B, T).
        mel: (B, M, F).
        chunk_frames: frames computed at once, besides the context.

    Returns:
        z (B, T) and log_det (B,).
    """
    frames, hop, context = mel.shape[-1], flow.hop_length, flow.context_frames

    def latent(first: int, last: int) -> tuple[Tensor, Tensor]:
        return flow(wav[:, first * hop : last * hop], mel[..., first:last])

    pieces, total = [], torch.zeros(len(wav), dtype=torch.float64, device=wav.device)
    for start, stop, first, last in _windows(frames, chunk_frames, context + flow.memory_frames, context):
        z, log_det = latent(first, last)
        pieces.append(z[:, (start - first) * hop : (stop - first) * hop])
        total += log_det
        if start:
            total -= latent(first, min(frames, start + context))[1]
    return torch.cat(pieces, dim=1), total.to(log_det.dtype)


def refine_in_chunks(
    wav: Tensor,
    mel: Tensor,
    lengths: Tensor | None,
    convention: MelConvention,
    rounds: int,
    chunk_frames: int = CHUNK_FRAMES,
) -> Tensor:
    """``refine`` in bounded memory.

    Args:
        wav: (B, T).
        mel: (B, M, F).
        lengths: frames of each example, or None.
        convention, rounds: as in ``refine``.
        chunk_frames: frames refined at once, besides those that they depend on.

    Returns:
        wav (B, T); the samples behind each length mean nothing.
    """
    hop, reach, pieces = convention.hop_length, reach_frames(convention, rounds), []
    for start, stop, first, last in _windows(mel.shape[-1], chunk_frames, reach, reach):
        own_lengths = None if lengths is None else (lengths - first).clamp(0, last - first)
        piece = refine(wav[:, first * hop : last * hop], mel[..., first:last], convention, rounds, own_lengths)
        pieces.append(piece[:, (start - first) * hop : (stop - first) * hop])
    return torch.cat(pieces, dim=1)


def look_ahead(flow: MelModel, convention: MelConvention, refinement: int | str) -> int:
    """Frames that must follow a frame before a stream yields its audio, by rounds or :data:`RESYNTHESIS`."""
    if refinement == RESYNTHESIS:
        return flow.context_frames + Resynthesis(convention, flow.postfilter).delay
    return flow.context_frames + reach_frames(convention, cast(int, refinement))


def stream(
    synthesize: Callable[[Tensor, int], Tensor],
    chunks: Iterable[Tensor],
    convention: MelConvention,
    refinement: int | str,
    context: int,
    memory: int,
    postfilter: Postfilter | None = None,
) -> Iterator[Tensor]:
    """Audio of a mel as it arrives, in pieces (F_i * hop_length,).

    Args:
        synthesize: wav (F * hop_length,) of a window (M, F) that begins at a given frame.
        chunks: pieces (M, F_i) of the mel.
        convention: what the mel means.
        refinement: rounds, or :data:`RESYNTHESIS`.
        context: frames on either side of a frame that can change its samples; ``memory`` more in the past.
        postfilter: the model's, for resynthesis.
    """
    hop = convention.hop_length

    def with_audio(mel: Tensor, first: int) -> Tensor:
        return torch.cat([mel, synthesize(mel, first).view(-1, hop).mT])

    def with_refined_audio(columns: Tensor, first: int) -> Tensor:
        wav = columns[-hop:].mT.flatten()
        return refine(wav[None], columns[None, :-hop], convention, rounds)[0].clamp(-1, 1).view(-1, hop).mT

    columns = stream_columns(with_audio, chunks, context + memory, context)
    if refinement == RESYNTHESIS:
        columns, rounds = resynthesized(columns, convention, postfilter), 0
    else:
        rounds = cast(int, refinement)
    if reach := reach_frames(convention, rounds):
        columns = stream_columns(with_refined_audio, columns, reach, reach)
    for piece in columns:
        yield piece[-hop:].mT.flatten()


def stream_columns(
    compute: Callable[[Tensor, int], Tensor], chunks: Iterable[Tensor], past: int, future: int
) -> Iterator[Tensor]:
    """Call ``compute`` on windows of frames as they arrive, and yield the columns of their middles.

    Args:
        compute: columns (D, F) of a window (C, F) that begins at a given frame.
        chunks: pieces (C, F_i).
        past, future: frames that a window has before its middle and behind it.
    """
    window: Tensor | None = None
    first = done = 0  # absolute frames at which the window begins, and that were yielded
    for chunk in chunks:
        window = chunk if window is None else torch.cat([window, chunk], dim=-1)
        ready = first + window.shape[-1] - future
        if ready > done:
            yield compute(window, first)[:, done - first : ready - first]
            done, keep_from = ready, max(0, ready - past)
            window, first = window[:, keep_from - first :], keep_from
    if window is None or first + window.shape[-1] == 0:
        raise ValueError("mel_chunks held no frames")
    if first + window.shape[-1] > done:
        yield compute(window, first)[:, done - first :]
