"""Figures of the means of tables: as bars, as lines, and against the hours of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from revela.paper import PaperError
from revela.paper.canvas import OTHERS, OWN, Panels, add_legend, line_styles, side_by_side
from revela.paper.logs import read_log
from revela.paper.values import columns
from revela.study.methods import METHODS

if TYPE_CHECKING:
    from revela.study.layout import Layout
    from revela.study.tables import FigureSpec, TableSpec


def bars(spec: TableSpec, layout: Layout) -> pd.DataFrame:
    """label, mean, margin (of the 95 % interval), origin (own, measured, copied) of each column of a table.

    Revela's cells are own, but not its controls, which lack the retriever's signal.
    """
    return pd.DataFrame(
        {
            "label": column.label,
            "mean": column.values[-1],
            "margin": np.nan if column.copied else column.margins[-1],
            "origin": "copied" if column.copied else "own" if shown.learned else "measured",
        }
        for shown, column in zip(spec.columns, columns(spec, layout), strict=True)
    )


def draw_bars(found: Panels, spec: FigureSpec) -> Canvas:
    """A bar for each system, with its interval. Revela's bars are dark, copied ones hatched (figure 3)."""
    height = 0.5 + 0.155 * max(map(len, found.values()))
    canvas, axes = side_by_side(len(found), height=height)
    for ax, (title, frame) in zip(axes, found.items()):
        places = np.arange(len(frame))[::-1]
        own, copied = (frame["origin"] == "own").to_numpy(), (frame["origin"] == "copied").to_numpy()
        drawn = ax.barh(
            places, frame["mean"], 0.72, color=np.where(own, OWN, OTHERS), edgecolor="#333333", linewidth=0.5
        )
        for bar, hatched in zip(drawn, copied):
            bar.set_hatch("////" if hatched else "")
        ax.errorbar(
            frame["mean"], places, xerr=frame["margin"], fmt="none", ecolor="#333333", elinewidth=0.7, capsize=1.5
        )
        right = frame["mean"] + frame["margin"].fillna(0)
        for place, mean, end, bold in zip(places, frame["mean"], right, own):
            ax.annotate(
                f"{mean:.1f}", (end, place), (3, 0), textcoords="offset points", va="center", fontsize=6,
                fontweight="bold" if bold else "normal",
            )  # fmt: skip
        ax.set_yticks(places, frame["label"])
        ax.set(title=title, xlabel=_axis_label(spec), xlim=(0, 1.12 * right.max()))
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
    origins = set(pd.concat(found.values())["origin"])
    marks = {
        "Revela": Patch(facecolor=OWN, edgecolor="#333333", linewidth=0.5),
        "other systems": Patch(facecolor=OTHERS, edgecolor="#333333", linewidth=0.5),
        "copied from the paper": Patch(facecolor=OTHERS, edgecolor="#333333", linewidth=0.5, hatch="////"),
    }
    shown = [m for m, origin in zip(marks, ("own", "measured", "copied")) if origin in origins]
    add_legend(canvas, {label: marks[label] for label in shown})
    return canvas


def lines(spec: TableSpec, layout: Layout) -> pd.DataFrame:
    """line (a group of the table), at (a heading below it), mean, margin."""
    values = {column.label: column for column in columns(spec, layout)}
    return pd.DataFrame(
        {"line": group, "at": head, "mean": values[label].values[-1], "margin": values[label].margins[-1]}
        for group, heads in spec.table.groups.items()
        for head, label in heads.items()
    )


def draw_lines(found: Panels, spec: FigureSpec) -> Canvas:
    """A line for each group of a table, through the means of its columns, with their intervals (figures 4 and 5)."""
    canvas, axes = side_by_side(len(found), height=2.0)
    drawn: dict[str, Line2D] = {}
    for ax, (title, frame) in zip(axes, found.items()):
        heads = list(dict.fromkeys(frame["at"]))
        names = list(dict.fromkeys(frame["line"]))
        for number, (name, style) in enumerate(zip(names, line_styles())):
            part = frame[frame["line"] == name]
            shift = 0.05 * (number - (len(names) - 1) / 2)  # so that intervals do not hide each other
            places = [heads.index(head) + shift for head in part["at"]]
            ax.errorbar(
                places, part["mean"], part["margin"], fmt="none", ecolor=style["color"], elinewidth=0.7, capsize=1.5
            )
            drawn[name] = ax.plot(places, part["mean"], label=name, **style)[0]
        heads = [head.removeprefix("bs") for head in heads]
        long = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if max(map(len, heads)) > 5 else {}
        ax.set_xticks(range(len(heads)), heads, **long)
        ax.set(title=title, xlabel=spec.figure.axis, ylabel=_axis_label(spec), xlim=(-0.3, len(heads) - 0.7))
        ax.grid(axis="x", visible=False)
    add_legend(canvas, drawn)
    return canvas


