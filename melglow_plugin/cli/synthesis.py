"""``melglow synthesize``, ``copy`` and ``score``."""

import argparse
import sys
import time
import warnings
from pathlib import Path

from melglow_plugin.checkpoint.pretrained import bundled_model
from melglow_plugin.cli.shared import count, load_vocoder, named_convention
from melglow_plugin.files import append_csv, listed, read_mel, read_wav, write_wav


def add_commands(command) -> None:
    """``synthesize``, ``copy`` and ``score``."""
    sub = command(synthesize, "synthesize", model=True, sample=True)
    sub.add_argument("mels", nargs="+", type=Path, metavar="MEL.npy", help=".npy files, or a feats.scp of them")
    sub.add_argument(
        "--convention", default=None, help="what the mels are: espnet, coqui, vocos ... or a configuration file"
    )
    sub.add_argument("--approximate", action="store_true", help="accept mels that no exact conversion makes fit")
    sub.add_argument("--batch-size", type=count, default=1, help="mels spoken at once (default: 1)")
    sub = command(copy, "copy", model=True, sample=True)
    sub.add_argument("wavs", nargs="+", type=Path, metavar="WAV", help="recordings, or a wav.scp of them")
    sub.add_argument("--log", type=Path, default=None, help="CSV of seconds, real-time factor and bits per sample")
    sub = command(score, "score", model=True)
    sub.add_argument("wavs", nargs="+", type=Path, metavar="WAV", help="recordings, or a wav.scp of them")


def synthesize(args: argparse.Namespace) -> None:
    """Turn mels into wavs."""
    import torch
    from tqdm import tqdm

    convention, frames_first = named_convention(args.convention)
    vocoder = load_vocoder(args.checkpoint or bundled_model(convention), args.device)
    convention = convention or vocoder.convention
    said = _accepted(convention, vocoder.convention, args.approximate)
    todo = [(key, path) for key, path in listed(args.mels) if not _done(args, key)]
    for first in tqdm(range(0, len(todo), args.batch_size), desc="synthesize", unit="batch", disable=None):
        batch = todo[first : first + args.batch_size]
        with warnings.catch_warnings(action="ignore" if said else "default", category=UserWarning):
            mels = [
                convention.convert(read_mel(path, frames_first), vocoder.convention, args.approximate)
                for _, path in batch
            ]
        lengths = [mel.shape[-1] for mel in mels]
        padded = torch.nn.utils.rnn.pad_sequence([mel.T for mel in mels], batch_first=True).transpose(1, 2)
        wavs = vocoder(padded, lengths, sigma=args.sigma, seed=args.seed, refine=args.refine)
        for (key, _), wav, length in zip(batch, wavs, lengths, strict=True):
            write_wav(args.out / f"{key}.wav", wav[: length * vocoder.hop_length], vocoder.sample_rate)
    print(f"{len(todo)} wavs in {args.out}")


def _accepted(convention, target, approximate: bool) -> str:
    """Say what an approximation gets wrong, if there is one and it is wanted; ValueError where it is not."""
    differences = convention.differences(target)
    if not differences or convention.unbridgeable(target):
        return ""  # nothing to say, or nothing that helps: convert() names what cannot be bridged
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

    vocoder = load_vocoder(args.checkpoint, args.device)
    todo = [(key, path) for key, path in listed(args.wavs) if not _done(args, key)]
    for key, path in tqdm(todo, desc="copy", unit="clip", disable=None):
        wav = read_wav(path, vocoder.sample_rate)
        mel = vocoder.convention.extract(wav)
        start = time.perf_counter()
        generated = vocoder(mel, sigma=args.sigma, seed=args.seed, refine=args.refine).cpu()  # waits for the device
        seconds, length = time.perf_counter() - start, len(wav) / vocoder.sample_rate
        write_wav(args.out / f"{key}.wav", generated[: len(wav)], vocoder.sample_rate)
        if args.log:  # line by line: a run that stops and goes on has them all
            bits = float(bits_per_sample(vocoder.score(wav))[0])
            row = {"id": key, "seconds": length, "rtf": seconds / length, "bits_per_sample": bits}
            append_csv(args.log, row)
    print(f"{len(todo)} wavs in {args.out}")


def score(args: argparse.Namespace) -> None:
    """Bits per sample of recordings under the model: how likely it finds them."""
    from melglow_plugin.model.loss import bits_per_sample

    vocoder = load_vocoder(args.checkpoint, args.device)
    bits = {}
    for key, path in listed(args.wavs):
        bits[key] = float(bits_per_sample(vocoder.score(read_wav(path, vocoder.sample_rate)))[0])
        print(f"{bits[key]:8.3f}  {key}")
    print(f"{sum(bits.values()) / len(bits):8.3f}  mean of {len(bits)}, bits per sample")


def _done(args: argparse.Namespace, key: str) -> bool:
    return args.skip_existing and (args.out / f"{key}.wav").exists()
