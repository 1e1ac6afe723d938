"""The values of a table: measured ones, from score files, and copied ones, from the paper's printed tables.

A value is a percentage. A copied value is marked wherever it stands, so it never passes for a measured one. A missing
value is an error, never a blank.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from revela.paper import PaperError

if TYPE_CHECKING:
    from revela.study.layout import Layout
    from revela.study.shown import Table
    from revela.study.tables import ColumnSpec, TableSpec

CONFIDENCE = 0.95
MEANS = ("mean", "avg")  # names of the row of means
_Z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True)
class Erratum:
    """A value that the paper prints wrongly."""

    table: str
    column: str
    row: str
    printed: float
    corrected: float
    reason: str


@dataclass(frozen=True)
class Column:
    """A system's values, one for each row: those of tasks, and of several the mean last.

    margins: half the width of the 95 % confidence interval of each value; empty for a copied column.
    service: a measured column whose values other tables may have copied, for it is of a system behind an API.
    ranges: the lowest and the highest value of several seeds, whose mean the value is; empty for a single run.
    """

    label: str
    values: list[float]
    margins: list[float]
    errata: tuple[Erratum, ...] = ()  # of a copied column
    service: bool = False
    ranges: tuple[tuple[float, float], ...] = ()

    @property
    def copied(self) -> bool:
        """Whether the values are the paper's."""
        return not self.margins


def rows(spec: TableSpec) -> list[str]:
    """The names of a table's rows: the paper's if the table has printed values, else the tasks' labels.

    The mean of several rows is last.

    Raises PaperError as `tasks_of_rows` does.
    """
    named = tasks_of_rows(spec)
    if spec.table.printed:
        return [*named, list(next(iter(read_printed(spec.table.printed).values())))[-1]]
    return [*named, "Mean"] if len(named) > 1 else [*named]


def tasks_of_rows(spec: TableSpec) -> dict[str, str]:
    """row -> the task, or the heading of `means_of`, whose values stand there; without the mean, which is last.

    The order and the names are the paper's if the table has printed values. A printed row belongs to the task that has
    its name as label or as one of its aliases, wherever the two stand. Raises PaperError where one has no counterpart.
    """
    table = spec.table
    if table.means_of:
        own = {head: {head} for head in table.means_of}
    else:
        [benchmark] = spec.benchmarks.values()
        own = {task: {row.label, *row.aliases} for task, row in benchmark.tasks.items()}
        labels = {row.label: task for task, row in benchmark.tasks.items()}
    if not table.printed:
        return {head: head for head in own} if table.means_of else labels
    *names, mean = next(iter(read_printed(table.printed).values()))
    if mean.lower() not in MEANS:
        raise PaperError(f"{table.printed}: the last row is {mean!r}, expected {' or '.join(MEANS)}")
    found = {}
    for name in names:
        tasks = [task for task, known in own.items() if name in known]
        if len(tasks) != 1 or tasks[0] in found.values():
            known = ", ".join(label for labels in own.values() for label in sorted(labels))
            raise PaperError(f"{table.printed}: row {name!r} is no task's alone; labels and aliases: {known}")
        found[name] = tasks[0]
    if missing := own.keys() - found.values():
        raise PaperError(f"{table.printed}: no row of {', '.join(sorted(missing))}")
    return found


def measured(path: str | Path, tasks: Iterable[str], metric: str) -> tuple[list[float], list[float]]:
    """The values of one system on tasks, and their margins. The mean over the tasks stands last.

    The margins are 1.96 standard errors: the queries of a task count as a sample of all queries that might have been
    asked. The value of a task with several parts is their unweighted mean, as the score file has it.

    Args:
        path: A score file.
        tasks: The names of tasks.
        metric: The name of a metric of the score file.

    Raises:
        PaperError: There is no score file, or it lacks a task or its value.
    """
    tasks = list(tasks)
    try:
        scores = json.loads(Path(path).read_text(encoding="utf-8"))["tasks"]
        values = [100 * scores[task]["metrics"][metric] for task in tasks]
        parts = [[part["per_query"][metric] for part in scores[task]["parts"].values()] for task in tasks]
    except (OSError, json.JSONDecodeError) as error:
        raise PaperError(f"{path}: not a score file ({error})") from None
    except KeyError as error:
        raise PaperError(f"{path}: no {metric} of task {error}") from None
    errors = [100 * _norm(map(standard_error, queries)) / len(queries) for queries in parts]
    return [*values, statistics.fmean(values)], [_Z * error for error in [*errors, _norm(errors) / len(errors)]]


def standard_error(sample: Sequence[float]) -> float:
    """The standard error of the mean of independent values; NaN for a single value, whose spread is unknown.

    >>> standard_error([0.0, 1.0, 0.0, 1.0]) == (1 / 3) ** 0.5 / 2
    True
    """
    return statistics.stdev(sample) / math.sqrt(len(sample)) if len(sample) > 1 else math.nan


def _norm(values) -> float:
    return math.sqrt(math.fsum(value**2 for value in values))


