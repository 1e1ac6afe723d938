"""Curves as inline SVG, for pages: they take the colours of the page, light or dark, and its width.

A chart is about as wide as a telephone, so that its letters can be read there; wider screens enlarge it, or put two side
by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 42, 8, 10, 36
MOST_POINTS = 400  # of a curve

Scale = Callable[[float], float]  # a number -> its place

STYLE = """
figure { margin: 0; max-width: 30rem; display: flex; flex-direction: column; justify-content: space-between }
figcaption { font-size: .875rem; color: var(--soft); margin-bottom: .5rem }
figcaption b { display: block; font-size: 1rem; color: var(--ink) }
.chart { width: 100%; height: auto; display: block } .chart text { font: 11px system-ui, sans-serif; fill: var(--soft) }
.chart .grid { stroke: var(--line); stroke-width: 1 } .chart .level { stroke: var(--soft); stroke-dasharray: 4 3 }
.chart .raw { stroke: var(--own); opacity: .3; stroke-width: 1 } .chart .smooth { stroke: var(--own); stroke-width: 2 }
.chart polyline { fill: none; stroke-linejoin: round } .chart .bar { fill: var(--own) }
"""


@dataclass(frozen=True)
class Line:
    """A curve of a chart; kind: raw, smooth, or level for a dashed one."""

    kind: str
    x: Sequence[float]
    y: Sequence[float]


def chart(lines: Sequence[Line], described: str, *, x_label: str, percent: bool = False) -> str:
    """Lines over one axis.

    Args:
        lines: In the order in which they are drawn. Places without a number (NaN) are left out.
        described: What the chart shows, for those who do not see it.
        x_label: What the axis counts.
        percent: Shares are written in percent, from 0 on.
    """
    values = [value for line in lines for value in line.y if not math.isnan(value)]
    places = [place for line in lines for place in line.x]
    rows = _ticks(0.0 if percent else min(values), max(values))
    decimals = next(places for places in range(9) if all(abs(tick - round(tick, places)) < 1e-9 for tick in rows))
    names = [f"{100 * tick:.0f} %" if percent else f"{tick:.{decimals}f}" for tick in rows]
    parts, across, up = _axes(min(places), max(places), x_label, rows, names)
    for line in lines:
        step = max(1, len(line.x) // MOST_POINTS)
        points = [(x, y) for x, y in list(zip(line.x, line.y, strict=True))[::step] if not math.isnan(y)]
        drawn = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="{line.kind}" points="{drawn}"/>')
    return _svg(parts, described)


def bars(counts: Sequence[tuple[float, float, int]], described: str, *, x_label: str) -> str:
    """A histogram of (from, to, number) over one axis."""
    rows = _ticks(0, max(number for _, _, number in counts), whole=True)
    names = [f"{tick / 1000:,g}k" if rows[-1] >= 10_000 and tick else f"{tick:,.0f}" for tick in rows]
    parts, across, up = _axes(counts[0][0], counts[-1][1], x_label, rows, names)
    for low, high, number in counts:
        left, top, wide = across(low), up(number), max(1.0, across(high) - across(low) - 1.5)
        parts.append(f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{up(0) - top:.1f}"/>')
    return _svg(parts, described)


def _axes(
    low: float, high: float, x_label: str, rows: Sequence[float], names: Sequence[str]
) -> tuple[list[str], Scale, Scale]:
    """The parts of a chart without its data: rows with their names, whole numbers below; and both scales."""
    across, up = _scale(low, high, LEFT, WIDTH - RIGHT), _scale(rows[0], rows[-1], HEIGHT - BOTTOM, TOP)
    parts = []
    for name, height in zip(names, map(up, rows), strict=True):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{name}</text>')
    places = [
        (across(tick), HEIGHT - BOTTOM + 15, f"{tick:,.0f}")
        for tick in _ticks(low, high, whole=True)
        if low <= tick <= high
    ]
    for x, y, name in [*places, ((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, escape(x_label))]:
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{name}</text>')
    return parts, across, up


def _svg(parts: Sequence[str], described: str) -> str:
    inner = "\n".join(parts)
    label = escape(described, quote=True)
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">\n{inner}\n</svg>'


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers from `low` or below it to `high` or beyond, at most seven. matplotlib, an extra, is not needed here.

    >>> _ticks(0.3, 2.1), _ticks(3, 3, whole=True)
    ([0.0, 0.5, 1.0, 1.5, 2.0, 2.5], [3.0, 4.0])
    """
    rough = max((high - low) / 5 or 1, 1 if whole else 0)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), max(math.ceil(high / step - 1e-9), math.floor(low / step + 1e-9) + 1)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (end - start) * (value - low) / ((high - low) or 1)
