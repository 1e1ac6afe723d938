"""The figure of what the methods cost: seconds for a batch against its size (App. C.7)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import NullLocator

from revela.paper import PaperError
from revela.paper.canvas import Panels, line_styles, side_by_side

if TYPE_CHECKING:
    from revela.study.layout import Layout
    from revela.study.tables import FigureSpec


def timing(spec: FigureSpec, layout: Layout) -> Panels:
    """device -> method, batch_size, seconds, as `revela.evaluation.timing` measured them.

    Raises PaperError if nothing was measured.
    """
    path = layout.timing(spec.figure.cell)
    try:
        measured = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise PaperError(f"{path}: no measured times ({error})") from None
    return {measured["device"]: pd.DataFrame(measured["points"])}


def draw_timing(found: Panels, spec: FigureSpec) -> Canvas:
    """Seconds for a batch against its size, on logarithmic scales, with the slope over the larger sizes."""
    canvas, axes = side_by_side(len(found), width=3.4, height=2.3)
    for ax, (title, frame) in zip(axes, found.items()):
        for (method, part), style in zip(frame.groupby("method", sort=False), line_styles()):
            ax.plot(part["batch_size"], part["seconds"], label=f"{method}: $B^{{{slope(part):.1f}}}$", **style)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        sizes = sorted(frame["batch_size"].unique())
        ax.set_xticks(sizes, map(str, sizes))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set(title=title, xlabel="documents in a batch, $B$", ylabel="seconds for a batch")
        ax.legend(loc="upper left")
    return canvas


def slope(points: pd.DataFrame) -> float:
    """The power of the batch size by which the seconds grow, over the upper half of the sizes."""
    upper = points.sort_values("batch_size").iloc[len(points) // 2 :] if len(points) > 3 else points
    return float(np.polyfit(np.log(upper["batch_size"]), np.log(upper["seconds"]), 1)[0])
