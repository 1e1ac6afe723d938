"""Figures, as PDF and PNG: readable in black and white (markers, line styles) and for colour-blind readers.

Equal numbers give equal bytes: nothing of the time or the machine goes into a file.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from revela.config import Cell, Figure
from revela.paper import PaperError
from revela.paper.tables import METRIC, measured
from revela.provenance import atomic_write

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, 2008
MARKERS = "osD^vP*X"
DASHES = ("-", "--", "-.", ":")
STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "pdf.fonttype": 42,
}


def batch_size_figure(
    figure: Figure, scores: str | Path, tasks: Mapping[str, Sequence[str]], output: Sequence[str | Path]
) -> None:
    """Figure 4: mean score against the batch size of training, a panel for each benchmark.

    Args:
        figure: Panels, lines, and the system at each point.
        scores: The folder of score files, ``{system}/{benchmark}.json``.
        tasks: benchmark -> names of its tasks.
        output: The files; their suffixes say in which format.
    """
    with rc_context(STYLE):
        canvas, axes = _panels(len(figure.panels))
        for ax, (benchmark, lines) in zip(axes, figure.panels.items(), strict=True):
            for (label, points), style in zip(lines.items(), _styles()):
                means = [measured(Path(scores, f"{s}/{benchmark}.json"), tasks[benchmark])[-1] for s in points.values()]
                ax.plot(list(points), means, label=label, **style)
            sizes = sorted({size for points in lines.values() for size in points})
            ax.set_xscale("log", base=2)
            ax.set_xticks(sizes, map(str, sizes))
            ax.minorticks_off()
            ax.set(title=benchmark, xlabel="batch size", ylabel=f"mean {METRIC} (%)")
        drawn = {line.get_label(): line for ax in axes for line in ax.get_lines()}
        canvas.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=4)
        _save(canvas, output)


def training_curves(cells: Mapping[str, str | Path], output: Sequence[str | Path]) -> None:
    """The loss of trained cells against their steps, a panel for each method and corpus.

    Args:
        cells: cell's path -> its folder, in which ``log.jsonl`` has a line for each step.
        output: The files; their suffixes say in which format.
    """
    panels: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for path, folder in cells.items():
        cell = Cell.parse(path)
        lm = "" if cell.method == "contriever" else f" / {cell.lm}"
        variant = f" {cell.variant}" if cell.variant else ""
        panels[f"{cell.method}, {cell.corpus}"][f"{cell.retriever}{lm}, B={cell.batch_size}{variant}"] = read_losses(
            Path(folder, "log.jsonl")
        )
    with rc_context(STYLE):
        canvas, axes = _panels(len(panels), width=5.2, columns=2)
        for ax, (title, curves) in zip(axes, panels.items(), strict=True):
            for (label, losses), style in zip(curves.items(), _styles()):
                smooth = _running_mean(losses[:, 1], max(1, len(losses) // 20))
                ax.plot(losses[-len(smooth) :, 0], smooth, label=label, markevery=0.2, **style)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set(title=title, xlabel="step", ylabel="loss")
            ax.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1))
        _save(canvas, output)


def corpus_figure(report: Mapping[str, Any], output: Sequence[str | Path]) -> None:
    """What a corpus is made of: words of a chunk, chunks of a document, documents of a batch.

    Args:
        report: As `revela.corpora.write_report` returns it. Panels of what it does not know are left out.
        output: The files; their suffixes say in which format.
    """
    batches, groups = report["batches"], report["group_sizes"]
    words = {f"B = {size}": counts["words_of_chunk"] for size, counts in batches.items()}
    documents = {f"B = {size}": counts["documents_of_batch"] for size, counts in batches.items()}
    panels = [("words of a chunk", "chunks with at most so many", words)]
    if report["chunks"]:
        of_documents = {"all documents": report["chunks"]["chunks_of_document"]}
        panels.append(("chunks of a document", "documents with at most so many", of_documents))
    if all(documents.values()):
        panels.append(("documents of a batch", "batches", documents))
    if groups:
        by_group = {f"groups of {size}": c["documents_of_batch"] for size, c in groups["group_size"].items()}
        panels.append(("documents of a batch of 16", "batches", by_group))
    with rc_context(STYLE):
        canvas, axes = _panels(len(panels), columns=2)
        for ax, (what, share_of, lines) in zip(axes, panels, strict=True):
            for (label, counts), style in zip(lines.items(), _styles()):
                values = sorted((int(value), number) for value, number in counts.items())
                numbers = np.array([number for _, number in values])
                shown = np.cumsum(numbers) if "at most" in share_of else numbers
                ax.plot(
                    [value for value, _ in values], 100 * shown / numbers.sum(), label=label, markevery=0.1, **style
                )
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            if what == "chunks of a document":
                ax.set_xscale("log")
            ax.set(xlabel=what, ylabel=f"{share_of} (%)", ylim=(0, None))
            ax.legend()
        _save(canvas, output)


def read_losses(path: Path) -> np.ndarray:
    """(step, loss) of each line of a training log, [steps, 2]; PaperError where there is none."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        losses = np.array([(line["step"], line["loss"]) for line in lines], dtype=float)
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise PaperError(f"{path}: not a training log ({error!r})") from None
    if not len(losses):
        raise PaperError(f"{path}: the training log is empty")
    return losses


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Means over each stretch of `window` values."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    return (sums[window:] - sums[:-window]) / window


def _styles():
    """Colour, marker and dashes that differ from line to line."""
    for colour, marker, dashes in zip(cycle(PALETTE), cycle(MARKERS), cycle(DASHES)):
        yield {"color": colour, "marker": marker, "linestyle": dashes, "markersize": 4, "linewidth": 1.2}


def _panels(number: int, *, width: float = 3.4, height: float = 2.5, columns: int = 3) -> tuple[Canvas, list[Axes]]:
    """A figure of so many panels of a size in inches, so many in a row at most."""
    columns = min(number, columns)
    rows = math.ceil(number / columns)
    canvas = Canvas(figsize=(width * columns, height * rows), layout="constrained")
    axes = canvas.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[number:]:
        ax.set_axis_off()
    return canvas, list(axes.flat[:number])


def _save(canvas: Canvas, output: Sequence[str | Path]) -> None:
    for path in output:
        anonymous = {".pdf": {"CreationDate": None}, ".png": {"Software": None}}[Path(path).suffix]
        with atomic_write(path) as partial:
            canvas.savefig(partial, metadata=anonymous)
