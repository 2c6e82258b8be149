#!/usr/bin/env python3
"""Stage 1: leave out, by name, the recordings that cannot be trained on or copied.

With --gta also those whose mel by an acoustic model (teacher forcing) is missing or not theirs.
"""

import argparse
import errno
import math
import os
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from melglow_plugin.checks import run_main
from melglow_plugin.files import lines_of, read_array, read_mapping, read_scp, read_table, read_wav, write_lines
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.training.corpus import SETS, check_disjoint, recording_faults
from melglow_plugin.training.crops import segment_samples
from melglow_plugin.training.speaker_balance import balanced_lines, copies, seconds_of

TRAINED_ON = ("tr_no_dev", "dev")  # the sets whose acoustic mels are read
FEATS = "denorm/feats.scp"  # of a set, as ESPnet's decoding writes it
# dB between an acoustic model's mel and the recording's own, mean over frames and bins. On the bundled corpus: the mean
# spectrum 12 to 14, another recording 17 to 19, a normalised mel 47, natural logarithms 57.
FURTHEST = 20.0


def feats_faults(path: str | None, wav_path: str, convention: MelConvention) -> tuple[list[str], float]:
    """Why an acoustic model's mel (F, M) does not serve for a recording, empty if it does; and its distance in dB."""
    if path is None:
        return ["no feats"], math.nan
    try:
        feats = read_array(path)
    except (OSError, ValueError) as error:
        return [f"feats cannot be read: {error}"], math.nan
    mel = convention.extract(read_wav(Path(wav_path), convention.sample_rate))
    if feats.shape != tuple(mel.T.shape):
        return [f"feats of shape {feats.shape}, frames and bins of the recording are {tuple(mel.T.shape)}"], math.nan
    decibels = 20 / math.log(10) * convention.nats_per_unit
    distance = decibels * float((torch.from_numpy(feats).float().T - mel).abs().mean())
    if not distance <= FURTHEST:
        return [
            f"feats lie {distance:.1f} dB from the recording's mel, at most {FURTHEST:g}: are they normalised, or "
            "in other units?"
        ], distance
    return [], distance


def check_there(*paths: str) -> None:
    """OSError where the folder of a file is gone or empty: that a share went away is no fault of its recordings."""
    for folder in (Path(path).parent for path in paths):
        if next(iter(folder.iterdir()), None) is None:
            raise OSError(errno.ENOENT, "nothing is left in this folder", str(folder))


def check_sets(source: Path) -> None:
    """ValueError where a recording is in two of the three sets, by its id or by its file."""
    lists = {name: source / name / "wav.scp" for name in SETS}
    recordings = {name: read_scp(path) for name, path in lists.items()}
    check_disjoint(recordings, lists)
    files = {name: [os.path.realpath(path) for path in found.values()] for name, found in recordings.items()}
    check_disjoint({name: dict.fromkeys(paths) for name, paths in files.items()}, lists)


def check_set(
    scp: Path, out: Path, convention: MelConvention, min_samples: int, feats_scp: Path | None = None
) -> tuple[int, int]:
    """Write the accepted lists to ``out``; returns how many were accepted and how many left out."""
    feats = {} if feats_scp is None else read_scp(feats_scp)
    accepted, rejected, distances = {}, [], {}
    for key, path in tqdm(read_scp(scp).items(), desc=f"checking {out.name}", disable=None, file=sys.stdout):
        path = os.path.abspath(path) if ".ark:" not in path else path
        faults = recording_faults(path, convention.sample_rate, min_samples)
        if feats_scp is not None and not faults:
            faults, distances[key] = feats_faults(feats.get(key), path, convention)
        if faults:
            check_there(path, *([feats[key]] if key in feats else []))
            rejected.append(f"{key} {'; '.join(faults)}")
        else:
            accepted[key] = path
    out.mkdir(parents=True, exist_ok=True)
    write_lines(out / "rejected.txt", rejected)
    for line in rejected:
        print(f"{out.name}: left out {line}")
    if not accepted:
        raise ValueError(f"{scp}: none of {len(rejected)} recordings is usable, see {out / 'rejected.txt'}")
    write_lines(out / "wav.scp", (f"{key} {path}" for key, path in accepted.items()))
    (out / "utt2spk").unlink(missing_ok=True)
    if (table := scp.with_name("utt2spk")).is_file():
        write_lines(out / "utt2spk", (line for _, line in lines_of(table) if line.split(maxsplit=1)[0] in accepted))
    if feats_scp is not None:
        write_lines(out / "feats.scp", (f"{key} {feats[key]}" for key in accepted))
        mean = np.mean([distances[key] for key in accepted])
        print(f"{out.name}: feats lie {mean:.1f} dB from the recordings' mels, mean over recordings")
    return len(accepted), len(rejected)


def write_balanced(out: Path, utt2spk: Path, cap: float) -> None:
    """``balanced.scp`` beside the accepted ``wav.scp``: recordings as often as their speaker's share asks for."""
    paths, speakers = read_scp(out / "wav.scp"), read_table(utt2spk)
    if missing := sorted(set(paths) - set(speakers)):
        raise ValueError(f"{utt2spk}: no speaker of {missing[0]}")
    lines = balanced_lines(paths, copies(seconds_of(paths), speakers, cap))
    write_lines(out / "balanced.scp", lines)
    print(f"{out.name}: {len({speakers[key] for key in paths})} speakers, balanced in {len(lines)} lines")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with one directory, holding wav.scp, for each set")
    parser.add_argument("out", type=Path, help="folder for the accepted lists")
    parser.add_argument("--config", type=Path, required=True, help="training configuration")
    parser.add_argument("--gta", type=Path, help=f"folder with one directory, holding {FEATS}, for each training set")
    parser.add_argument("--speaker_cap", type=float, help="largest share of a speaker: writes balanced.scp")
    args = parser.parse_args()
    conf = read_mapping(args.config)
    convention = MelConvention.espnet(**conf["feats_extract_conf"])
    frames = {"tr_no_dev": conf["segment_frames"], "dev": conf["valid_segment_frames"], "eval1": 1}
    check_sets(args.source)
    for name in SETS:
        needed = segment_samples(convention, frames[name]) - 2 * convention.context
        feats_scp = args.gta / name / FEATS if args.gta and name in TRAINED_ON else None
        kept, left_out = check_set(args.source / name / "wav.scp", args.out / name, convention,
                                   max(needed, convention.context + 1), feats_scp)  # fmt: skip
        print(f"{name}: {kept} recordings, {left_out} left out")
    if args.speaker_cap is not None:
        write_balanced(args.out / "tr_no_dev", args.source / "tr_no_dev" / "utt2spk", args.speaker_cap)


if __name__ == "__main__":
    run_main(main)
