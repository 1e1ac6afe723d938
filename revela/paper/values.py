"""The values of a table: measured ones, from score files, and copied ones, from the paper's printed tables.

A value is a percentage. A copied one is marked as such wherever it stands, so that it never passes for measured. A
value that is missing is an error, never a blank.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from revela.paper import PaperError
from revela.study.study import LM_EVAL, Study

METRIC, ACCURACY = "nDCG@10", "accuracy"
CONFIDENCE = 0.95
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
    """A system's values, one a row and their mean last.

    margins: half the width of the 95 % confidence interval of each value; none for a copied column.
    """

    label: str
    system: str
    values: list[float]
    margins: list[float]
    errata: tuple[Erratum, ...] = ()  # of a copied column

    @property
    def copied(self) -> bool:
        """Whether the values are the paper's."""
        return not self.margins


def score_file(study: Study, system: str, benchmark: str) -> Path:
    """Where the scores of a system on a benchmark stand."""
    return Path(study.config.results, "scores", system, f"{benchmark}.json")


def metric(benchmark: str) -> str:
    """The measure that the tables of a benchmark show."""
    return ACCURACY if benchmark == LM_EVAL else METRIC


def tasks(study: Study, benchmark: str) -> dict[str, str]:
    """task -> label of its row, in the order of the rows."""
    if benchmark == LM_EVAL:
        return {task.task: label for label, task in study.config.lm_evaluation.tasks.items()}
    return {task.task: task.label for task in study.benchmark_tasks(benchmark)}


def rows(study: Study, table: str) -> list[str]:
    """The names of a table's rows, the mean last: the paper's where it has printed values, else the tasks' labels.

    Raises PaperError where the paper has more rows, or fewer.
    """
    spec = study.config.tables[table]
    own = list(spec.means_of) if spec.means_of else list(tasks(study, spec.benchmark).values())
    if not spec.printed:
        return [*own, "Mean"]
    names = list(next(iter(read_printed(spec.printed).values())))
    if len(names) != len(own) + 1:
        raise PaperError(f"{spec.printed}: {len(names)} rows, expected {len(own)} and their mean: {', '.join(own)}")
    return names


def measured(path: str | Path, names: Sequence[str], metric: str = METRIC) -> tuple[list[float], list[float]]:
    """Values of one system and their margins; the mean of the tasks stands last.

    The margins take the queries of a task for a sample of all that might have been asked: 1.96 standard errors. A
    task of several parts is their unweighted mean, as the score file has it.

    Args:
        path: A score file.
        names: Tasks.

    Raises:
        PaperError: No score file, or a task or its value is missing in it.
    """
    try:
        scores = json.loads(Path(path).read_text(encoding="utf-8"))["tasks"]
        values = [100 * scores[name]["metrics"][metric] for name in names]
        parts = [[part["per_query"][metric] for part in scores[name]["parts"].values()] for name in names]
    except (OSError, json.JSONDecodeError) as error:
        raise PaperError(f"{path}: not a score file ({error})") from None
    except KeyError as error:
        raise PaperError(f"{path}: no {metric} of task {error}") from None
    errors = [100 * _norm(map(standard_error, queries)) / len(queries) for queries in parts]
    return [*values, statistics.fmean(values)], [_Z * error for error in [*errors, _norm(errors) / len(errors)]]


def standard_error(sample: Sequence[float]) -> float:
    """Of the mean of a sample of independent values; NaN for a single one, about which nothing is known.

    >>> standard_error([0.0, 1.0, 0.0, 1.0]) == (1 / 3) ** 0.5 / 2
    True
    """
    return statistics.stdev(sample) / math.sqrt(len(sample)) if len(sample) > 1 else math.nan


def _norm(values) -> float:
    return math.sqrt(math.fsum(value**2 for value in values))


def read_printed(path: str | Path) -> dict[str, dict[str, float]]:
    """The paper's printed values: label -> row -> value, the mean last.

    The file has a line for each row under "Task", or for each system under "Model"; PaperError for any other.
    """
    with open(path, newline="", encoding="utf-8") as file:
        lines = [line for line in csv.reader(file) if line]
    if not lines or lines[0][0] not in ("Task", "Model") or len({len(line) for line in lines}) != 1:
        raise PaperError(f"{path}: a table under Task or Model with equally many cells in each line is expected")
    if lines[0][0] == "Model":
        lines = list(zip(*lines))
    header, *body = lines
    try:
        return {label: {line[0]: float(line[i]) for line in body} for i, label in enumerate(header[1:], start=1)}
    except ValueError as error:
        raise PaperError(f"{path}: not a table of numbers ({error})") from None


def read_errata(path: str | Path) -> list[Erratum]:
    """The known errors among printed values; none where there is no such file."""
    if not Path(path).exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [
            Erratum(r["table"], r["column"], r["row"], float(r["printed"]), float(r["corrected"]), r["reason"])
            for r in csv.DictReader(file)
        ]


def errata(study: Study, table: str) -> list[Erratum]:
    """The known errors of a table's printed values, by whatever name their table has: `errata.csv` beside them."""
    printed = study.config.tables[table].printed
    names = {name for name, other in study.config.tables.items() if printed and other.printed == printed}
    return [e for e in read_errata(Path(printed).with_name("errata.csv")) if e.table in names] if printed else []


def columns(study: Study, table: str, *, partly: bool = False) -> list[Column]:
    """The columns of a table in its order.

    Args:
        partly: Leave out systems whose scores have not all been made, instead of raising.

    Raises:
        PaperError: A score file is missing or of other tasks, or a copied system has no printed values.
    """
    spec = study.config.tables[table]
    printed = read_printed(spec.printed) if spec.printed else {}
    wrong = errata(study, table)
    found = []
    for label, system in study.table_systems(table).items():
        if study.is_copied(system):
            if label not in printed:
                raise PaperError(f"{spec.printed}: no printed values of {label}, which is not run here")
            values = [printed[label][row] for row in rows(study, table)]
            found.append(Column(label, system, values, [], tuple(e for e in wrong if e.column == label)))
        elif partly and not all(score_file(study, system, b).exists() for b in study.table_benchmarks(table)):
            continue
        elif spec.means_of:
            found.append(Column(label, system, *_means(study, spec.means_of, system)))
        else:
            names = list(tasks(study, spec.benchmark))
            path = score_file(study, system, spec.benchmark)
            found.append(Column(label, system, *measured(path, names, metric(spec.benchmark))))
    return found


def _means(study: Study, tables: Mapping[str, str], system: str) -> tuple[list[float], list[float]]:
    """The means of a system in other tables, and the mean of these, with their margins."""
    values, margins = [], []
    for table in tables.values():
        benchmark = study.config.tables[table].benchmark
        found = measured(score_file(study, system, benchmark), list(tasks(study, benchmark)), metric(benchmark))
        values.append(found[0][-1])
        margins.append(found[1][-1])
    return [*values, statistics.fmean(values)], [*margins, _norm(margins) / len(margins)]
