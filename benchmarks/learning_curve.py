"""The learning curve of docs/demo.md: nDCG@10 against the batches of training.

    python benchmarks/learning_curve.py --measure "gate 0.1, LM frozen" [--batches 640] [--seed 42]
    python benchmarks/learning_curve.py [--csv FILE] [--out FILE ...]

The first command trains the demo's cell for so many batches, one of `RUNS`, and appends a row to the CSV for each task at
0, 20, 40, 80, ... batches. Its learning rate falls to zero at the last batch, so the points before are of a run that is
not over. A run that was stopped goes on from its last checkpoint when it is started again. Text and models come from
`make demo`'s packages. The second command draws the figure.

A row of the CSV is one measurement: run (how it was trained, as the legend shall say it), batches, seed, task, ndcg
(nDCG@10 in percent). A panel shows a task, a line the mean of a run over seeds, and a band from its lowest seed to its
highest. The axis of batches is logarithmic, but for the stretch from 0, the untrained retriever, to the first
measurement after it.
"""

import argparse
import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pandas as pd
import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from revela.paper.canvas import STYLE, WIDTH, add_legend, line_styles, save

ROOT = Path(__file__).parents[1]
COLUMNS = ["run", "batches", "seed", "task", "ndcg"]
# How the demo's settings are changed for a run.
RUNS = {
    "gate 0.1, LM frozen": {},
    "gate 1, LM frozen": {"cross_attention": {"gate": 1.0}},
    "gate 0.1, LM trained": {"freeze_lm": False},
    "gate 1, LM trained": {"cross_attention": {"gate": 1.0}, "freeze_lm": False},
}
CELL = "revela/both/smollm2-135m-instruct/smollm2-135m-instruct/bs16"
TASKS = ("coir-demo/bfcl", "beir-demo/wikipedia", "bright-demo/networkx")
WORK = ROOT / "build/learning_curve"


def prepare(batches: int) -> Path:
    """The demo's configuration with so many batches of text, of which half come from each corpus; its files are made."""
    config = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    config["results"] = str(WORK.relative_to(ROOT) / "results")
    half = batches // 2
    config["corpora"]["wiki"]["batches"] = config["corpora"]["code"]["batches"] = half
    for source in config["corpora"]["code"]["sources"]:
        source["batches"] = half // 2
    config["corpora"]["both"]["mix"] = {"wiki": half, "code": half}
    WORK.mkdir(parents=True, exist_ok=True)
    path = WORK / f"config-{batches}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    made = config["results"]
    targets = [f"{made}/corpora/both/bs16/batches.parquet", f"{made}/resources/models/smollm2-135m-instruct"]
    targets += [f"{made}/runs/bm25/{task}.run.gz" for task in TASKS]  # with them come the benchmarks
    command = [sys.executable, "-m", "snakemake", *targets, "--configfile", path, "--cores", "2", "--nolock"]
    subprocess.run([*command, "--profile", "workflow/profiles/local"], cwd=ROOT, check=True)
    return path


def start(config: Path, changes: dict) -> tuple:
    """The demo's cell before its first step, its settings changed: the study, the settings, the engine, the batches."""
    from revela.objectives.revela import Revela
    from revela.study.specification import training_spec
    from revela.study.study import load
    from revela.training.engine import set_arithmetic
    from revela.training.entry import join_processes
    from revela.training.launch import configure_malloc
    from revela.training.loop import prepare as prepare_engine
    from revela.training.rows import Rows

    set_arithmetic()
    configure_malloc(16)
    join_processes()
    study = load(config)
    settings = training_spec(study, CELL).settings
    settings = settings.model_validate(settings.model_dump() | changes)
    model = Path(study.layout.root, "resources/models/smollm2-135m-instruct")
    rows = Rows(Path(study.layout.root, "corpora/both/bs16/batches.parquet"), None, settings.seed)
    return study, settings, prepare_engine(Revela, settings, model, model, settings.max_steps or len(rows)), rows


def measure(run: str, batches: int, seed: int, csv: Path) -> None:
    """Trains one of `RUNS`, and writes down what its retriever finds on the way."""
    study, settings, engine, rows = start(prepare(batches), RUNS[run] | {"max_steps": batches, "seed": seed})
    from revela.evaluation.folder import AsSaved, evaluate_folder
    from revela.training.checkpoint import Checkpoints
    from revela.training.loop import train

    def note(step: int) -> None:
        point = {"run": run, "batches": step, "seed": seed}
        tasks = [study.task(*name.split("/")) for name in TASKS]
        tasks = [task for task in tasks if not is_measured(csv, point | {"task": task.label})]
        if not tasks:
            return
        ranker = AsSaved("measured", deepcopy(engine.module.retriever).merge().eval())
        for task in tasks:
            folder = study.layout.dataset(task.dataset)
            found = evaluate_folder(ranker, folder, layout=task.layout, part=task.parts, split=task.split)
            ndcg = round(100 * found["metrics"]["nDCG@10"], 2)
            line = point | {"task": task.label, "ndcg": ndcg}
            print(json.dumps(line), flush=True)
            csv.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame([line])[COLUMNS].to_csv(csv, mode="a", header=not csv.exists(), index=False)

    points = {0, batches, *(10 * 2**power for power in range(1, 16))}
    identity = {"run": run, **settings.model_dump(mode="json")}
    checkpoints = Checkpoints(WORK / "checkpoints" / f"{run}, {batches} batches, seed {seed}", identity)
    last = checkpoints.restore(engine)
    done = last["step"] if last else 0
    note(done)
    for step in train(engine, settings, rows, range(done + 1, batches + 1)):
        print(step.number, step.means, flush=True)
        if step.number in points:
            note(step.number)
        if step.number % 20 == 0:
            checkpoints.save(engine, step.number)
    checkpoints.remove()


def is_measured(csv: Path, point: dict) -> bool:
    """Whether the CSV has a row with these values."""
    return csv.exists() and bool((read_measurements(csv)[list(point)] == pd.Series(point)).all(axis=1).any())


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
    """Measure a run, or draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=ROOT / "benchmarks/results/learning_curve.csv")
    parser.add_argument("--out", type=Path, nargs="+", default=[ROOT / "docs/images/learning_curve.svg"])
    parser.add_argument("--measure", choices=RUNS, help="train this run, and append to the CSV")
    parser.add_argument("--batches", type=int, default=640, help="of the measured run; a multiple of 4")
    parser.add_argument("--seed", type=int, default=42, help="of the measured run")
    options = parser.parse_args()
    if options.measure:
        from record import settle

        settle()
        return measure(options.measure, options.batches, options.seed, options.csv)
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
