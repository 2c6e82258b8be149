"""``melglow synthesize``, ``copy`` and ``score``."""

import argparse
import math
import sys
import time
import warnings
from pathlib import Path

from melglow_plugin.checkpoint.pretrained import pretrained_model
from melglow_plugin.cli.shared import (
    RESAMPLE,
    WAVS,
    Faults,
    Outputs,
    count,
    load_vocoder,
    named_convention,
    recording,
    working_on,
)
from melglow_plugin.files import (
    AUDIO_SUFFIXES,
    MEL_SUFFIXES,
    append_csv,
    check_log,
    claim,
    listed,
    read_mel,
)

CLIP = "egs/ljspeech/voc1/corpus/wavs/LJ050-0131.flac"
MEL = "egs/ljspeech/voc1/corpus/mels/LJ050-0131.npy"
LOG_COLUMNS = ["id", "seconds", "rtf", "bits_per_sample"]


def add_commands(command) -> None:
    """``synthesize``, ``copy`` and ``score``."""
    example = f"melglow synthesize {MEL} --convention espnet -o out"
    sub = command(synthesize, "synthesize", example, model=True, out="folder for the wavs", sample=True)
    sub.add_argument(
        "mels", nargs="+", type=Path, metavar="MEL", help=".npy, .npz or .pt files, folders of them, or a feats.scp"
    )
    sub.add_argument(
        "--convention", default=None, help="what the mels are: espnet, coqui, vocos ... or a configuration file"
    )
    sub.add_argument("--approximate", action="store_true", help="accept mels that can be converted only approximately")
    sub.add_argument("--batch-size", type=count, default=1, help="mels at once (default: 1)")
    sub = command(copy, "copy", f"melglow copy {CLIP} -o out", model=True, out="folder for the wavs", sample=True)
    sub.add_argument("wavs", nargs="+", type=Path, metavar="WAV", help=WAVS)
    sub.add_argument("--resample", action="store_true", help=RESAMPLE)
    sub.add_argument("--log", type=Path, default=None, help="CSV of seconds, real-time factor and bits per sample")
    sub = command(score, "score", f"melglow score {CLIP}", model=True)
    sub.add_argument("wavs", nargs="+", type=Path, metavar="WAV", help=WAVS)
    sub.add_argument("--resample", action="store_true", help=RESAMPLE)


def synthesize(args: argparse.Namespace) -> None:
    """Turn mels into wavs."""
    from tqdm import tqdm

    convention, frames_first = named_convention(args.convention)
    outputs = Outputs(listed(args.mels, MEL_SUFFIXES, args.out), args.out, args.skip_existing)
    vocoder = load_vocoder(pretrained_model(convention) if args.checkpoint is None else args.checkpoint, args.device)
    if convention is None and args.checkpoint is None:
        print(f"taken for mels of {_in_words(vocoder.convention)}; --convention names others", file=sys.stderr)
    convention = convention or vocoder.convention
    warned = _accepted(convention, vocoder.convention, args.approximate)
    for first in tqdm(range(0, len(outputs.entries), args.batch_size), desc="synthesize", unit="batch", disable=None):
        batch = []
        for entry in outputs.entries[first : first + args.batch_size]:
            with outputs.naming(entry), warnings.catch_warnings():
                warnings.simplefilter("ignore" if warned else "default", UserWarning)
                mel = read_mel(entry.file(), frames_first, convention.n_mels)
                batch.append((entry, convention.convert(mel, vocoder.convention, args.approximate)))
        if batch:
            _synthesize_batch(vocoder, batch, outputs, args)
    outputs.close()


def _in_words(convention) -> str:
    """What listeners would notice first if it were wrong."""
    log = {10.0: "log10", math.e: "ln"}.get(convention.log_base, f"logarithm of base {convention.log_base}")
    top = convention.sample_rate / 2 if convention.fmax is None else convention.fmax
    return f"{convention.n_mels} bins from {convention.fmin:g} to {top:g} Hz at {convention.sample_rate} Hz, {log}"


