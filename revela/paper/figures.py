"""Figures, as PDF and PNG with the numbers behind each panel: readable in black and white and for colour-blind readers.

`panels` collects the numbers, `draw` sees nothing else, and `write_figure` writes both, so the data files are what is
drawn. Equal numbers give equal bytes: nothing of the time or the machine goes into a file.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from revela.files import atomic_folder, atomic_write
from revela.paper import PaperError
from revela.paper.values import METRIC, columns
from revela.study.study import Cell, ConfigError, Figure, Study

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
}

Panels = dict[str, pd.DataFrame]


def write_figure(study: Study, name: str, cells: Sequence[str], output: Sequence[str | Path], data: str | Path) -> None:
    """Write a figure.

    Args:
        cells: The trained cells that a figure of all cells shows.
        output: Files; their suffixes, .pdf or .png, say in which format.
        data: A folder, in which each panel's numbers become a CSV.
    """
    figure = study.config.figures[name]
    found = panels(study, name, cells)
    with atomic_folder(data) as partial:
        for title, frame in found.items():
            frame.to_csv(partial / f"{slug(title)}.csv", index=False, float_format="%.6g", lineterminator="\n")
    draw(figure, found, output)


def slug(title: str) -> str:
    """A panel's title as a file name.

    >>> slug("step 100"), slug("revela, code")
    ('step-100', 'revela-code')
    """
    return "-".join("".join(c if c.isalnum() or c in "._" else " " for c in title).split())


def panels(study: Study, name: str, cells: Sequence[str]) -> Panels:
    """title -> the numbers of a panel; PaperError where there are none."""
    figure = study.config.figures[name]
    if figure.kind == "dynamics":
        return dynamics(Path(study.config.results, "models", figure.cell))
    if figure.kind == "cost":
        return cost(Path(study.config.results, "cost", f"{figure.cell}.json"))
    if figure.kind == "training":
        return training(study, cells)
    collect = {"bars": bars, "lines": lines, "hours": hours}[figure.kind]
    return {title: collect(study, table) for title, table in figure.panels.items()}


def draw(figure: Figure, found: Panels, output: Sequence[str | Path]) -> None:
    """Draw the panels of a figure and save it."""
    draw_kind: dict[str, Callable[[Panels], Canvas]] = {
        "bars": draw_bars,
        "lines": lambda found: draw_lines(found, figure.axis),
        "hours": draw_hours,
        "dynamics": draw_dynamics,
        "cost": draw_cost,
        "training": draw_training,
    }
    with rc_context(STYLE):
        _save(draw_kind[figure.kind](found), output)


# --- the means of tables


def bars(study: Study, table: str) -> pd.DataFrame:
    """label, mean, margin (of the 95 % interval), origin (own, measured, copied) of each column.

    Controls without the retriever's signal are not Revela's own.
    """

    def is_own(system: str) -> bool:
        return system.startswith("revela/") and study.training_settings(Cell.parse(system)).similarity == "learned"

    return pd.DataFrame(
        {
            "label": column.label,
            "mean": column.values[-1],
            "margin": np.nan if column.copied else column.margins[-1],
            "origin": "copied" if column.copied else "own" if is_own(column.system) else "measured",
        }
        for column in columns(study, table)
    )


def draw_bars(found: Panels) -> Canvas:
    """A bar for each system, with its interval; Revela's are opaque, copied ones hatched (figure 3)."""
    height = 0.5 + 0.155 * max(map(len, found.values()))
    canvas, axes = _panels(len(found), height=height)
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
        ax.set(title=title, xlabel=f"mean {METRIC} (%)", xlim=(0, 1.12 * right.max()))
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
    origins = set(pd.concat(found.values())["origin"])
    marks = {
        "Revela": Patch(facecolor=OWN, edgecolor="#333333", linewidth=0.5),
        "other systems": Patch(facecolor=OTHERS, edgecolor="#333333", linewidth=0.5),
        "copied from the paper": Patch(facecolor=OTHERS, edgecolor="#333333", linewidth=0.5, hatch="////"),
    }
    shown = [m for m, origin in zip(marks, ("own", "measured", "copied")) if origin in origins]
    _legend(canvas, {label: marks[label] for label in shown})
    return canvas


