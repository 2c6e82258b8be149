"""One static page to listen to: players, spectrograms, scores and training curves, in a folder that can be zipped."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
import torch

from melglow_plugin.evaluation.evaluate import SCORES, Score, level_gain
from melglow_plugin.evaluation.page import PAGE, SCRIPT, STYLE, chart, scatter
from melglow_plugin.files import atomic_write, read_any_wav, write_bytes
from melglow_plugin.mel.convention import MelConvention

ARROWS = {
    "higher": ("↑", "higher is better"),
    "lower": ("↓", "lower is better"),
    "zero": ("→0", "nearer to 0 is better"),
}
RANGE = 80  # dB shown below a recording's loudest bin


@dataclass(frozen=True)
class System:
    """A row of the table and a player of every clip: the recording, a vocoder, a reference method.

    Where ``everywhere`` is False, some clips have it only.
    """

    name: str
    about: str = ""
    everywhere: bool = True


@dataclass(frozen=True)
class Clip:
    """One utterance.

    Args:
        wavs: system name -> audio file.
        scores: system name -> score -> value.
    """

    key: str
    text: str
    wavs: Mapping[str, Path]
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scatter:
    """A chart of named points.

    Args:
        points: x, y, name, and whether it is one of the page's own systems.
        source: where the figures of the others are from.
    """

    title: str
    x: str
    y: str
    points: Sequence[tuple[float, float, str, bool]]
    source: str = ""


def write_report(
    out_dir: Path,
    title: str,
    facts: Mapping[str, str],
    clips: Sequence[Clip],
    systems: Sequence[System],
    summaries: Mapping[str, Mapping],
    curve: Sequence[Mapping[str, float]] = (),
    about: str = "",
    others: Sequence[Scatter] = (),
) -> Path:
    """Write ``index.html`` with ``audio/`` and ``images/`` beside it.

    Args:
        out_dir: folder, made where it is missing.
        facts: how and on what the model was trained; shown as they are, if there are any.
        systems: in the order shown; the first is the recording, to whose level the others are played.
        summaries: system name -> what :func:`~melglow_plugin.evaluation.evaluate.summarise` returns, or its JSON.
        curve: a row an epoch, with ``epoch`` and ``set/quantity`` such as ``valid/nll``; each quantity gets a chart.
        about: a sentence or two under the title.
        others: charts that place the systems among those of other people.

    Returns:
        The page.

    Raises:
        ValueError: a clip lacks a system's wav, or its files differ in sample rate; names both.
    """
    out_dir = Path(out_dir)
    for folder in ("audio", "images"):
        (out_dir / folder).mkdir(parents=True, exist_ok=True)
    sections = "".join(_clip(out_dir, number, clip, systems) for number, clip in enumerate(clips, 1))
    body = [
        f"<header><h1>{escape(title)}</h1>{f'<p>{escape(about)}</p>' if about else ''}</header>",
        _section("facts", "The model", _definitions(facts)) if facts else "",
        _section("scores", "Scores", _summary(systems, summaries)),
        _section("others", "Among others", _others(others)) if others else "",
        _section("curve", "Training", _curve(curve)) if curve else "",
        _section("clips", "Listen", _listening_note(systems) + sections),
    ]
    html = PAGE.format(title=escape(title), style=STYLE, script=SCRIPT, body="\n".join(body))
    write_bytes(out_dir / "index.html", html.encode())
    return out_dir / "index.html"


def _section(key: str, heading: str, content: str) -> str:
    return f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(heading)}</h2>\n{content}</section>'


def _definitions(items: Mapping[str, str], kind: str = "facts") -> str:
    rows = (f"<div><dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd></div>" for key, value in items.items())
    return f'<dl class="{kind}">{"".join(rows)}</dl>'


# Scores


def _summary(systems: Sequence[System], summaries: Mapping[str, Mapping]) -> str:
    means = {
        system: {name: entry for name, entry in summary.items() if isinstance(entry, Mapping)}
        for system, summary in summaries.items()
    }
    names = _in_order(means.values())
    rows = {s.name: [_mean(means[s.name].get(name)) for name in names] for s in systems if s.name in means}
    if not rows:
        return "<p>None were computed.</p>"
    kinds = {f"{s['interval']} ({s['utterances']} of them)" for s in summaries.values() if "interval" in s}
    meanings = {_score(name).label: _score(name).about for name in names}
    return (
        f"{_table(names, rows, 'Mean scores of each system')}"
        f'<p class="note">Mean ± {escape("; ".join(sorted(kinds)))}; “of 9” where fewer clips have that score. '
        f"↑ higher, ↓ lower, →0 nearer to 0 is better.</p>"
        f"<details><summary>What the scores mean</summary>{_definitions(meanings, 'facts wide')}</details>"
    )


def _in_order(tables) -> list[str]:
    found = dict.fromkeys(name for table in tables for name in table)
    return [*(name for name in SCORES if name in found), *(name for name in found if name not in SCORES)]


def _score(name: str) -> Score:
    return SCORES.get(name, Score(name))


def _table(names: Sequence[str], rows: Mapping[str, Sequence[str]], label: str) -> str:
    body = "".join(
        f'<tr><th scope="row">{escape(system)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for system, cells in rows.items()
    )
    head = f'<th scope="col">System</th>{"".join(map(_column, names))}'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{table}</div>'


def _column(name: str) -> str:
    score = _score(name)
    sign, meaning = ARROWS.get(score.better, ("", ""))
    arrow = f'<span class="arrow" role="img" aria-label="{meaning}">{sign}</span> ' if sign else ""
    return (
        f'<th scope="col" title="{escape(score.about)}">{escape(score.label)}'
        f"<small>{arrow}{escape(score.unit)}</small></th>"
    )


def _number(value: float | None) -> str:
    if not _finite(value):
        return "–"
    small = 0 < abs(value) < 0.1
    return f"{round(value, 3):.3f}".replace("-", "−") if small else f"{value:.2f}".replace("-", "−")


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _mean(entry: Mapping | None) -> str:
    if entry is None or not _finite(entry["mean"]):
        return "–"
    half = f"± {_number(entry['high'] - entry['mean'])}" if _finite(entry["high"]) else ""
    missing = f"<small>of {entry['n']}</small>" if entry["missing"] else ""
    return f"{_number(entry['mean'])}<small>{half}</small>{missing}"


def _others(charts: Sequence[Scatter]) -> str:
    figures = "".join(scatter(c.title, c.x, c.y, c.points) for c in charts)
    notes = "".join(f'<p class="note">{escape(source)}</p>' for source in dict.fromkeys(c.source for c in charts))
    return f'<div class="panels broad">{figures}</div>{notes}'


# The training curve


def _curve(curve: Sequence[Mapping[str, float]]) -> str:
    names = dict.fromkeys(name for row in curve for name in row if "/" in name)
    charts: dict[str, dict] = {}
    for name in names:
        kind, quantity = name.split("/", 1)
        points = [(float(row["epoch"]), float(row[name])) for row in curve if _finite(row.get(name))]
        if points:
            charts.setdefault(quantity, {})[kind] = points
    kinds = list(dict.fromkeys(name.split("/", 1)[0] for name in names))  # a colour each, the same in every chart
    charts = {q: {kind: lines[kind] for kind in kinds if kind in lines} for q, lines in charts.items()}
    return f'<div class="panels">{"".join(chart(quantity, lines) for quantity, lines in charts.items())}</div>'


# Clips


def _listening_note(systems: Sequence[System]) -> str:
    described = "".join(f"<li><b>{escape(s.name)}</b>: {escape(s.about)}</li>" for s in systems if s.about)
    return (
        f'{f"<ul>{described}</ul>" if described else ""}<p class="note">All are played at the level of the '
        f"{escape(systems[0].name)}. Pictures reach from 0 Hz to half the "
        f"sample rate on a mel scale; those of a clip share one scale of {RANGE} dB, brighter is louder.</p>"
    )


def _clip(out_dir: Path, number: int, clip: Clip, systems: Sequence[System]) -> str:
    wavs, sample_rate = _levelled(clip, systems)
    mels = {name: _log_mel(wav, sample_rate) for name, wav in wavs.items()}
    figures = []
    for name, wav in wavs.items():
        stem = re.sub(r"[^A-Za-z0-9-]+", "_", f"{number:03d}-{clip.key}-{name}")
        _write_files(out_dir, stem, wav, sample_rate, mels[name], float(mels[systems[0].name].max()))
        figures.append(_figure(stem, clip.key, name, len(wav) / sample_rate, sample_rate))
    names = _in_order(clip.scores.values())
    scored = [s.name for s in systems if s.name in clip.scores]
    rows = {system: [_number(clip.scores[system].get(name)) for name in names] for system in scored}
    table = f"<details><summary>Scores of this clip</summary>{_table(names, rows, f'Scores of {clip.key}')}</details>"
    return (
        f'<article><h3>{escape(clip.key)}</h3><p class="text">{escape(clip.text)}</p>'
        f'<div class="systems">{"".join(figures)}</div>{table if rows else ""}</article>\n'
    )


def _levelled(clip: Clip, systems: Sequence[System]) -> tuple[dict[str, np.ndarray], int]:
    """system -> wav at the recording's level, all turned down alike where one would clip; and their sample rate."""
    wavs, rates = {}, {}
    for system in systems:
        if system.name not in clip.wavs:
            if not system.everywhere:
                continue
            raise ValueError(f"clip {clip.key} has wavs of {', '.join(clip.wavs)}, none of {system.name}")
        wav, rates[system.name] = read_any_wav(clip.wavs[system.name])
        wavs[system.name] = wav.numpy()
    if len(set(rates.values())) > 1:
        raise ValueError(f"clip {clip.key}: sample rates differ, {rates} Hz")
    sample_rate, recording = rates[systems[0].name], wavs[systems[0].name]
    wavs = {name: wav * np.float32(level_gain(recording, wav, sample_rate)) for name, wav in wavs.items()}
    peak = max(float(np.abs(wav).max(initial=0.0)) for wav in wavs.values())
    return {name: wav / np.float32(max(1.0, peak / 0.99)) for name, wav in wavs.items()}, sample_rate


