"""The fixed parts of the report: page, style, script, and a chart whose colours follow the page's."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""

STYLE = """
:root { --ground: #fbfaf8; --card: #fff; --ink: #1d2129; --soft: #5c6470; --rule: #e2dfd9; --accent: #9a3b26;
  --blue: #2f6690; --green: #4f772d; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ground: #15171b; --card: #1d2026; --ink: #e6e4df; --soft: #a1a7b0;
  --rule: #343942; --accent: #f0957d; --blue: #85b8de; --green: #a9c983; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; overflow-wrap: anywhere; }
main { max-width: 1120px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.2; letter-spacing: -.015em; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .9rem; }
h3 { font-size: 1rem; margin: 0; color: var(--soft); font-weight: 600; }
header p { max-width: 46rem; margin: 0; color: var(--soft); font-size: 1.05rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.3rem; margin-top: .8rem; font-size: .92rem; }
a { color: var(--blue); }
small, .note { color: var(--soft); font-size: .82rem; font-weight: 400; }
ul { padding-left: 1.2rem; margin: 0 0 .5rem; }
dl { margin: 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: .9rem 1.5rem; }
.facts.wide { grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); padding-top: .75rem; }
dt { color: var(--soft); font-size: .82rem; }
dd { margin: 0; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .88rem;
  overflow-wrap: normal; }
th, td { padding: .5rem .45rem; text-align: right; white-space: nowrap; vertical-align: top; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card); padding-left: .8rem; }
tr > :last-child { padding-right: .8rem; }
tr + tr, tbody tr { border-top: 1px solid var(--rule); }
thead th { font-weight: 600; font-size: .82rem; }
td small, th small { display: block; font-size: .75rem; min-height: 1.2em; }
.arrow { color: var(--accent); font-size: .85rem; line-height: 1; }
details { margin-top: .75rem; }
summary { cursor: pointer; color: var(--soft); font-size: .9rem; padding: .25rem 0; }
details .scroll { margin-top: .5rem; }
article { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 1.1rem 1.25rem 1rem;
  margin: 1.1rem 0; }