def hours(spec: TableSpec, layout: Layout) -> pd.DataFrame:
    """label, method, hours, device (GPU: GPU-hours; CPU: hours), mean, margin of each column of a trained cell.

    Raises PaperError if no column is a trained cell's.
    """
    found = []
    for shown, column in zip(spec.columns, columns(spec, layout), strict=True):
        if shown.system.kind != "trained":
            continue
        cell = shown.system.cell
        last = read_log(layout.cell_log(cell))[-1]
        gpu = last["gpu_hours"] > 0
        found.append(
            {
                "label": column.label,
                "method": cell.method,
                "hours": last["gpu_hours"] if gpu else last["elapsed"] / 3600,
                "device": "GPU" if gpu else "CPU",
                "mean": column.values[-1],
                "margin": column.margins[-1],
            }
        )
    if not found:
        raise PaperError(f"{spec.name}: no column of a trained cell, so there are no hours of training to show")
    return pd.DataFrame(found)


def draw_hours(found: Panels, spec: FigureSpec) -> Canvas:
    """A point for each trained cell: its mean score against the hours of its training; minutes where all are short."""
    canvas, axes = side_by_side(len(found), height=2.1)
    everything = pd.concat(found.values())
    methods = list(dict.fromkeys(everything["method"]))
    if short := everything["hours"].max() < 1:
        found = {title: frame.assign(hours=60 * frame["hours"]) for title, frame in found.items()}
    styles = dict(zip(methods, line_styles()))
    drawn = {}
    for ax, (title, frame) in zip(axes, found.items()):
        for method, part in frame.groupby("method", sort=False):
            style = styles[method]
            drawn[METHODS[method].label] = ax.errorbar(
                part["hours"], part["mean"], part["margin"], fmt=style["marker"], color=style["color"],
                markersize=4, elinewidth=0.7, capsize=1.5,
            )  # fmt: skip
        unit = "minutes" if short else "hours"
        ax.set_xlim(0, 1.2 * frame["hours"].max())
        gpu = frame["device"].iloc[0] == "GPU"
        ax.set(title=title, xlabel=f"GPU-{unit} of training" if gpu else f"{unit} of training on a CPU")
    axes[0].set_ylabel(_axis_label(spec))
    add_legend(canvas, drawn)
    canvas.draw_without_rendering()  # from here on the points have their places
    for ax, frame in zip(axes, found.values()):
        _label_points(ax, frame)
    return canvas


def _label_points(ax: Axes, frame: pd.DataFrame) -> None:
    """Write the name of each point beside it, and clear of other points and names if there is room."""
    places = ax.transData.transform(frame[["hours", "mean"]])
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in places]
    for number, (label, method) in enumerate(zip(frame["label"], frame["method"])):
        if label.lower().startswith(method):  # the marker shows it already
            label = label.partition("-")[2]
        text = ax.annotate(
            label, frame[["hours", "mean"]].iloc[number], (5, 0), textcoords="offset points", va="center", fontsize=5.5,
            path_effects=[withStroke(linewidth=1.5, foreground="white")], annotation_clip=False,
        )  # fmt: skip
        others = taken[:number] + taken[number + 1 :]
        for x, y in ((5, 0), (-5, 0), (5, 4), (5, -4), (-5, 4), (-5, -4), (5, 8), (5, -8)):
            text.set(position=(x, y), ha="left" if x > 0 else "right")
            extent = text.get_window_extent()
            if not any(extent.overlaps(other) for other in others):
                break
        taken.append(extent)


def _axis_label(spec: FigureSpec) -> str:
    """The label of the axis that shows means."""
    metrics = dict.fromkeys(b.metric for table in spec.panels.values() for b in table.benchmarks.values())
    return f"mean {', '.join(metrics)} (%)"