def _log_mel(wav: np.ndarray, sample_rate: int) -> np.ndarray:
    """In dB, (128, F)."""
    convention = MelConvention(sample_rate, n_mels=128, fmin=0, fmax=None, log_base=10.0, gain=20.0, floor=1e-6)
    wav = np.pad(wav, (0, max(0, convention.n_fft - len(wav))))
    return convention.extract(torch.from_numpy(wav)).numpy()


def _write_files(out_dir: Path, stem: str, wav: np.ndarray, sample_rate: int, mel: np.ndarray, top: float) -> None:
    import soundfile
    from matplotlib.image import imsave

    with atomic_write(out_dir / "audio" / f"{stem}.flac") as file:
        soundfile.write(file, wav, sample_rate, subtype="PCM_16", format="FLAC")
    with atomic_write(out_dir / "images" / f"{stem}.png") as file:
        imsave(file, mel, vmin=top - RANGE, vmax=top, cmap="magma", origin="lower", format="png")


def _figure(stem: str, key: str, system: str, seconds: float, sample_rate: int) -> str:
    what = f"Mel spectrogram of {key}, {system}: {seconds:.1f} s, 0 to {sample_rate / 2000:g} kHz"
    return (
        f"<figure><figcaption>{escape(system)}</figcaption>"
        f'<img src="images/{stem}.png" alt="{escape(what)}" title="{escape(what)}">'
        f'<audio controls preload="metadata" src="audio/{stem}.flac" aria-label="{escape(f"{key}, {system}")}"></audio>'
        f"</figure>"
    )
