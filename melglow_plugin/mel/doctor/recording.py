"""With a recording: its own mel under every known convention, compared with the mel."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.mel.doctor.known import KNOWN, TEMPERATURE

COMPARED_SECONDS = 6.0  # of a recording, where one is given
ERROR_SCALE = 0.004  # nats between a mel and the recording's own that weigh as one nat of evidence
UNRELATED_THRESHOLD = 0.3  # nats from which a mel is taken to be of another recording, or changed beyond a convention


def rank_by_recording(values: np.ndarray, wav: Tensor, rate: int):
    """Compare with the recording's own mels: every convention ranked, and the nearest one's offset and error.

    None where the mel has no relation to the recording: then only its values can be used.
    """
    found = []
    for known in KNOWN:
        c = _with_hop(known.convention(rate, len(values)), len(wav) / values.shape[1])
        if len(wav) > c.n_fft:
            found.append((known, c, *_compare(values, wav, c, (0, 4))))
    found.sort(key=lambda entry: entry[3])
    found = [(k, c, *_compare(values, wav, c, range(8))) for k, c, _, _ in found[:4]] + found[4:]
    found.sort(key=lambda entry: entry[3] + 0.02 * (entry[2] != 0))  # of equals, the one whose frames are in place
    if not found or found[0][3] > UNRELATED_THRESHOLD:
        return None
    ranked = [(k, -TEMPERATURE * (e + 0.02 * (offset != 0)) / ERROR_SCALE, 0.0) for k, _, offset, e in found]
    return ranked, found[0][2:]


def _with_hop(c: MelConvention, samples_per_frame: float) -> MelConvention:
    """``c`` with the hop that the lengths of mel and recording imply, where its own is clearly another."""
    if abs(samples_per_frame / c.hop_length - 1) < 0.08:
        return c
    hop = max(1, min(round(samples_per_frame), c.n_fft))
    return replace(c, hop_length=hop, pad=0 if c.center else (c.n_fft - hop) // 2)


def _compare(values: np.ndarray, wav: Tensor, c: MelConvention, eighths) -> tuple[int, float]:
    """Samples by which the mel's frames lie later than those of ``c``, and the mean error there in nats."""
    frames = max(8, min(values.shape[1], round(COMPARED_SECONDS * c.sample_rate / c.hop_length)))
    given = torch.from_numpy(values)[:, :frames]
    best = (0, math.inf)
    for eighth in eighths:
        shift = eighth * c.hop_length // 8
        own = c.extract(wav[shift : (frames + 16) * c.hop_length + c.n_fft + shift])
        for lag in sorted(range(-4, 5), key=abs):
            a, b = given[:, max(0, -lag) :], own[:, max(0, lag) :]
            n = min(a.shape[1], b.shape[1])
            if n < 8:
                continue
            skip = slice(min(3, n // 4), n - min(3, n // 4))  # the ends see padding
            error = float((a[:, skip] - b[:, skip]).abs().mean()) * c.nats_per_unit / c.power
            if error < best[1] - 1e-6:
                best = (lag * c.hop_length + shift, error)
    return best
