#!/usr/bin/env python3
"""Streaming: error and joints against context, time to first audio, and memory over ten minutes.

    OMP_NUM_THREADS=1 python benchmarks/streaming.py -o benchmarks/results/streaming.json

The clips are those of the bundled corpus that the model was not trained on. ``latency`` is that of the context and of
the model's rounds of refinement, without computing. ``error`` is the level of (stream -
offline) against the offline signal, in dB. ``joint`` is the 95th percentile, over the borders of the pieces, of the
step between the two samples there, divided by the root mean square of the steps within 64 samples; ``offline`` is the
same at the same places of the offline result, so that a click shows as the difference of the two.
"""

import argparse
import json
import math
import resource
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from bundled import HELD_OUT

from melglow_plugin import Vocoder
from melglow_plugin.checkpoint.pretrained import pretrained_model
from melglow_plugin.inference.refine import reach_frames
from melglow_plugin.inference.resynthesis import RESYNTHESIS, Resynthesis

NEAR = 64  # samples on either side of a joint


def steps(wav: np.ndarray, joints: list[int]) -> list[float]:
    """The step at each joint, over the root mean square of its neighbours."""
    jumps = np.abs(np.diff(wav))
    around = [np.r_[jumps[j - NEAR - 1 : j - 1], jumps[j : j + NEAR]] for j in joints]
    return [float(jumps[j - 1] / (np.sqrt(np.mean(a**2)) + 1e-6)) for j, a in zip(joints, around, strict=True)]


def _reach(vocoder: Vocoder) -> int:
    """Frames that refinement waits for."""
    if vocoder.refine == RESYNTHESIS:
        before = math.ceil(vocoder.convention.context / vocoder.hop_length)  # a frame of the STFT begins earlier
        return Resynthesis(vocoder.convention, vocoder.flow.postfilter).margin + before + 1  # FullScale is a hop late
    return reach_frames(vocoder.convention, vocoder.refine)


def contexts(vocoder: Vocoder, mels: list[torch.Tensor], chosen: list[int], chunk: int) -> list[dict]:
    """One row per context."""
    offline = [vocoder(mel, seed=0).numpy() for mel in mels]
    rows, reach = [], _reach(vocoder)
    for context in chosen:
        errors, joint, reference = [], [], []
        for mel, whole in zip(mels, offline, strict=True):
            pieces = [p.numpy() for p in vocoder.stream(mel.split(chunk, dim=1), seed=0, context_frames=context)]
            wav = np.concatenate(pieces)
            borders = np.cumsum([len(p) for p in pieces])[:-1].tolist()
            errors.append(np.mean((wav - whole) ** 2) / np.mean(whole**2))
            joint += steps(wav, borders)
            reference += steps(whole, borders)
        rows.append(
            {
                "context_frames": context,
                "latency_ms": 1000 * (context + reach) * vocoder.hop_length / vocoder.sample_rate,
                "error_db": float(10 * np.log10(np.mean(errors) + 1e-15)),
                "joint": float(np.percentile(joint, 95)),
                "offline": float(np.percentile(reference, 95)),
            }
        )
        row = rows[-1]
        print(
            f"context {context:3} frames {row['latency_ms']:5.0f} ms  error {row['error_db']:7.1f} dB  "
            f"joint {row['joint']:.2f}  offline {row['offline']:.2f}",
            flush=True,
        )
    return rows


def first_audio(vocoder: Vocoder, mel: torch.Tensor, context: int, chunk: int) -> float:
    """Median seconds of computing until the first piece, frames being there at once."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        next(vocoder.stream(mel.split(chunk, dim=1), seed=0, context_frames=context))
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def ten_minutes(vocoder: Vocoder, mel: torch.Tensor, minutes: float, chunk: int) -> dict:
    """Peak memory of the process after one minute of streaming and at the end, in MiB, and the real-time factor."""
    frames = round(minutes * 60 * vocoder.sample_rate / vocoder.hop_length)
    pieces = (mel.repeat(1, -(-frames // mel.shape[1]))[:, :frames]).split(chunk, dim=1)
    start, samples, early = time.perf_counter(), 0, None
    for piece in vocoder.stream(pieces, seed=0, context_frames=8):
        samples += len(piece)
        if early is None and samples > 60 * vocoder.sample_rate:
            early = peak_mib()
    seconds = samples / vocoder.sample_rate
    return {
        "minutes": seconds / 60, "peak_mib_after_1_minute": early, "peak_mib": peak_mib(),
        "rtf": (time.perf_counter() - start) / seconds,
    }  # fmt: skip


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=None, help="model folder (default: the pretrained model)")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=16, help="frames that arrive together")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("-o", "--out", type=Path, help="JSON")
    args = parser.parse_args()
    vocoder = Vocoder.from_pretrained(args.checkpoint or pretrained_model())
    full = vocoder.flow.context_frames
    mels = []
    for path in HELD_OUT[: args.clips]:
        wav, rate = soundfile.read(path, dtype="float32")
        assert rate == vocoder.sample_rate, f"{path}: {rate} Hz"
        mels.append(vocoder.convention.extract(torch.from_numpy(wav)))
    result = {
        "chunk_frames": args.chunk,
        "clips": len(mels),
        "threads": torch.get_num_threads(),
        "contexts": contexts(vocoder, mels, [1, 2, 4, 6, 8, 12, 16, full], args.chunk),
        "seconds_to_first_audio": {c: first_audio(vocoder, mels[0], c, 8) for c in (8, full)},
        "long": ten_minutes(vocoder, mels[0], args.minutes, 64),
    }
    print(json.dumps({k: result[k] for k in ("seconds_to_first_audio", "long")}))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
