"""The page of ``melglow eval``: recordings and copies side by side."""

from collections.abc import Mapping
from pathlib import Path

from melglow_plugin.evaluation.clips import Clip, System, spread
from melglow_plugin.evaluation.evaluate import read_scores
from melglow_plugin.evaluation.report import write_report

RECORDING, COPY = System("recording"), System("copy")


def write_comparison(out_dir: Path, pairs: Mapping[str, tuple[Path, Path]], summary: Mapping, clips: int) -> Path:
    """Write ``index.html`` beside the ``scores.csv`` of ``out_dir``: players, spectrograms and scores of some clips.

    Args:
        out_dir: where :func:`melglow_plugin.evaluation.evaluate.evaluate` wrote.
        pairs: id -> recording and copy.
        summary: what it returned.
        clips: how many at most, spread evenly over the sorted ids.

    Returns:
        The page.
    """
    scores, keys = read_scores(out_dir / "scores.csv"), list(pairs)
    shown = spread(keys, clips)
    scored = "1 clip was scored" if len(keys) == 1 else f"{len(keys)} clips were scored"
    about = scored + (f", {len(shown)} of them are here." if len(shown) < len(keys) else ".")
    shown_clips = [
        Clip(key, "", dict(zip((RECORDING.name, COPY.name), pairs[key], strict=True)), {COPY.name: scores[key]})
        for key in shown
    ]
    summaries = {COPY.name: summary}
    return write_report(out_dir, "Copies beside recordings", {}, shown_clips, [RECORDING, COPY], summaries, about=about)
