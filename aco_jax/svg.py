"""Small pictures as SVG text: curves, bars, reliability. No scripts; colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

Scale = Callable[[float], float]

_WIDTH, _HEIGHT = 300, 150  # of a curve, in units of the view box
_LEFT, _BOTTOM, _TOP, _RIGHT = 40, 18, 8, 10
_COLOURS = 6  # of the page's style, `c0` to `c5`


@dataclass(frozen=True)
class Line:
    """One of several lines in a picture; a band needs one (low, high) a point."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] = ()


def curve(steps: Sequence[int], values: Sequence[float | None], label: str) -> str:
    """One metric over the steps: every value faint, their running mean strong, None a gap."""
    known = [(x, y) for x, y in zip(steps, values, strict=True) if y is not None]
    if not known:
        return ""
    xs, ys = np.array([x for x, _ in known], float), np.array([y for _, y in known], float)
    x_range, y_range = _padded(xs, 0.0), _padded(ys, 0.06)
    to_x = _scale(x_range, _LEFT, _WIDTH - _RIGHT)
    to_y = _scale(y_range, _HEIGHT - _BOTTOM, _TOP)
    parts = [_axes(x_range, y_range, to_x, to_y)]
    if len(known) == 1:
        parts.append(f'<circle class="dot" cx="{to_x(xs[0]):.1f}" cy="{to_y(ys[0]):.1f}" r="3"/>')
    else:
        lines = _unbroken(steps, values)
        parts += [_polyline("raw", [(to_x(x), to_y(y)) for x, y in line]) for line in lines]
        smooth = zip(xs, _running_mean(ys, len(ys) // 12), strict=True)
        parts.append(_polyline("mean", [(to_x(x), to_y(y)) for x, y in smooth]))
    return _picture(_WIDTH, _HEIGHT, f"{label}: {number(ys[0])} to {number(ys[-1])}", "".join(parts))


def lines(series: Sequence[Line], across: str, up: str, log_x: bool = False, log_y: bool = False) -> str:
    """Lines in one picture with their bands and names; on a log axis values that are not positive are left out."""
    drawn = [_logged(line, log_x, log_y) for line in series]
    points = np.array([point for line in drawn for point in line.points], float).reshape(-1, 2)
    if not len(points):
        return ""
    edges = np.array([edge for line in drawn for pair in line.band for edge in pair], float)
    x_range = _padded(points[:, 0], 0.0)
    y_range = _padded(np.concatenate([points[:, 1], edges]), 0.06)
    to_x, to_y = _scale(x_range, _LEFT, 340), _scale(y_range, 262, 22)
    parts = [_axes(x_range, y_range, to_x, to_y, floor=262, powers=(log_x, log_y))]
    parts += [_text(_LEFT, 11, up, "start"), _text(340, 291, across, "end")]
    for place, line in enumerate(drawn):
        colour = f"c{place % _COLOURS}"
        if line.band:
            xs = [x for x, _ in line.points]
            outline = [*zip(xs, [low for low, _ in line.band], strict=True)]
            outline += reversed([*zip(xs, [high for _, high in line.band], strict=True)])
            corners = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in outline)
            parts.append(f'<polygon class="band {colour}" points="{corners}"/>')
        parts.append(_polyline(f"line {colour}", [(to_x(x), to_y(y)) for x, y in line.points]))
        parts += [
            f'<circle class="mark {colour}" cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" r="2"/>' for x, y in line.points
        ]
        y = 30 + 17 * place
        parts.append(f'<line class="line {colour}" x1="352" x2="368" y1="{y - 4}" y2="{y - 4}"/>')
        parts.append(_text(373, y, line.name, "start"))
    return _picture(500, 296, f"{up} against {across}", "".join(parts))


def bars(values: Mapping[str, float], unit: str) -> str:
    """Horizontal bars, the longest first."""
    items = sorted(values.items(), key=lambda item: -item[1])
    most, total = max(values.values(), default=0.0) or 1.0, sum(values.values()) or 1.0
    rows = []
    for place, (name, value) in enumerate(items):
        y, length = 24 * place, 230 * value / most
        share = f"{number(value)} {unit}, {100 * value / total:.0f}%"
        rows.append(
            f'<text class="name" x="120" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="bar" x="128" y="{y + 4}" width="{max(length, 1):.1f}" height="15" rx="3"/>'
            f'<text class="tick" x="{134 + length:.1f}" y="{y + 15}">{escape(share)}</text>'
        )
    return _picture(480, 24 * len(items), f"{unit} by stage", "".join(rows)) if items else ""


def reliability(bins: Sequence[tuple[float, float, int]]) -> str:
    """Stated probability against how often it was true; a bin's area is its number of pairs."""
    to_x, to_y = _scale((0, 1), _LEFT, 290), _scale((0, 1), 272, 12)
    most = max((count for _, _, count in bins), default=1)
    parts = [_axes((0, 1), (0, 1), to_x, to_y, floor=272)]
    parts.append(_polyline("ideal", [(to_x(0), to_y(0)), (to_x(1), to_y(1))]))
    for stated, true, count in bins:
        said = f"stated {stated:.2f}, true {true:.2f}, {count} pairs"
        parts.append(
            f'<line class="gap" x1="{to_x(stated):.1f}" x2="{to_x(stated):.1f}" '
            f'y1="{to_y(stated):.1f}" y2="{to_y(true):.1f}"/>'
            f'<circle class="dot" cx="{to_x(stated):.1f}" cy="{to_y(true):.1f}" '
            f'r="{3 + 9 * math.sqrt(count / most):.1f}"><title>{said}</title></circle>'
        )
    return _picture(300, 290, "reliability of the probabilities", "".join(parts))


def number(value: float) -> str:
    """Three digits, thousands shortened."""
    size = abs(value)
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if suffix == 'k' else limit):.3g}{suffix}"
    return f"{value:.0f}" if size >= 1000 else f"{value:.3g}"


