"""What all figures share: sizes, colours, the style of lines, panels, the legend, and how a figure is saved.

Figures are readable in black and white and for colour-blind readers. Equal numbers give equal bytes: nothing of the time
or the machine goes into a file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from revela.files import atomic_write

WIDTH = 5.5  # inches: the text width of the ICLR class
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, 2008
OWN, OTHERS = "#0072B2", "#C9D9E6"  # bars of Revela and of others: dark and light in black and white
MARKERS = "osD^vP*X"
DASHES = ("-", "--", "-.", ":")
STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 6.5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "revela",
}

# On a dark screen, an SVG's background and ink change places, and its darkest colours become lighter.
DARK = {
    "#ffffff": "#0d1117",
    "#000000": "#e6edf3",
    "#333333": "#c9d1d9",
    "#777777": "#9da7b3",
    "#0072b2": "#58a6ff",
    "#d55e00": "#f0883e",
}

Panels = dict[str, pd.DataFrame]  # title -> the numbers of a panel


def line_styles() -> Iterator[dict[str, Any]]:
    """Yields styles of lines, each of another colour, marker and dashes, without end."""
    for colour, marker, dashes in zip(*map(itertools.cycle, (PALETTE, MARKERS, DASHES))):
        yield {"color": colour, "marker": marker, "linestyle": dashes, "markersize": 3.5, "linewidth": 1.1}


def side_by_side(number: int, *, width: float = WIDTH, height: float) -> tuple[Canvas, list[Axes]]:
    """A figure of panels side by side. A single panel is narrower."""
    canvas = Canvas(figsize=(width if number > 1 else min(width, 3.4), height), layout="constrained")
    return canvas, list(canvas.subplots(1, number, squeeze=False)[0])


def add_legend(canvas: Canvas, marks: Mapping[str, object]) -> None:
    """One legend for all panels, below them."""
    canvas.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=4, handlelength=2.6)


def save(canvas: Canvas, output: Sequence[str | Path]) -> None:
    """Write a figure to files. Their suffixes, .pdf, .png or .svg, name the format. Equal figures give equal bytes."""
    for path in output:
        suffix = Path(path).suffix
        anonymous = {".pdf": {"CreationDate": None}, ".png": {"Software": None}, ".svg": {"Date": None}}[suffix]
        with atomic_write(path) as partial:
            canvas.savefig(partial, metadata=anonymous)
            if suffix == ".svg":
                partial.write_text(_with_dark_colours(partial.read_text(encoding="utf-8")), encoding="utf-8")


def _with_dark_colours(svg: str) -> str:
    """The same picture, with other colours where a screen is dark."""
    rules = [f"svg {{ fill: {DARK['#000000']} }}"]  # text in black names no colour
    rules += [
        f'[style*="{part}: {light}"] {{ {part}: {dark} !important }}'
        for light, dark in DARK.items()
        for part in ("fill", "stroke")
    ]
    style = f"<style>@media (prefers-color-scheme: dark) {{ {' '.join(rules)} }}</style>"
    head, end, rest = svg.partition("<defs>")
    return f"{head}{style}\n {end}{rest}"