def read_printed(path: str | Path) -> dict[str, dict[str, float]]:
    """The paper's printed values: label -> row -> value, the mean last.

    The file has a line for each row under "Task", or for each system under "Model". Raises PaperError for any other.
    """
    with open(path, newline="", encoding="utf-8") as file:
        lines = [line for line in csv.reader(file) if line]
    if not lines or lines[0][0] not in ("Task", "Model") or len({len(line) for line in lines}) != 1:
        raise PaperError(f"{path}: a table under Task or Model with equally many cells in each line is expected")
    if lines[0][0] == "Model":
        lines = list(zip(*lines))
    header, *body = lines
    for names in (header, [line[0] for line in body]):
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise PaperError(f"{path}: {twice!r} stands twice")
    try:
        return {label: {line[0]: float(line[i]) for line in body} for i, label in enumerate(header[1:], start=1)}
    except ValueError as error:
        raise PaperError(f"{path}: not a table of numbers ({error})") from None


def read_errata(path: str | Path) -> list[Erratum]:
    """The known errors among printed values; none if there is no such file."""
    if not Path(path).exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [
            Erratum(r["table"], r["column"], r["row"], float(r["printed"]), float(r["corrected"]), r["reason"])
            for r in csv.DictReader(file)
        ]


def errata(spec: TableSpec) -> list[Erratum]:
    """The known errors of a table's printed values, from `errata.csv` beside them, by any name of the printed table."""
    if not spec.table.printed:
        return []
    known = read_errata(Path(spec.table.printed).with_name("errata.csv"))
    return [erratum for erratum in known if erratum.table in spec.printed_as]


def columns(spec: TableSpec, layout: Layout, *, partly: bool = False) -> list[Column]:
    """The columns of a table, in its order.

    Args:
        spec: The table.
        layout: Where the score files are.
        partly: Leave out systems that lack scores, instead of raising.

    Raises:
        PaperError: A score file is missing or is of other tasks, or a copied system has no printed values.
    """
    printed = read_printed(spec.table.printed) if spec.table.printed else {}
    wrong, names, of_rows = errata(spec), rows(spec), list(tasks_of_rows(spec).values())
    benchmarks = [spec.benchmarks[head] for head in of_rows] if spec.table.means_of else list(spec.benchmarks.values())
    found = []
    for column in spec.columns:
        label = column.label
        files = [layout.scores(column.system.name, benchmark.name) for benchmark in benchmarks]
        scored = all(Path(file).exists() for file in files)
        if column.copied and not scored:
            if label not in printed:
                raise PaperError(f"{spec.table.printed}: no printed values of {label}, which is not run here")
            values = [printed[label][row] for row in names]
            found.append(Column(label, values, [], tuple(e for e in wrong if e.column == label)))
            continue
        if partly and not scored:
            continue
        found.append(Column(label, *_values(spec, of_rows, files, len(names)), service=column.copied))
    return found


def over_seeds(table: Table, values: Sequence[Column]) -> list[Column]:
    """A column for each group of a table: the means of its columns, which are runs with several seeds."""
    runs = {column.label: column.values for column in values}
    found = []
    for group, heads in table.groups.items():
        of_rows = list(zip(*(runs[label] for label in heads.values()), strict=True))
        means, unknown = [statistics.fmean(row) for row in of_rows], [math.nan] * len(of_rows)
        found.append(Column(group, means, unknown, ranges=tuple((min(row), max(row)) for row in of_rows)))
    return found


def _values(
    spec: TableSpec, of_rows: Sequence[str], files: Sequence[str], count: int
) -> tuple[list[float], list[float]]:
    """The values and margins of a system in a table's rows, of which there are `count`.

    of_rows: what `tasks_of_rows` says of them. files: the system's scores on each benchmark, in their order.
    """
    if spec.table.means_of:
        benchmarks = [spec.benchmarks[head] for head in of_rows]
        found = _means([measured(file, b.tasks, b.metric) for file, b in zip(files, benchmarks, strict=True)])
    else:
        [benchmark] = spec.benchmarks.values()
        found = measured(files[0], of_rows, benchmark.metric)
    values, margins = (part[:count] for part in found)  # one row has no mean
    return values, margins


def seed_margins(spec: TableSpec, column: ColumnSpec, layout: Layout) -> tuple[list[float], int]:
    """How far a run with another seed may lie in each row, and of how many seeds that is known; of one: 0.

    Half the width of the 95 % interval in which the next run is expected, by Student's t, after those that were scored.
    """
    from scipy import stats  # where there are several seeds

    of_rows, count = list(tasks_of_rows(spec).values()), len(rows(spec))
    benchmarks = [spec.benchmarks[head] for head in of_rows] if spec.table.means_of else []
    scores = []
    for system in [column.system.name, *column.seeds]:
        files = [layout.scores(system, one.name) for one in benchmarks or spec.benchmarks.values()]
        if all(Path(file).exists() for file in files):
            scores.append(_values(spec, of_rows, files, count)[0])
    if (n := len(scores)) < 2:
        return [0.0] * count, n
    t = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * math.sqrt(1 + 1 / n)
    return [t * statistics.stdev(values) for values in zip(*scores, strict=True)], n


def _means(parts: Sequence[tuple[list[float], list[float]]]) -> tuple[list[float], list[float]]:
    """The means of one system on several benchmarks, and the mean of these, with their margins."""
    values, margins = [values[-1] for values, _ in parts], [margins[-1] for _, margins in parts]
    return [*values, statistics.fmean(values)], [*margins, _norm(margins) / len(margins)]
