"""Scores of one system's speech against the recordings: of a pair, of folders, their means and intervals."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from melglow_plugin.evaluation import scores
from melglow_plugin.evaluation.scores import align, find_lag, level_gain
from melglow_plugin.files import (
    AUDIO_SUFFIXES,
    check_output,
    files_in,
    listed,
    make_folder,
    read_any_wav,
    read_csv,
    write_csv,
    write_json,
)

__all__ = ["SCORES", "Score", "align", "evaluate", "find_lag", "level_gain", "read_scores", "score_pair", "summarise"]


@dataclass(frozen=True)
class Score:
    """How a score is computed and shown, and which way is better."""

    label: str
    better: str = ""  # higher, lower, or zero: the nearer to 0
    about: str = ""
    unit: str = ""
    compute: Callable[[np.ndarray, np.ndarray, int], float] | None = None  # of an aligned pair, at a sample rate


HNR = "harmonics-to-noise ratio of {} kHz in voiced frames, less the recording's"
SCORES = {
    "mcd_dtw": Score("MCD", "lower", "mel-cepstral distortion along the warping path", "dB", scores.mcd_dtw),
    "log_f0_rmse": Score("log F0", "lower", "RMS error of ln pitch where both are voiced", "nats", scores.log_f0_rmse),
    "vuv_error": Score("V/UV", "lower", "frames that are voiced in one signal alone", "%", scores.vuv_error),
    "estoi": Score("ESTOI", "higher", "extended short-time objective intelligibility, up to 1", "", scores.estoi),
    "mel_l1": Score("mel L1", "lower", "mean difference of the full-band log-mels", "nats", scores.mel_l1),
    "mr_stft": Score("MR-STFT", "lower", "distance of the spectra in four resolutions", "", scores.mr_stft),
    "high_band_db": Score("high band", "zero", "level above 7.6 kHz less the recording's", "dB", scores.high_band_db),
    "hnr_low_db": Score("HNR low", "zero", HNR.format("60 Hz to 1.5"), "dB", partial(scores.hnr_db, band="low")),
    "hnr_mid_db": Score("HNR mid", "zero", HNR.format("1.5 to 4"), "dB", partial(scores.hnr_db, band="mid")),
    "hnr_high_db": Score("HNR high", "zero", HNR.format("4 to 7.6"), "dB", partial(scores.hnr_db, band="high")),
    "line_noise_db": Score("lines", "lower", "tones of the squeeze, in pauses", "dB", scores.line_noise_db),
    "distill_mos": Score("Distill-MOS", "higher", "predicted opinion of the sound, 1 to 5", "", scores.distill_mos),
    "dnsmos": Score("DNSMOS", "higher", "predicted overall opinion of the sound, 1 to 5", "", scores.dnsmos),
    "pesq": Score("PESQ", "higher", "perceived quality, wideband, up to 4.64", "", scores.pesq),
    # Measured where the model runs; `evaluate` takes them as extra columns.
    "bits_per_sample": Score("bits", "lower", "coding one 16-bit sample of the recording under the model", "bit"),
    "rtf": Score("RTF", "lower", "computing time of a second of audio", "s"),
}


def default_names(sample_rate: int) -> list[str]:
    """The scores that can be computed here: nothing of 7.6 kHz at low rates, no PESQ without its package."""
    left_out = {name for name, score in SCORES.items() if score.compute is None}
    if not _has_pesq():
        left_out.add("pesq")
    if sample_rate <= 2 * scores.HIGH_BAND:
        left_out |= {"high_band_db", "hnr_high_db"}
    return [name for name in SCORES if name not in left_out]


def _checked_names(names: Iterable[str]) -> list[str]:
    names, computed = list(names), [name for name, score in SCORES.items() if score.compute]
    if unknown := sorted(set(names) - set(computed)):
        raise ValueError(f"{unknown[0]} is no score of a pair; those are {', '.join(computed)}")
    if "pesq" in names and find_spec("pesq") is None:
        raise ImportError('the score pesq needs the package of its name: pip install "melglow-plugin[pesq]"')
    return names


@lru_cache(maxsize=1)  # so that it is logged once
def _has_pesq() -> bool:
    found = find_spec("pesq") is not None
    if not found:
        logging.getLogger(__name__).warning("PESQ is left out: the optional package pesq is not installed")
    return found


def score_pair(
    reference: np.ndarray,
    generated: np.ndarray,
    sample_rate: int,
    names: Iterable[str] | None = None,
    lag: int | None = None,
) -> dict[str, float]:
    """Scores of ``generated`` against ``reference`` after :func:`align`, whose arguments and errors these are.

    Args:
        names: keys of ``SCORES``; None: :func:`default_names`.
    """
    names = default_names(sample_rate) if names is None else _checked_names(names)
    pair = align(reference.astype(np.float64), generated.astype(np.float64), sample_rate, lag)
    return {name: SCORES[name].compute(*pair, sample_rate) for name in names}


def summarise(rows: Iterable[Mapping[str, float]]) -> dict:
    """Mean and 95 % interval of each score over utterances: Student's t; NaN is left out and counted as missing.

    Returns:
        score -> mean, low, high, n, missing; also ``interval``, its kind, and ``utterances``.
    """
    from scipy.stats import t

    rows = list(rows)
    summary = {"interval": "95 %, Student's t over utterances", "utterances": len(rows)}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = np.array([row[name] for row in rows if math.isfinite(row.get(name, math.nan))])
        n = len(values)
        mean = float(values.mean()) if n else math.nan
        half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
        summary[name] = {"mean": mean, "low": mean - half, "high": mean + half, "n": n, "missing": len(rows) - n}
    return summary


def evaluate(
    reference: Path | Mapping[str, Path],
    generated: Path | Mapping[str, Path],
    out_dir: Path,
    names: Iterable[str] | None = None,
    n_jobs: int = 1,
    extra: Mapping[str, Mapping[str, float]] | None = None,
) -> dict:
    """Score every pair of files of one name; writes ``scores.csv`` (a row an utterance) and ``summary.json``.

    The generated files are one system's: all are shifted by the median of their lags.

    Args:
        reference, generated: a folder of recordings, a wav.scp, one file, or id -> path.
        n_jobs: processes.
        extra: id -> further columns, such as a real-time factor.

    Returns:
        What :func:`summarise` returns, and ``lag`` in samples; ``faults``, id -> what is wrong with a pair that is left
        out, or which file has no partner, where there are such.

    Raises:
        ValueError: no pair can be scored; names a file. A name of no score.
    """
    names, out_dir = names and _checked_names(names), Path(out_dir)
    pairs, alone = pairs_of(reference, generated, out_dir)
    for name in ("scores.csv", "summary.json"):
        check_output(out_dir / name)
    make_folder(out_dir)
    with _mapper(n_jobs) as run:
        lags, faults = _without_faults(pairs, run(partial(_of_files, compute=find_lag), pairs.values(), "aligning"))
        if not lags:
            raise ValueError(next(iter(faults.values())))
        lag, sound = round(float(np.median(list(lags.values())))), {key: pairs[key] for key in lags}
        names = default_names(read_pair(next(iter(sound.values())))[2]) if names is None else names
        score = partial(_of_files, compute=score_pair, names=names, lag=lag)
        found, more = _without_faults(sound, run(score, sound.values(), "scoring"))
    faults = alone | faults | more
    if not found:
        raise ValueError(next(iter(faults.values())))
    rows = {key: {**row, **(extra or {}).get(key, {})} for key, row in found.items()}
    table = [{"id": key, **{name: f"{value:.6g}" for name, value in row.items()}} for key, row in rows.items()]
    summary = {**summarise(rows.values()), "lag": lag, **({"faults": faults} if faults else {})}
    write_csv(out_dir / "scores.csv", table)
    write_json(out_dir / "summary.json", _json_ready(summary))
    return summary


def _without_faults(keys: Iterable[str], found: Iterable) -> tuple[dict, dict[str, str]]:
    """id -> result, and id -> message where the result is one."""
    results = dict(zip(keys, found, strict=True))
    faults = {key: str(result) for key, result in results.items() if isinstance(result, ValueError)}
    return {key: result for key, result in results.items() if key not in faults}, faults


def read_scores(path: Path) -> dict[str, dict[str, float]]:
    """``scores.csv``: id -> score -> value."""
    rows = {row.pop("id"): row for row in read_csv(path)}
    return {key: {name: float(value) for name, value in row.items() if value} for key, row in rows.items()}


def pairs_of(
    reference: Path | Mapping[str, Path], generated: Path | Mapping[str, Path], without: Path | None = None
) -> tuple[dict[str, tuple[Path, Path]], dict[str, str]]:
    """id -> recording and copy, sorted; and id -> message for each file without its partner.

    Args:
        reference, generated: as of :func:`evaluate`.
        without: a folder inside these that is passed over: audio of an earlier page of results.

    Raises:
        ValueError: there is no pair.
    """
    recordings, copies = _files_of(reference, without), _files_of(generated, without)
    if not isinstance(reference, Mapping) and Path(reference).is_file() and len(recordings) == 1:
        copies = {key: path for key, path in copies.items() if key in recordings} or copies  # one of a folder's
    if not recordings and not copies:
        raise ValueError("0 recordings and 0 generated files: nothing to score")
    alone = {
        key: f"{here[key]} has no partner: {len(there)} {what} files, none called {key}"
        for here, there, what in ((recordings, copies, "generated"), (copies, recordings, "reference"))
        for key in sorted(set(here) - set(there))
    }
    pairs = {key: (recordings[key], copies[key]) for key in sorted(recordings) if key in copies}
    if not pairs:
        raise ValueError(next(iter(alone.values())))
    return pairs, alone


def _files_of(source: Path | Mapping[str, Path], without: Path | None) -> dict[str, Path]:
    if isinstance(source, Mapping):
        return {key: Path(path) for key, path in source.items()}
    if not Path(source).exists():
        raise ValueError(f"{source}: no such file or folder")
    if Path(source).is_file():
        return {entry.key: entry.file() for entry in listed([source], AUDIO_SUFFIXES)}
    return files_in(Path(source), AUDIO_SUFFIXES, without)


def read_pair(paths: tuple[str | Path, str | Path]) -> tuple[np.ndarray, np.ndarray, int]:
    """Recording and copy, (T,) each, and their rate in Hz; ValueError where the rates differ or one cannot be read."""
    (reference, rate), (generated, other_rate) = (read_any_wav(path) for path in paths)
    if rate != other_rate:
        raise ValueError(
            f"{paths[1]} has {other_rate} Hz, its reference {paths[0]} has {rate} Hz: resample one of them, as with "
            f"ffmpeg -i RECORDING -ar {other_rate} OUT.wav"
        )
    return reference.double().numpy(), generated.double().numpy(), rate


def _of_files(paths: tuple[Path, Path], compute: Callable, **options):
    """``compute`` of a pair; or, where it cannot be scored, a ValueError that names both files."""
    try:
        return compute(*read_pair(paths), **options)
    except (ValueError, RuntimeError, OSError) as error:  # RuntimeError: libsndfile's, and the scoring packages'
        return ValueError(f"{paths[1]} against {paths[0]}: {error}")


@contextlib.contextmanager
def _mapper(n_jobs: int):
    """``run(function, items, description)``, with a progress bar, here or in ``n_jobs`` processes."""
    from tqdm import tqdm

    with contextlib.ExitStack() as stack:
        mapped = map
        if n_jobs > 1:  # spawned: a fork would inherit torch's threads in an unknown state
            pool = ProcessPoolExecutor(n_jobs, get_context("spawn"), torch.set_num_threads, (1,))
            mapped = stack.enter_context(pool).map
        yield lambda function, items, what: list(tqdm(mapped(function, items), what, len(items), disable=None))


def _json_ready(value):
    """``value`` with None for NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: _json_ready(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
