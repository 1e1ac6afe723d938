"""What the jobs of tables, figures and comparisons are given, as `revela.study.specification` says it of all others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from revela.study.base import Strict
from revela.study.settings import LM_EVAL
from revela.study.sheets import Deviation
from revela.study.shown import Figure, Table
from revela.study.study import Study
from revela.study.system import Api, System


class RowSpec(Strict):
    """A task as a row of tables: its label, and the dataset behind it."""

    label: str
    dataset: str
    aliases: list[str] = Field([])


class BenchmarkSpec(Strict):
    """A benchmark as tables show it."""

    name: str
    metric: Literal["nDCG@10", "accuracy"]
    tasks: dict[str, RowSpec]


class ColumnSpec(Strict):
    """A column of a table: a system under its label.

    copied: it shows the paper's printed values unless it has been scored here: a service.
    seeds: cells that differ in their seed alone; those that have been scored say how much seeds matter.
    """

    label: str
    system: System
    copied: bool
    learned: bool  # whether it is a cell of Revela that is no control
    seeds: list[str]


class TableSpec(Strict):
    """A table with all that its names stand for.

    benchmarks: heading -> benchmark; one, or one for each table whose means it shows.
    printed_as: the names of the tables that the paper's values of this one stand under in errata.csv.
    """

    name: str
    table: Table
    columns: list[ColumnSpec]
    benchmarks: dict[str, BenchmarkSpec]
    printed_as: list[str]
    deviations: list[Deviation]


def table_spec(study: Study, table: str) -> TableSpec:
    """A table by its name."""
    spec = study.config.tables[table]
    parts = {head: study.config.tables[part].benchmark for head, part in spec.means_of.items()}
    printed_as = [name for name, other in study.config.tables.items() if spec.printed and other.printed == spec.printed]
    return TableSpec(
        name=table,
        table=spec,
        columns=[_column(study, label, name) for label, name in study.table_systems(table).items()],
        benchmarks={
            head: _benchmark(study, name) for head, name in (parts or {spec.benchmark: spec.benchmark}).items()
        },
        printed_as=printed_as,
        deviations=[one for one in study.deviations if one.table in printed_as],
    )


def _column(study: Study, label: str, name: str) -> ColumnSpec:
    system = study.system(name)
    learned = False
    if system.kind == "trained" and system.cell.needs.lm == "beside":
        learned = study.training_settings(system.cell).similarity == "learned"
    seeds = study.other_seeds(name)
    return ColumnSpec(label=label, system=system, copied=isinstance(system, Api), learned=learned, seeds=seeds)


def _benchmark(study: Study, name: str) -> BenchmarkSpec:
    if name == LM_EVAL:
        tasks = {
            task.task: RowSpec(label=label, dataset=task.dataset)
            for label, task in study.config.lm_evaluation.tasks.items()
        }
        return BenchmarkSpec(name=name, metric="accuracy", tasks=tasks)
    tasks = {t.task: RowSpec(label=t.label, dataset=t.dataset, aliases=t.names) for t in study.benchmark_tasks(name)}
    return BenchmarkSpec(name=name, metric="nDCG@10", tasks=tasks)


class LineageSpec(Strict):
    """A table, and what stands behind its cells: corpus -> its datasets; corpus -> the systems that grouped its batches."""

    table: TableSpec
    corpora: dict[str, list[str]]
    rounds: dict[str, list[System]]


def lineage_spec(study: Study, table: str) -> LineageSpec:
    """The lineage of a table."""
    spec = table_spec(study, table)
    shown = sorted({column.system.cell.corpus for column in spec.columns if column.system.kind == "trained"})
    rounds = {corpus: list(found.values()) for corpus in shown if (found := study.rounds(corpus))}
    behind = {system.cell.corpus for found in rounds.values() for system in found if system.kind == "trained"}
    datasets = {corpus: study.corpus_datasets(corpus) for corpus in sorted({*shown, *behind})}
    return LineageSpec(table=spec, corpora=datasets, rounds=rounds)


class FigureSpec(Strict):
    """A figure, the tables of its panels, and the cells whose training it shows."""

    figure: Figure
    panels: dict[str, TableSpec]
    cells: list[str]


def figure_spec(study: Study, figure: str) -> FigureSpec:
    """A figure by its name."""
    spec = study.config.figures[figure]
    return FigureSpec(
        figure=spec,
        panels={title: table_spec(study, table) for title, table in spec.panels.items()},
        cells=[cell.path for cell in study.figure_cells(figure)],
    )


class CheckSpec(Strict):
    """All tables that have printed values."""

    tables: list[TableSpec]


def check_spec(study: Study) -> CheckSpec:
    """The comparison of all printed values."""
    return CheckSpec(tables=[table_spec(study, name) for name, table in study.config.tables.items() if table.printed])


def printed_files(*tables: Table) -> list[str]:
    """The paper's values of tables, and the known errors among them."""
    files = {table.printed for table in tables} - {None}
    beside = {str(Path(file).with_name("errata.csv")) for file in files}
    return sorted([*files, *filter(os.path.exists, beside)])
