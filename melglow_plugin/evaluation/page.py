"""The fixed parts of a page, which stand in ``assets``, and charts whose colours follow its style."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from melglow_plugin.files import read_text


def asset(name: str) -> str:
    """A file of ``assets``: HTML, style or script of a page."""
    return read_text(Path(__file__).parent / "assets" / name)


def document(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole page of HTML: ``body`` in the style of all pages, and with more ``style`` and a ``script`` of its own."""
    return asset("page.html").format(title=escape(title), style=asset("page.css") + style, script=script, body=body)


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
    marks += [_rule(50, 350, at(xs[0], y)[1], f"{y:.4g}") for y in ys]
    for number, line in enumerate(lines.values()):
        places = [f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line)]
        marks.append(f'<polyline class="line{number % 3}" points="{" ".join(places)}"/>')
        x, y = at(*line[-1])
        marks.append(f'<circle class="line{number % 3}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    keys = ", ".join(f'<span class="line{n % 3}">{escape(name)}</span>' for n, name in enumerate(lines))
    ends = ", ".join(f"{name} from {line[0][1]:.4g} to {line[-1][1]:.4g}" for name, line in lines.items())
    return _figure(quantity, f"by epoch: {keys}", f"{quantity} by epoch, {ends}", (364, 196), marks)


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
    marks += [_rule(40, 510, at(10**left, tick)[1], f"{tick:.3g}") for tick in ys]
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
    return _figure(title, f"{escape(y)} over {escape(x)}", f"{title}. {said}", (530, 316), marks)


def _rule(left: int, right: int, height: float, label: str) -> str:
    """A horizontal line with its value at the left."""
    return (
        f'<line x1="{left}" x2="{right}" y1="{height:.1f}" y2="{height:.1f}"/>'
        f'<text x="{left - 6}" y="{height + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _figure(title: str, axes: str, said: str, size: tuple[int, int], marks: Sequence[str]) -> str:
    """The marks of a drawing under its title; ``axes`` is HTML, ``said`` the text that stands for the drawing."""
    return (
        f"<figure><figcaption>{escape(title)} <small>{axes}</small></figcaption>"
        f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{escape(said)}">{"".join(marks)}</svg></figure>'
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
