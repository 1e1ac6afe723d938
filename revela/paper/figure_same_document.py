"""The figure that shows the method at a glance: where Sim puts its weight while the retriever learns.

Sim is the weight with which a chunk attends to the other chunks of its batch. Nobody says which of these come from the
same document. If next-token prediction teaches retrieval, their share of the weight rises from that of an untrained
retriever, and it stays where it was if Sim is shuffled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import PercentFormatter

from revela.paper import PaperError
from revela.paper.canvas import OWN, PALETTE, WIDTH, Panels
from revela.paper.logs import comparable, read_log
from revela.study.cell import Cell

if TYPE_CHECKING:
    from revela.study.layout import Layout
    from revela.study.tables import FigureSpec

LEARNED, SHUFFLED, UNIFORM = "learned", "shuffled Sim", "trained under a uniform Sim"
CURVES = {"learned": LEARNED, "shuffled": SHUFFLED, "uniform": UNIFORM}  # by training.similarity
CONTROL, LEVEL = "#777777", "#333333"


def same_document(spec: FigureSpec, layout: Layout) -> Panels:
    """curve, batches, share, uniform: the weight on chunks of the same document, and what a uniform Sim gives them.

    Batches are counted before the step: at 0 the retriever is untrained. Raises PaperError where a log has no such
    weights.
    """
    frames = []
    for cell in map(Cell.parse, spec.cells):
        path = layout.cell_log(cell)
        log = read_log(path)
        if not all("same_document" in line for line in log):
            raise PaperError(f"{path}: no weights on chunks of the same document; the batches do not name documents")
        settings = json.loads(Path(layout.cell_settings(cell)).read_text(encoding="utf-8"))
        name = CURVES[settings["similarity"]]
        known = {frame["curve"].iloc[0] for frame in frames}
        frames.append(
            pd.DataFrame(
                {
                    "curve": f"{name}, {cell.variant}" if name in known else name,
                    "batches": [(line["step"] - 1) * settings["batches_per_step"] for line in log],
                    "share": [line["same_document"] for line in log],
                    "uniform": [line["same_document_uniform"] for line in log],
                }
            )
        )
    return {"same document": pd.concat(frames, ignore_index=True)}


def draw_same_document(found: Panels, spec: FigureSpec) -> Canvas:
    """The share against the batches, smoothed over a tenth of the run.

    Dashed: uniform Sim. Dotted: the untrained retriever, where the curves begin.
    """
    [frame] = found.values()
    canvas = Canvas(figsize=(WIDTH, 2.5), layout="constrained")
    ax = canvas.subplots()
    uniform = frame["uniform"].mean()
    ends, starts, top = {}, [], uniform
    for name, curve in frame.groupby("curve", sort=False):
        learned = name.startswith(LEARNED)
        colour = OWN if learned else CONTROL
        smooth = comparable(curve, uniform, max(1, len(curve) // 10))
        ax.plot(curve["batches"], smooth, color=colour, linewidth=2 if learned else 1.2, solid_capstyle="round")
        ends[name] = smooth.iloc[-1], colour
        top = max(top, smooth.max())
        starts += [smooth.iloc[0]] if learned else []
    for name, level, colour, dashes in (
        ("untrained", sum(starts) / len(starts), PALETTE[1], (0, (1, 1.5))),
        ("uniform Sim", uniform, LEVEL, (0, (5, 2))),
    ):
        ax.axhline(level, color=colour, linewidth=1, linestyle=dashes, zorder=3)
        ends[name] = level, colour
    ax.set(xlim=(0, frame["batches"].max()), ylim=(0, min(1, 1.2 * top)), xlabel="batches of training")
    ax.set_ylabel("weight on chunks of\nthe same document")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(axis="x", visible=False)
    _label_ends(ax, ends)
    return canvas


def _label_ends(ax: Axes, ends: dict[str, tuple[float, str]]) -> None:
    """Write the name of each line and its value to the right of its end; names that would touch are moved apart."""
    top = ax.get_ylim()[1]
    least, below = 0.08 * top, -1.0
    for name, (value, colour) in sorted(ends.items(), key=lambda item: item[1][0]):
        below = max(value, below + least)
        ax.annotate(
            f"{name}  {100 * value:.0f} %", (1.015, below), xycoords=("axes fraction", "data"), va="center",
            color=colour, fontweight="bold" if name.startswith(LEARNED) else "normal", annotation_clip=False,
        )  # fmt: skip