def _picture(width: float, height: float, label: str, content: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{content}</svg>"
    )


def _axes(
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    to_x: Scale,
    to_y: Scale,
    floor: float = _HEIGHT - _BOTTOM,
    powers: tuple[bool, bool] = (False, False),
) -> str:
    """Grid and ticks; an axis of powers has logarithms to base 10 for values."""
    parts = []
    for tick, said in _marks(y_range, powers[1]):
        y = to_y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{to_x(x_range[1]):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 5, y + 3.5, said, "end"))
    parts += [_text(to_x(tick), floor + 13, said, "middle") for tick, said in _marks(x_range, powers[0])]
    return "".join(parts)


def _logged(line: Line, log_x: bool, log_y: bool) -> Line:
    """The line in logarithms where an axis has them."""
    band = line.band or [(y, y) for _, y in line.points]
    kept = [
        (point, edges)
        for point, edges in zip(line.points, band, strict=True)
        if (not log_x or point[0] > 0) and (not log_y or min(point[1], *edges) > 0)
    ]

    def log(value: float, logged: bool) -> float:
        return math.log10(value) if logged else value

    points = [(log(x, log_x), log(y, log_y)) for (x, y), _ in kept]
    bands = [(log(low, log_y), log(high, log_y)) for _, (low, high) in kept]
    return Line(line.name, points, bands if line.band else ())


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _polyline(kind: str, points: Sequence[tuple[float, float]]) -> str:
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _scale(values: tuple[float, float], start: float, end: float) -> Scale:
    low, high = values
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _padded(values: np.ndarray, share: float) -> tuple[float, float]:
    """Where the axis begins and ends; never an empty range."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - max(abs(low) * 0.1, 0.5), high + max(abs(high) * 0.1, 0.5)
    return low - share * (high - low), high + share * (high - low)


def _marks(values: tuple[float, float], power: bool) -> list[tuple[float, str]]:
    """Places of ticks and what stands there; of powers, those of 10, or of 2 where those are too few."""
    if not power:
        return [(tick, number(tick)) for tick in _ticks(*values)]
    for base in (10.0, 2.0):
        unit = math.log10(base)
        first, last = math.ceil(values[0] / unit - 1e-9), math.floor(values[1] / unit + 1e-9)
        if last - first >= 1:
            return [(n * unit, number(base**n)) for n in range(first, last + 1)]
    return [(tick, number(10**tick)) for tick in _ticks(*values)]


def _ticks(low: float, high: float) -> list[float]:
    """Two to seven round numbers within the range."""
    power = 10.0 ** math.floor(math.log10(high - low))
    step = next(s * power for s in (2.0, 1.0, 0.5, 0.2, 0.1) if (high - low) / (s * power) >= 2.5)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _running_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """The mean of each value and of `reach` neighbours on either side, fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    start, end = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return (sums[end] - sums[start]) / (end - start)


def _unbroken(steps: Sequence[int], values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    lines: list[list[tuple[int, float]]] = [[]]
    for step, value in zip(steps, values, strict=True):
        if value is not None:
            lines[-1].append((step, value))
        elif lines[-1]:
            lines.append([])
    return [line for line in lines if line]