article .scroll { border-radius: 8px; }
.text { margin: .15rem 0 .9rem; font-size: 1.08rem; }
.systems { display: grid; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); gap: 1rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(290px, 1fr)); gap: 1rem; }
.panels.broad { grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); margin-bottom: .5rem; }
figure { margin: 0; min-width: 0; }
.panels figure { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: .7rem .7rem .3rem; }
figcaption { font-weight: 600; font-size: .92rem; margin-bottom: .35rem; }
img { display: block; width: 100%; height: 128px; border-radius: 6px; background: #000; }
audio { display: block; width: 100%; height: 40px; margin-top: .5rem; }
.playing img { outline: 3px solid var(--accent); outline-offset: 1px; }
:focus-visible { outline: 3px solid var(--blue); outline-offset: 2px; }
svg { display: block; width: 100%; }
svg text { fill: var(--soft); font-size: 11px; }
svg line { stroke: var(--rule); }
polyline { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
circle { fill: currentColor; }
.line0 { color: var(--accent); } .line1 { color: var(--blue); } .line2 { color: var(--green); }
@media (max-width: 520px) { main { padding: 1.5rem .9rem 3rem; } article { padding: .9rem; } }
"""

# One player at a time; and what has loaded is written to the body, where a test can read it.
SCRIPT = """
const players = [...document.querySelectorAll("audio")], pictures = [...document.images];
for (const player of players) {
  const frame = player.closest("figure");
  player.addEventListener("play", () => {
    players.forEach(other => other === player || other.pause());
    frame.classList.add("playing");
  });
  for (const event of ["pause", "ended"]) player.addEventListener(event, () => frame.classList.remove("playing"));
  for (const event of ["loadedmetadata", "error"]) player.addEventListener(event, count);
}
for (const picture of pictures) for (const event of ["load", "error"]) picture.addEventListener(event, count);
function count() {
  document.body.dataset.audioLoaded = players.filter(p => p.readyState > 0 && p.duration > 0).length;
  document.body.dataset.imagesLoaded = pictures.filter(p => p.complete && p.naturalWidth > 0).length;
}
count();
"""


def chart(quantity: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A figure of ``quantity`` by epoch.

    Args:
        lines: name, such as train or valid -> its (epoch, value) points.
    """
    from matplotlib.ticker import MaxNLocator

    points = np.array([point for line in lines.values() for point in line])
    xs, ys = (MaxNLocator(4, integer=axis == 0).tick_values(*_span(points[:, axis])) for axis in (0, 1))

    def at(x: float, y: float) -> tuple[float, float]:
        return 50 + 300 * (x - xs[0]) / (xs[-1] - xs[0]), 170 - 150 * (y - ys[0]) / (ys[-1] - ys[0])

    marks = [f'<text x="{at(x, ys[0])[0]:.1f}" y="188" text-anchor="middle">{x:g}</text>' for x in xs if x >= 0]
    for y in ys:
        height = at(xs[0], y)[1]
        marks.append(f'<line x1="50" x2="350" y1="{height:.1f}" y2="{height:.1f}"/>')
        marks.append(f'<text x="44" y="{height + 4:.1f}" text-anchor="end">{y:.4g}</text>')
    for number, line in enumerate(lines.values()):
        places = [f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line)]
        marks.append(f'<polyline class="line{number % 3}" points="{" ".join(places)}"/>')
        x, y = at(*line[-1])
        marks.append(f'<circle class="line{number % 3}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    keys = ", ".join(f'<span class="line{n % 3}">{escape(name)}</span>' for n, name in enumerate(lines))
    ends = ", ".join(f"{name} from {line[0][1]:.4g} to {line[-1][1]:.4g}" for name, line in lines.items())
    return (
        f"<figure><figcaption>{escape(quantity)} <small>by epoch: {keys}</small></figcaption>"
        f'<svg viewBox="0 0 364 196" role="img" aria-label="{escape(f"{quantity} by epoch, {ends}")}">'
        f"{''.join(marks)}</svg></figure>"
    )


def scatter(title: str, x: str, y: str, points: Sequence[tuple[float, float, str, bool]]) -> str:
    """A figure of named points, ``x`` on a logarithmic scale.

    Args:
        points: x above 0, y, name, and whether it is one of this page's systems (others are drawn paler).
    """
    from matplotlib.ticker import MaxNLocator

    xs = np.log10([point[0] for point in points])
    left, right = np.floor(xs.min() * 2) / 2, np.ceil(xs.max() * 2 + 0.3) / 2
    ys = MaxNLocator(5).tick_values(*_span(np.array([point[1] for point in points])))

    def at(x_value: float, y_value: float) -> tuple[float, float]:
        return 40 + 470 * (np.log10(x_value) - left) / (right - left), 290 - 270 * (y_value - ys[0]) / (ys[-1] - ys[0])

    marks = []
    for tick in np.arange(left, right + 0.25, 0.5):
        marks.append(
            f'<text x="{at(10**tick, ys[0])[0]:.1f}" y="308" text-anchor="middle">{float(f"{10**tick:.1g}"):g}</text>'
        )
    for tick in ys:
        height = at(10**left, tick)[1]
        marks.append(f'<line x1="40" x2="510" y1="{height:.1f}" y2="{height:.1f}"/>')
        marks.append(f'<text x="34" y="{height + 4:.1f}" text-anchor="end">{tick:.3g}</text>')
    dots = [at(point[0], point[1]) for point in points]
    taken: list[tuple[float, float, float]] = []  # boxes of the labels: left, right, baseline
    for x_value, y_value, name, ours in sorted(points, key=lambda point: (not point[3], -point[1])):
        across, down = at(x_value, y_value)
        side, shift = _label_place(across, down, (7.2 if ours else 6.2) * len(name), dots, taken)
        kind, weight = ("line0", ' font-weight="700"') if ours else ("line1", "")
        marks.append(f'<circle class="{kind}" cx="{across:.1f}" cy="{down:.1f}" r="{5 if ours else 3.5}"/>')
        anchor, height = ("start" if side > 0 else "end"), down + 4 + shift
        if shift:  # which point it belongs to
            marks.append(
                f'<line x1="{across:.1f}" y1="{down:.1f}" x2="{across + 8 * side:.1f}" y2="{height - 3:.1f}" '
                'style="stroke:currentColor"/>'
            )
        marks.append(
            f'<text x="{across + 9 * side:.1f}" y="{height:.1f}" text-anchor="{anchor}"{weight}>{escape(name)}</text>'
        )
    said = "; ".join(f"{name}: {x_value:g}, {y_value:.2f}" for x_value, y_value, name, _ in points)
    return (
        f"<figure><figcaption>{escape(title)} <small>{escape(y)} over {escape(x)}</small></figcaption>"
        f'<svg viewBox="0 0 530 316" role="img" aria-label="{escape(f"{title}. {said}")}">'
        f"{''.join(marks)}</svg></figure>"
    )


def _label_place(across: float, down: float, width: float, dots, taken: list) -> tuple[int, int]:
    """Side (1 or -1) and vertical shift of a point's label, near it, off other ``dots`` and the boxes in ``taken``."""

    def box(side: int, shift: int) -> tuple[float, float, float]:
        near, far = across + 9 * side, across + side * (9 + width)
        return min(near, far), max(near, far), down + 4 + shift

    def free(box: tuple[float, float, float]) -> bool:
        start, end, height = box
        return (
            start > 40 and end < 530 and 8 < height < 290
            and not any(abs(height - y) < 11 and start < right and left < end for left, right, y in taken)
            and not any(start - 4 < x < end + 4 and -12 < y - height < 4 for x, y in dots)
        )  # fmt: skip

    places = sorted(((side, shift) for shift in range(-99, 100, 11) for side in (1, -1)), key=lambda p: abs(p[1]))
    place = next((place for place in places if free(box(*place))), (1, 0))
    taken.append(box(*place))
    return place


def _span(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)
