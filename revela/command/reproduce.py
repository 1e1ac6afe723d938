"""A configuration from raw text to tables and report, and how to search with the retriever just made."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from revela.command import running
from revela.paper.before_after import answers, reciprocal
from revela.study.cell import Cell
from revela.study.specification import score_spec
from revela.study.study import Study, load
from revela.study.system import UNTRAINED

if TYPE_CHECKING:
    from rich.console import Console


def reproduce(config: str, targets: Sequence[str], *, cores: int) -> Study:
    """Makes targets of a configuration; shows them at work on stderr.

    With the target `all`, or none, the report is made as well, where it is older than a table.

    Raises RunError where a job fails, ConfigError for a configuration at fault.
    """
    study = load(config)
    log = Path(study.layout.root, "snakemake.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    precision = study.config.training.precision
    print(f"{config} on {cores} core{'s' * (cores > 1)}, training in {precision}; log: {log}", file=sys.stderr)
    running.run(config, study.layout, targets or ["all"], cores=cores, log=log)
    if not _is_whole(targets):
        return study
    report = Path(study.layout.report())
    made = [path.stat().st_mtime for path in map(Path, default_tables(study)) if path.exists()]
    if not report.exists() or report.stat().st_mtime < max(made, default=0):
        print("Packing tables, figures and pages into one report", file=sys.stderr)
        running.report(config, report, log=log.with_name("report.log"))
    return study


def _cells(path: Path) -> list[list[str]]:
    """The rows of a table in Markdown, without the line below its head."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in [lines[0], *lines[2:]]]


def default_tables(study: Study) -> list[str]:
    """The files of the tables that are not made on request."""
    return [study.layout.table(name, "md") for name, table in study.config.tables.items() if not table.on_request]


def _is_whole(targets: Sequence[str]) -> bool:
    """Whether the tables and figures that are not made on request are among the targets."""
    return not targets or "all" in targets


def show(study: Study, targets: Sequence[str], console: Console) -> None:
    """Prints the tables among the targets; with the target `all`, where everything is and a command that searches, too."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    layout, whole = study.layout, _is_whole(targets)
    known = {layout.table(name, "md") for name in study.config.tables}
    asked = [path for path in (str(Path(target).with_suffix(".md")) for target in targets) if path in known]
    for path in map(Path, dict.fromkeys([*(default_tables(study) if whole else []), *asked])):
        # A system is a row, for there are more systems than tasks, and a terminal is narrow.
        cells = _cells(path)
        (_, *tasks), *systems = cells if study.config.tables[path.stem].transposed else zip(*cells, strict=True)
        title = f"{path.stem}: {', '.join(study.table_benchmarks(path.stem))}, nDCG@10 (%)"
        # Not as the table's own title, which would wrap at the table's width.
        console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
        shown = Table(box=box.SIMPLE_HEAD)
        shown.add_column("")
        for name in tasks:
            shown.add_column(name, justify="right", overflow="fold", style="bold" if name == tasks[-1] else "")
        for label, *values in systems:
            shown.add_row(label, *(Text(value.strip("*"), "green" * value.startswith("**")) for value in values))
        console.print(shown)
    if not whole:
        console.print("Made:", *targets, sep="\n  ", markup=False, highlight=False, soft_wrap=True)
        return
    lines = [
        f"Report   {layout.report()}: unpack it, and open report.html",
        f"Tables   {layout.root}/tables/",
        f"Figures  {layout.root}/figures/",
        *(f"Answers  {layout.before_after(cell, benchmark)}" for benchmark, cell in study.config.before_after.items()),
        f"Models   {layout.root}/models/",
    ]
    for command in searches(study):
        lines += ["", "Search with the retriever that was just trained:", "", f"  {command}"]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def searches(study: Study) -> Iterator[str]:
    """For each page of answers before and after training, a command that searches that benchmark's texts.

    The query is one of the benchmark's own: the shortest of those for which the right text has risen to the first rank,
    or the shortest of all where it has for none.
    """
    layout = study.layout
    for benchmark, cell in study.config.before_after.items():
        spec = score_spec(study, cell, benchmark)
        datasets = {task.dataset: layout.dataset(task.dataset) for task in spec.tasks}
        task = spec.tasks[0]
        untrained = UNTRAINED + Cell.parse(cell).retriever
        before, after = ({task.task: layout.run(system, benchmark, task.task)} for system in (untrained, cell))
        found = list(answers(spec.model_copy(update={"tasks": [task]}), datasets, before, after))
        risen = [one for one in found if one.rise > 0 and reciprocal(one.after, one.right) == 1]
        best = min(risen or found, key=lambda one: (len(one.part.queries[one.query]), one.key))
        corpus = best.part.corpus.files[0]
        column = [] if task.layout != "bright" else ["--column", "content"]
        program = Path(sys.executable).with_name("revela")
        if program.is_relative_to(Path.cwd()):
            program = program.relative_to(Path.cwd())
        query = " ".join(best.part.queries[best.query].split())
        yield shlex.join([str(program), "search", layout.cell(cell), str(corpus), query, *column])