def lines(study: Study, table: str) -> pd.DataFrame:
    """line (a group of the table), at (its heading below), mean, margin."""
    values = {column.label: column for column in columns(study, table)}
    return pd.DataFrame(
        {"line": group, "at": head, "mean": values[label].values[-1], "margin": values[label].margins[-1]}
        for group, heads in study.config.tables[table].groups.items()
        for head, label in heads.items()
    )


def draw_lines(found: Panels, axis: str) -> Canvas:
    """A line for each group of a table, through the means of its columns with their intervals (figures 4 and 5)."""
    canvas, axes = _panels(len(found), height=2.0)
    drawn: dict[str, Line2D] = {}
    for ax, (title, frame) in zip(axes, found.items()):
        heads = list(dict.fromkeys(frame["at"]))
        names = list(dict.fromkeys(frame["line"]))
        for number, (name, style) in enumerate(zip(names, _styles())):
            part = frame[frame["line"] == name]
            shift = 0.05 * (number - (len(names) - 1) / 2)  # so that intervals do not hide each other
            places = [heads.index(head) + shift for head in part["at"]]
            ax.errorbar(
                places, part["mean"], part["margin"], fmt="none", ecolor=style["color"], elinewidth=0.7, capsize=1.5
            )
            drawn[name] = ax.plot(places, part["mean"], label=name, **style)[0]
        ax.set_xticks(range(len(heads)), [head.removeprefix("bs") for head in heads])
        ax.set(title=title, xlabel=axis, ylabel=f"mean {METRIC} (%)", xlim=(-0.3, len(heads) - 0.7))
        ax.grid(axis="x", visible=False)
    _legend(canvas, drawn)
    return canvas


def hours(study: Study, table: str) -> pd.DataFrame:
    """label, method, hours, device (GPU-hours, or hours on a CPU), mean, margin of each trained column.

    Raises PaperError if no column is a trained cell's.
    """
    found = []
    for column in columns(study, table):
        try:
            cell = study.check_cell(Cell.parse(column.system))
        except ConfigError:
            continue
        path = Path(study.config.results, "models", column.system, "log.jsonl")
        last = read_log(path)[-1]
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
        raise PaperError(f"{table}: no column of a trained cell, so there are no hours of training to show")
    return pd.DataFrame(found)


def draw_hours(found: Panels) -> Canvas:
    """A point for each trained cell: what it cost, and what it reached."""
    canvas, axes = _panels(len(found), height=2.1)
    methods = list(dict.fromkeys(pd.concat(found.values())["method"]))
    styles = dict(zip(methods, _styles()))
    drawn = {}
    for ax, (title, frame) in zip(axes, found.items()):
        for method, part in frame.groupby("method", sort=False):
            style = styles[method]
            drawn[method.capitalize() if method != "replug" else "REPLUG"] = ax.errorbar(
                part["hours"], part["mean"], part["margin"], fmt=style["marker"], color=style["color"],
                markersize=4, elinewidth=0.7, capsize=1.5,
            )  # fmt: skip
        device = frame["device"].iloc[0]
        ax.set_xlim(0, 1.2 * frame["hours"].max())
        ax.set(title=title, xlabel="GPU-hours of training" if device == "GPU" else "hours of training on a CPU")
    axes[0].set_ylabel(f"mean {METRIC} (%)")
    _legend(canvas, drawn)
    canvas.draw_without_rendering()  # from here on it is known where the points stand
    for ax, frame in zip(axes, found.values()):
        _label_points(ax, frame)
    return canvas