def _synthesize_batch(vocoder, batch: list, outputs: Outputs, args: argparse.Namespace) -> None:
    """Write the wavs of some mels (M, F_i), computed together."""
    import torch

    lengths = [mel.shape[-1] for _, mel in batch]
    padded = torch.nn.utils.rnn.pad_sequence([mel.T for _, mel in batch], batch_first=True).transpose(1, 2)
    with working_on(batch[0][0]):  # whose mel is compared with those of the training
        wavs = vocoder(padded, lengths, **_sampling(args))
    for (entry, _), wav, length in zip(batch, wavs, lengths, strict=True):
        outputs.write(entry, wav[: length * vocoder.hop_length], vocoder.sample_rate)


def _sampling(args: argparse.Namespace) -> dict:
    return {name: getattr(args, name) for name in ("sigma", "seed", "refine", "sharpen")}


def _accepted(convention, target, approximate: bool) -> str:
    """Print the error of an approximation where ``--approximate`` asks for one; ValueError where it does not."""
    differences = convention.differences(target)
    if not differences or convention.incompatible_fields(target):
        return ""  # exact, or impossible: then convert() names the fields
    said = convention.approximation(target)
    if not approximate:
        raise ValueError(
            f"no exact conversion between these mels: {'; '.join(differences)}. --approximate accepts this: {said}"
        )
    print(f"approximate: {said}", file=sys.stderr)
    return said


def copy(args: argparse.Namespace) -> None:
    """Copy-synthesis: recordings to mels to wavs of the same length."""
    from tqdm import tqdm

    from melglow_plugin.model.loss import bits_per_sample

    outputs = Outputs(listed(args.wavs, AUDIO_SUFFIXES, args.out), args.out, args.skip_existing)
    if args.log:
        check_log(args.log, LOG_COLUMNS)
        claim(args.log, "--log")
    vocoder = load_vocoder(args.checkpoint, args.device)
    for entry in tqdm(outputs.entries, desc="copy", unit="clip", disable=None):
        mel = None
        with outputs.naming(entry):
            wav = recording(entry.file(), vocoder.sample_rate, args.resample)
            mel = vocoder.convention.extract(wav)
        if mel is None:
            continue
        start = time.perf_counter()
        with working_on(entry):
            generated = vocoder(mel, **_sampling(args)).cpu()  # waits for the device
        seconds, length = time.perf_counter() - start, len(wav) / vocoder.sample_rate
        scored = args.log and vocoder.flow.has_likelihood
        bits = float(bits_per_sample(vocoder.score(wav))[0]) if scored else math.nan
        # The row follows its wav at once, line by line: a run that stops and goes on has them all.
        if outputs.write(entry, generated[: len(wav)], vocoder.sample_rate) and args.log:
            append_csv(args.log, dict(zip(LOG_COLUMNS, (entry.key, length, seconds / length, bits), strict=True)))
    outputs.close()


def score(args: argparse.Namespace) -> None:
    """Bits per sample of recordings under the model: a measure of how likely the model finds them."""
    from melglow_plugin.inference.arguments import check_likelihood
    from melglow_plugin.model.loss import bits_per_sample

    entries = listed(args.wavs, AUDIO_SUFFIXES)
    faults = Faults(len(entries))
    vocoder = load_vocoder(args.checkpoint, args.device)
    check_likelihood(vocoder.flow, "score")
    bits = []
    for entry in entries:
        with faults.naming(entry):
            wav = recording(entry.file(), vocoder.sample_rate, args.resample)
            bits.append(float(bits_per_sample(vocoder.score(wav))[0]))
            print(f"{bits[-1]:8.3f}  {entry.key}", flush=True)
    if bits:
        print(f"{sum(bits) / len(bits):8.3f}  mean of {len(bits)}, bits per sample")
    faults.close("scored")
