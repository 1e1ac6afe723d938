"""Figures, as PDF, PNG and SVG, with the numbers behind each panel. `KINDS` lists what can be drawn.

A kind first collects the numbers of its panels, then draws from these alone. Both are written, so the data files hold
what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure as Canvas

from revela.files import atomic_folder
from revela.paper.canvas import STYLE, Panels, save
from revela.paper.figure_means import bars, draw_bars, draw_hours, draw_lines, hours, lines
from revela.paper.figure_same_document import draw_same_document, same_document
from revela.paper.figure_timing import draw_timing, timing
from revela.paper.figure_training import draw_dynamics, draw_training_curves, dynamics, training_curves

if TYPE_CHECKING:
    from revela.study.layout import Layout
    from revela.study.tables import FigureSpec, TableSpec


class Kind(NamedTuple):
    """How a kind of figure is made: its numbers are collected, then drawn with the labels of the specification."""

    collect: Callable[[FigureSpec, Layout], Panels]
    draw: Callable[[Panels, FigureSpec], Canvas]


def _of_tables(collect: Callable[[TableSpec, Layout], pd.DataFrame]) -> Callable[[FigureSpec, Layout], Panels]:
    """A `Kind.collect` for figures with one panel for each table, from the numbers of one table."""
    return lambda spec, layout: {title: collect(table, layout) for title, table in spec.panels.items()}


KINDS = {
    "bars": Kind(_of_tables(bars), draw_bars),
    "lines": Kind(_of_tables(lines), draw_lines),
    "hours": Kind(_of_tables(hours), draw_hours),
    "dynamics": Kind(dynamics, draw_dynamics),
    "same_document": Kind(same_document, draw_same_document),
    "timing": Kind(timing, draw_timing),
    "training": Kind(training_curves, draw_training_curves),
}


def write_figure(spec: FigureSpec, layout: Layout, output: Sequence[str | Path], data: str | Path) -> None:
    """Write a figure.

    Args:
        spec: The figure.
        layout: Where the scores, logs and measurements are.
        output: Files. Their suffixes, .pdf, .png or .svg, name the format.
        data: A folder, in which the numbers of each panel become a CSV.

    Raises:
        PaperError: A file that the figure is drawn from is missing or is no such file.
    """
    found = panels(spec, layout)
    with atomic_folder(data) as partial:
        for title, frame in found.items():
            frame.to_csv(partial / f"{slug(title)}.csv", index=False, float_format="%.6g", lineterminator="\n")
    with rc_context(STYLE):
        save(KINDS[spec.figure.kind].draw(found, spec), output)


def panels(spec: FigureSpec, layout: Layout) -> Panels:
    """title -> the numbers of a panel. Raises PaperError if there are none."""
    return KINDS[spec.figure.kind].collect(spec, layout)


def slug(title: str) -> str:
    """A panel's title as a file name.

    >>> slug("step 100"), slug("revela, code")
    ('step-100', 'revela-code')
    """
    return "-".join("".join(c if c.isalnum() or c in "._" else " " for c in title).split())
