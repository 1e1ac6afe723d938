"""Figures of training: the watched batch of one cell, and the losses of all cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from revela.paper import PaperError
from revela.paper.canvas import OWN, WIDTH, Panels, line_styles
from revela.paper.logs import read_log
from revela.study.cell import Cell

if TYPE_CHECKING:
    from revela.study.layout import Layout
    from revela.study.tables import FigureSpec


def dynamics(spec: FigureSpec, layout: Layout) -> Panels:
    """step -> a line for each chunk of the watched batch of a cell: chunk, document, loss, and its weight on each chunk.

    The weights on chunks 1, 2, ... stand in columns to_1, to_2, ... Raises PaperError if the cell has no such record.
    """
    path = layout.cell_dynamics(spec.figure.cell)
    try:
        records = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, json.JSONDecodeError) as error:
        raise PaperError(f"{path}: no record of a watched batch ({error})") from None
    found = {}
    for record in records:
        sim = np.array(record["similarity"])
        names = {document: number for number, document in enumerate(dict.fromkeys(record["document"]), start=1)}
        frame = pd.DataFrame(sim, columns=[f"to_{j}" for j in range(1, len(sim) + 1)])
        frame.insert(0, "loss", record["loss"])
        frame.insert(0, "document", [names[document] for document in record["document"]])
        frame.insert(0, "chunk", range(1, len(sim) + 1))
        # Chunks of the same document stand side by side.
        order = np.argsort(frame["document"], kind="stable")
        frame = frame.iloc[order].reset_index(drop=True)
        found[f"step {record['step']}"] = frame[["chunk", "document", "loss", *(f"to_{j + 1}" for j in order)]]
    return found


def draw_dynamics(found: Panels, spec: FigureSpec) -> Canvas:
    """Sim of one batch at each watched step, with the loss of each chunk above it (figure 6).

    Dotted lines separate the chunks of different documents.
    """
    canvas = Canvas(figsize=(WIDTH, 2.75), layout="constrained")
    axes = canvas.subplots(2, len(found), sharex=True, sharey="row", squeeze=False, height_ratios=[1, 3])
    strongest = max(frame.filter(regex="^to_").to_numpy().max() for frame in found.values())
    image = None
    for (above, below), (title, frame) in zip(axes.T, found.items()):
        weights = frame.filter(regex="^to_").to_numpy()
        places = np.arange(len(frame))
        ends = [place - 0.5 for place in places[1:] if frame["document"][place] != frame["document"][place - 1]]
        above.plot(places, frame["loss"], "o", color=OWN, markersize=2.5, clip_on=False)
        above.axhline(frame["loss"].mean(), color="#D55E00", linewidth=0.9, linestyle="--")
        above.set_title(f"{title}: mean loss {frame['loss'].mean():.2f}")
        above.tick_params(axis="x", length=0)
        image = below.imshow(weights, cmap="Blues", vmin=0, vmax=strongest, interpolation="nearest", aspect="auto")
        for end in ends:
            below.axhline(end, color="#333333", linewidth=0.6, linestyle=":")
            below.axvline(end, color="#333333", linewidth=0.6, linestyle=":")
        shown = places[:: max(1, len(places) // 8)]
        below.set_xticks(shown, frame["chunk"][shown])
        below.set_yticks(shown, frame["chunk"][shown])
        below.grid(visible=False)
        below.spines[:].set_visible(True)
        below.set_xlabel("seen chunk $j$")
    axes[0, 0].set_ylabel("loss (nats)")
    axes[1, 0].set_ylabel("predicted chunk $i$")
    bar = canvas.colorbar(image, ax=axes[1, :], pad=0.015, aspect=18)
    bar.set_label("Sim$(D_i, D_j)$")
    bar.outline.set_linewidth(0.5)
    return canvas


def training_curves(spec: FigureSpec, layout: Layout) -> Panels:
    """method and corpus -> curve, step, loss of each of their cells. Raises PaperError if there are no cells."""
    found: dict[str, list[pd.DataFrame]] = {}
    for cell in map(Cell.parse, spec.cells):
        lm = "" if cell.needs.lm == "none" else f" / {cell.lm}"
        variant = f" {cell.variant}" if cell.variant else ""
        log = read_log(layout.cell_log(cell))
        frame = pd.DataFrame({"step": [line["step"] for line in log], "loss": [line["loss"] for line in log]})
        frame.insert(0, "curve", f"{cell.retriever}{lm}, B={cell.batch_size}{variant}")
        found.setdefault(f"{cell.method}, {cell.corpus}", []).append(frame)
    if not found:
        raise PaperError("no trained cell stands in a table or figure, so there are no curves to show")
    return {title: pd.concat(frames, ignore_index=True) for title, frames in found.items()}


def draw_training_curves(found: Panels, spec: FigureSpec) -> Canvas:
    """The loss of each cell, smoothed over a twentieth of its run. Each method and corpus has a panel."""
    heights = [max(1.5, 0.4 + 0.12 * frame["curve"].nunique()) for frame in found.values()]
    canvas = Canvas(figsize=(WIDTH, sum(heights)), layout="constrained")
    axes = canvas.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (title, frame) in zip(axes, found.items()):
        for (label, curve), style in zip(frame.groupby("curve", sort=False), line_styles()):
            window = max(1, len(curve) // 20)
            smooth = curve["loss"].rolling(window).mean().dropna()
            ax.plot(curve["step"].loc[smooth.index], smooth, label=label, markevery=0.2, **style)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(title=title, ylabel="loss")
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1.05), fontsize=5.5, handlelength=3)
    axes[-1].set_xlabel("step")
    return canvas
