"""The learning curve of docs/demo.md: nDCG@10 against the batches of training, from measurements in a CSV.

    python benchmarks/learning_curve.py [--csv FILE] [--out FILE ...]

A row of the CSV is one measurement: run (how it was trained, as the legend shall say it), batches, seed, task, ndcg
(nDCG@10 in percent). A panel shows a task, a line the mean of a run over seeds, and a band from its lowest seed to its
highest. The axis of batches is logarithmic, but for the stretch from 0, the untrained retriever, to the first
measurement after it.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from revela.paper.canvas import STYLE, WIDTH, add_legend, line_styles, save

ROOT = Path(__file__).parents[1]
COLUMNS = ["run", "batches", "seed", "task", "ndcg"]


def read_measurements(path: Path) -> pd.DataFrame:
    """The measurements, checked. Raises ValueError with one line."""
    found = pd.read_csv(path)
    if list(found.columns) != COLUMNS:
        raise ValueError(f"{path}: the columns are {', '.join(found.columns)}; valid: {', '.join(COLUMNS)}")
    if found.empty or found.isna().any(axis=None):
        raise ValueError(f"{path}: no measurements, or an empty cell")
    twice = found[found.duplicated(COLUMNS[:-1])]
    if len(twice):
        raise ValueError(f"{path}: measured twice: {', '.join(map(str, twice.iloc[0][:-1]))}")
    if not found["ndcg"].between(0, 100).all() or (found["batches"] < 0).any():
        raise ValueError(f"{path}: ndcg is a percentage, and batches a number from 0 on")
    return found


def over_seeds(found: pd.DataFrame) -> pd.DataFrame:
    """task, run, batches, mean, low, high of the seeds; tasks and runs in the order of the file."""
    groups = found.groupby(["task", "run", "batches"], sort=False)["ndcg"]
    return groups.agg(mean="mean", low="min", high="max").reset_index()


def learning_curve(found: pd.DataFrame) -> Figure:
    """The figure of measurements as `read_measurements` gives them."""
    curves = over_seeds(found)
    tasks, runs = list(dict.fromkeys(curves["task"])), list(dict.fromkeys(curves["run"]))
    batches = sorted(curves["batches"].unique())
    across = 2 if len(tasks) == 4 else min(len(tasks), 3)
    down = -(-len(tasks) // across)
    canvas = Figure(figsize=(WIDTH if across > 1 else 3.8, 0.4 + 2.0 * down), layout="constrained")
    axes = list(canvas.subplots(down, across, squeeze=False).flat)
    drawn = {}
    for ax, task in zip(axes, tasks):
        for run, style in zip(runs, line_styles()):
            part = curves[(curves["task"] == task) & (curves["run"] == run)].sort_values("batches")
            if part.empty:
                continue
            drawn[run] = ax.plot(part["batches"], part["mean"], label=run, **style)[0]
            ax.fill_between(part["batches"], part["low"], part["high"], color=style["color"], alpha=0.15, linewidth=0)
        first = next((number for number in batches if number > 0), 1)
        ax.set_xscale("symlog", base=2, linthresh=first, linscale=0.8)
        ax.set_xticks(batches, [str(number) for number in batches])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.tick_params(axis="x", labelsize=6)
        ax.set(title=task, ylim=(0, None), xlabel="batches of training")
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel("nDCG@10 (%)")
    for ax in axes[len(tasks) :]:
        ax.set_axis_off()
    add_legend(canvas, {run: drawn[run] for run in runs})
    return canvas


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=ROOT / "benchmarks/results/learning_curve.csv")
    parser.add_argument("--out", type=Path, nargs="+", default=[ROOT / "docs/images/learning_curve.svg"])
    options = parser.parse_args()
    try:
        found = read_measurements(options.csv)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    with rc_context(STYLE):
        canvas = learning_curve(found)
        for path in options.out:
            path.parent.mkdir(parents=True, exist_ok=True)
        save(canvas, options.out)


if __name__ == "__main__":
    main()