def _label_points(ax: Axes, frame: pd.DataFrame) -> None:
    """The name of each point beside it, where it covers neither another point nor another name, if there is room."""
    places = ax.transData.transform(frame[["hours", "mean"]])
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in places]
    for number, (label, method) in enumerate(zip(frame["label"], frame["method"])):
        if label.lower().startswith(method):  # which the marker says already
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


# --- the training of one cell


def dynamics(cell: Path) -> Panels:
    """step -> a line for each chunk of the watched batch: chunk, document, loss, and its weights on all chunks, to_1..

    cell: the folder of a trained cell of Revela, in which `dynamics.jsonl` has a line for each watched step.
    Raises PaperError where there is no such record.
    """
    path = cell / "dynamics.jsonl"
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
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
        # Chunks of a document side by side.
        order = np.argsort(frame["document"], kind="stable")
        frame = frame.iloc[order].reset_index(drop=True)
        found[f"step {record['step']}"] = frame[["chunk", "document", "loss", *(f"to_{j + 1}" for j in order)]]
    return found


def draw_dynamics(found: Panels) -> Canvas:
    """Sim of one batch at each watched step, above it the loss of each chunk (figure 6).

    Lines part the documents that the chunks are of.
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


def training(study: Study, cells: Sequence[str]) -> Panels:
    """method and corpus -> curve, step, loss of each of their cells; PaperError if there are none."""
    found: dict[str, list[pd.DataFrame]] = {}
    for path in cells:
        cell = Cell.parse(path)
        lm = "" if cell.method == "contriever" else f" / {cell.lm}"
        variant = f" {cell.variant}" if cell.variant else ""
        log = read_log(Path(study.config.results, "models", path, "log.jsonl"))
        frame = pd.DataFrame({"step": [line["step"] for line in log], "loss": [line["loss"] for line in log]})
        frame.insert(0, "curve", f"{cell.retriever}{lm}, B={cell.batch_size}{variant}")
        found.setdefault(f"{cell.method}, {cell.corpus}", []).append(frame)
    if not found:
        raise PaperError("no trained cell stands in a table or figure, so there are no curves to show")
    return {title: pd.concat(frames, ignore_index=True) for title, frames in found.items()}


def draw_training(found: Panels) -> Canvas:
    """The loss of each cell, smoothed over a twentieth of its run; a panel for each method and corpus."""
    heights = [max(1.5, 0.4 + 0.12 * frame["curve"].nunique()) for frame in found.values()]
    canvas = Canvas(figsize=(WIDTH, sum(heights)), layout="constrained")
    axes = canvas.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (title, frame) in zip(axes, found.items()):
        for (label, curve), style in zip(frame.groupby("curve", sort=False), _styles()):
            window = max(1, len(curve) // 20)
            smooth = curve["loss"].rolling(window).mean().dropna()
            ax.plot(curve["step"].loc[smooth.index], smooth, label=label, markevery=0.2, **style)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(title=title, ylabel="loss")
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1.05), fontsize=5.5, handlelength=3)
    axes[-1].set_xlabel("step")
    return canvas


def read_log(path: Path) -> list[dict]:
    """The lines of a training log: step, loss and more; PaperError where there is none."""
    try:
        log = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if not log or not all({"step", "loss", "elapsed", "gpu_hours"} <= line.keys() for line in log):
            raise ValueError("a line without step, loss, elapsed, gpu_hours, or none at all")
    except (OSError, ValueError, AttributeError) as error:
        raise PaperError(f"{path}: not a training log ({error})") from None
    return log


# --- corpora


def corpus_figure(report: Mapping[str, Any], output: Sequence[str | Path]) -> None:
    """What a corpus is made of: words of a chunk, chunks of a document, documents of a batch.

    Args:
        report: As `revela.text.report.write_report` returns it. Panels of what it does not know are left out.
        output: The files; their suffixes say in which format.
    """
    chunks, batches, groups = report["chunks"], report["batches"], report["group_sizes"]
    curves = {
        ("words of a chunk", "chunks, cumulative (%)"): {f"B = {b}": c["words_of_chunk"] for b, c in batches.items()},
        ("documents of a batch", "batches (%)"): {
            f"B = {b}: {c['batches']:,} batches": c["documents_of_batch"] for b, c in batches.items()
        },
    }
    if chunks:
        label = f"{chunks['documents']:,} documents,\n{chunks['chunks']:,} chunks"
        curves["chunks of a document", "documents, cumulative (%)"] = {label: chunks["chunks_of_document"]}
    if groups:
        stated = ", ".join(f"{number:,} {what}" for what, number in groups["stated"].items() if number)
        curves["documents of a batch of 16", "batches (%)"] = {
            f"groups of {n}: {c['documents']:,} documents in {c['batches']:,} batches": c["documents_of_batch"]
            for n, c in groups["group_size"].items()
        }
    known = {panel: lines for panel, lines in curves.items() if all(lines.values())}
    across = 3 if len(known) == 3 else min(len(known), 2)
    down = len(known) // across
    with rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH if across > 1 else 3.4, 2.2 * down), layout="constrained")
        for ax, ((what, share), lines) in zip(canvas.subplots(down, across, squeeze=False).flat, known.items()):
            for (label, counts), style in zip(lines.items(), _styles()):
                values = np.array(sorted((int(value), number) for value, number in counts.items()))
                shown = np.cumsum(values[:, 1]) if "cumulative" in share else values[:, 1]
                marked = 1 if len(values) < 20 else 0.1
                ax.plot(values[:, 0], 100 * shown / values[:, 1].sum(), label=label, markevery=marked, **style)
            if what == "chunks of a document":
                ax.set_xscale("log")
            else:
                ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            ax.set(xlabel=what, ylabel=share, ylim=(0, None))
            title = f"the paper: {stated}" if "of 16" in what else None
            ax.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=6, title=title, title_fontsize=6)
        _save(canvas, output)


# --- what the methods cost


def cost(path: Path) -> Panels:
    """One panel: method, batch_size, seconds, as `revela.evaluation.timing` measured them; PaperError if it did not."""
    try:
        measured = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise PaperError(f"{path}: no measured cost ({error})") from None
    return {measured["device"]: pd.DataFrame(measured["points"])}


def draw_cost(found: Panels) -> Canvas:
    """Seconds for a batch against its size, on logarithmic scales, with the slope between the largest sizes."""
    canvas, axes = _panels(len(found), width=3.4, height=2.3)
    for ax, (title, frame) in zip(axes, found.items()):
        for (method, part), style in zip(frame.groupby("method", sort=False), _styles()):
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
    """The power of the batch size with which the seconds grow, over the upper half of the sizes."""
    upper = points.sort_values("batch_size").iloc[len(points) // 2 :] if len(points) > 3 else points
    return float(np.polyfit(np.log(upper["batch_size"]), np.log(upper["seconds"]), 1)[0])


# --- the canvas


def _styles():
    """Colour, marker and dashes that differ from line to line."""
    for colour, marker, dashes in zip(*map(itertools.cycle, (PALETTE, MARKERS, DASHES))):
        yield {"color": colour, "marker": marker, "linestyle": dashes, "markersize": 3.5, "linewidth": 1.1}


def _panels(number: int, *, width: float = WIDTH, height: float) -> tuple[Canvas, list[Axes]]:
    """A figure of so many panels side by side; a single one takes less of the width."""
    canvas = Canvas(figsize=(width if number > 1 else min(width, 3.4), height), layout="constrained")
    return canvas, list(canvas.subplots(1, number, squeeze=False)[0])


def _legend(canvas: Canvas, marks: Mapping[str, object]) -> None:
    """One legend for all panels, below them."""
    canvas.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=4, handlelength=2.6)


def _save(canvas: Canvas, output: Sequence[str | Path]) -> None:
    for path in output:
        anonymous = {".pdf": {"CreationDate": None}, ".png": {"Software": None}}[Path(path).suffix]
        with atomic_write(path) as partial:
            canvas.savefig(partial, metadata=anonymous)
