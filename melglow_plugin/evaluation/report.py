"""One static page in a folder that can be zipped: players and spectrograms, then scores, charts, model, training."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from melglow_plugin.evaluation.clips import RANGE, Clip, System, levelled, log_mel, picture
from melglow_plugin.evaluation.evaluate import SCORES, Score
from melglow_plugin.evaluation.page import asset, chart, document, scatter
from melglow_plugin.files import audio_bytes, write_bytes

__all__ = ["Clip", "Scatter", "System", "write_report"]

ARROWS = {
    "higher": ("↑", "higher is better"),
    "lower": ("↓", "lower is better"),
    "zero": ("→0", "nearer to 0 is better"),
}
CLIPS_SHOWN = 3  # the others are one click away


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
    articles = [_clip(out_dir, number, clip, systems) for number, clip in enumerate(clips, 1)]
    sections = {
        "Listen": _listening(systems, articles),
        "Scores": _summary(systems, summaries),
        "Quality, time and size": _others(others) if others else "",
        "The model": _definitions(facts) if facts else "",
        "Training": _curve(curve) if curve else "",
    }
    html = document(title, _body(title, about, sections), script=asset("report.js"))
    write_bytes(out_dir / "index.html", html.encode())
    return out_dir / "index.html"


def _body(title: str, about: str, sections: Mapping[str, str]) -> str:
    """The page: title, links, and those of ``sections`` (heading -> HTML) that have content."""
    keys = {heading: heading.split()[-1].lower() for heading, content in sections.items() if content}
    links = "".join(f'<a href="#{key}">{escape(heading)}</a>' for heading, key in keys.items())
    header = f"<header><h1>{escape(title)}</h1>{f'<p>{escape(about)}</p>' if about else ''}<nav>{links}</nav></header>"
    parts = (
        f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(heading)}</h2>\n{sections[heading]}</section>'
        for heading, key in keys.items()
    )
    return "\n".join([header, *parts])


def _definitions(items: Mapping[str, str], kind: str = "facts") -> str:
    rows = (f"<div><dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd></div>" for key, value in items.items())
    return f'<dl class="{kind}">{"".join(rows)}</dl>'


# Scores


def _summary(systems: Sequence[System], summaries: Mapping[str, Mapping]) -> str:
    means = {
        system: {name: entry for name, entry in summary.items() if isinstance(entry, Mapping) and "mean" in entry}
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


def _listening(systems: Sequence[System], articles: Sequence[str]) -> str:
    """Some clips, what is played, and the other clips behind a click."""
    if not articles:
        return ""
    shown, more = "".join(articles[:CLIPS_SHOWN]), "".join(articles[CLIPS_SHOWN:])
    described = "".join(f"<li><b>{escape(s.name)}</b>: {escape(s.about)}</li>" for s in systems if s.about)
    return (
        f'{shown}{f"<ul>{described}</ul>" if described else ""}<p class="note">All are played at the level of the '
        f"{escape(systems[0].name)}. Pictures reach from 0 Hz to half the "
        f"sample rate on a mel scale; those of a clip share one scale of {RANGE} dB, brighter is louder.</p>"
        + (f"<details><summary>{len(articles) - CLIPS_SHOWN} more clips</summary>{more}</details>" if more else "")
    )


def _clip(out_dir: Path, number: int, clip: Clip, systems: Sequence[System]) -> str:
    wavs, sample_rate = levelled(clip, systems)
    mels = {name: log_mel(wav, sample_rate) for name, wav in wavs.items()}
    top, figures = float(mels[systems[0].name].max()), []
    for name, wav in wavs.items():
        stem = re.sub(r"[^A-Za-z0-9-]+", "_", f"{number:03d}-{clip.key}-{name}")
        write_bytes(out_dir / "audio" / f"{stem}.flac", audio_bytes(wav, sample_rate, "FLAC"))
        write_bytes(out_dir / "images" / f"{stem}.png", picture(mels[name], top))
        figures.append(_figure(stem, clip.key, name, len(wav) / sample_rate, sample_rate))
    names = _in_order(clip.scores.values())
    scored = [s.name for s in systems if s.name in clip.scores]
    rows = {system: [_number(clip.scores[system].get(name)) for name in names] for system in scored}
    table = f"<details><summary>Scores of this clip</summary>{_table(names, rows, f'Scores of {clip.key}')}</details>"
    return (
        f'<article><h3>{escape(clip.key)}</h3><p class="text">{escape(clip.text)}</p>'
        f'<div class="systems">{"".join(figures)}</div>{table if rows else ""}</article>\n'
    )


def _figure(stem: str, key: str, system: str, seconds: float, sample_rate: int) -> str:
    what = f"Mel spectrogram of {key}, {system}: {seconds:.1f} s, 0 to {sample_rate / 2000:g} kHz"
    return (
        f"<figure><figcaption>{escape(system)}</figcaption>"
        f'<img src="images/{stem}.png" alt="{escape(what)}" title="{escape(what)}">'
        f'<audio controls preload="metadata" src="audio/{stem}.flac" aria-label="{escape(f"{key}, {system}")}"></audio>'
        f"</figure>"
    )
