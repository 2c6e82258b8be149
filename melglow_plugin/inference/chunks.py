"""Streaming and long recordings, exactly: each piece is computed with the whole receptive field around it."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from melglow_plugin.inference.refine import reach_frames, refine
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.model.melflow import MelFlow

CHUNK_FRAMES = 1024  # computed at once; 12 s at 22,050 Hz and hop 256


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
    frames, hop, context = mel.shape[-1], flow.hop_length, flow.context_frames
    past = context + flow.memory_frames
    if frames <= chunk_frames + past + context:
        return inverse(z, mel, lengths)
    pieces = []
    for start in range(0, frames, chunk_frames):
        stop = min(start + chunk_frames, frames)
        first, last = max(0, start - past), min(frames, stop + context)
        # An example that ended before this piece keeps one frame: its samples are dropped by the caller.
        piece_lengths = None if lengths is None else (lengths - first).clamp(1, last - first)
        wav = inverse(z[:, first * hop : last * hop], mel[..., first:last], piece_lengths)
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
    past = context + flow.memory_frames
    if frames <= chunk_frames + past + context:
        return flow(wav, mel)

    def window(first: int, last: int) -> tuple[Tensor, Tensor, int]:
        first, last = max(0, first - past), min(frames, last + context)
        return *flow(wav[:, first * hop : last * hop], mel[..., first:last]), first

    pieces, total = [], torch.zeros(len(wav), dtype=torch.float64, device=wav.device)
    for start in range(0, frames, chunk_frames):
        stop = min(start + chunk_frames, frames)
        z, log_det, first = window(start, stop)
        pieces.append(z[:, (start - first) * hop : (stop - first) * hop])
        total += log_det
        if start:
            total -= window(start, start)[1]
    return torch.cat(pieces, dim=1), total.to(log_det.dtype)


def stream_frames(
    synthesize: Callable[[Tensor, int], Tensor], chunks: Iterable[Tensor], context: int, memory: int, hop_length: int
) -> Iterator[Tensor]:
    """Call ``synthesize`` on windows with ``context`` frames on both sides as the mel arrives, and yield their middles.

    A window has ``memory`` more frames of the past.

    Args:
        synthesize: wav (F * hop_length,) of a window (1, M, F) that begins at a given frame.
        chunks: pieces (M, F_i) of the mel.
    """
    window: Tensor | None = None
    first = 0  # absolute frame at which the window begins
    done = 0  # absolute frames already yielded
    for chunk in chunks:
        window = chunk if window is None else torch.cat([window, chunk], dim=-1)
        ready = first + window.shape[-1] - context
        if ready > done:
            yield synthesize(window[None], first)[(done - first) * hop_length : (ready - first) * hop_length]
            done = ready
            keep_from = max(0, done - context - memory)
            window, first = window[:, keep_from - first :], keep_from
    if window is None or first + window.shape[-1] == 0:
        raise ValueError("mel_chunks held no frames")
    if first + window.shape[-1] > done:
        yield synthesize(window[None], first)[(done - first) * hop_length :]


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
    hop, frames, reach = convention.hop_length, mel.shape[-1], reach_frames(convention, rounds)
    if rounds == 0 or frames <= chunk_frames + 2 * reach:
        return refine(wav, mel, convention, rounds, lengths)
    pieces = []
    for start in range(0, frames, chunk_frames):
        stop = min(start + chunk_frames, frames)
        first, last = max(0, start - reach), min(frames, stop + reach)
        own_lengths = None if lengths is None else (lengths - first).clamp(0, last - first)
        piece = refine(wav[:, first * hop : last * hop], mel[..., first:last], convention, rounds, own_lengths)
        pieces.append(piece[:, (start - first) * hop : (stop - first) * hop])
    return torch.cat(pieces, dim=1)


def stream(
    synthesize: Callable[[Tensor, int], Tensor],
    refined: Callable[[Tensor, Tensor], Tensor] | None,
    chunks: Iterable[Tensor],
    context: int,
    memory: int,
    reach: int,
    hop_length: int,
) -> Iterator[Tensor]:
    """:func:`stream_frames`, and :func:`stream_refined` after it unless ``refined`` is None."""
    if refined is None:
        yield from stream_frames(synthesize, chunks, context, memory, hop_length)
        return
    chunks, again = itertools.tee(chunks)
    pieces = stream_frames(synthesize, chunks, context, memory, hop_length)
    yield from stream_refined(refined, pieces, again, reach, hop_length)


def stream_refined(
    refine_window: Callable[[Tensor, Tensor], Tensor],
    pieces: Iterable[Tensor],
    chunks: Iterable[Tensor],
    reach: int,
    hop_length: int,
) -> Iterator[Tensor]:
    """Refine what :func:`stream_frames` yields, ``reach`` frames behind it.

    Args:
        refine_window: a window's refined wav (F * hop_length,), from its wav and its mel (M, F).
        pieces: of wav, (F_i * hop_length,).
        chunks: pieces (M, F_i) of the mel, of other sizes; they arrive before the pieces of wav that use them.
    """
    chunks = iter(chunks)
    wav: Tensor | None = None
    mel: Tensor | None = None
    first = done = 0  # absolute frames at which the window begins, and that were yielded

    def refined(wav: Tensor, mel: Tensor, stop: int) -> Tensor:
        frames = len(wav) // hop_length
        return refine_window(wav, mel[:, :frames])[(done - first) * hop_length : (stop - first) * hop_length]

    for piece in pieces:
        wav = piece if wav is None else torch.cat([wav, piece])
        while mel is None or mel.shape[-1] * hop_length < len(wav):
            chunk = next(chunks)
            mel = chunk if mel is None else torch.cat([mel, chunk], dim=-1)
        ready = first + len(wav) // hop_length - reach
        if ready > done:
            yield refined(wav, mel, ready)
            done, keep_from = ready, max(0, ready - reach)
            wav, mel = wav[(keep_from - first) * hop_length :], mel[:, keep_from - first :]
            first = keep_from
    if wav is not None and mel is not None and (end := first + len(wav) // hop_length) > done:
        yield refined(wav, mel, end)
