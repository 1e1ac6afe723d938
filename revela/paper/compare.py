"""Ours beside the paper's: each printed value with our own, their difference, and a word on how close they are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from revela.files import atomic_write
from revela.paper import PaperError
from revela.paper.tables import escape, float_of, tabular
from revela.paper.values import Column, Erratum, columns, errata, read_printed, rows
from revela.study.study import Study, Table

# Points up to which a value agrees with the printed one, or is close to it.
OK, CLOSE = 1.0, 3.0
VERDICTS = ("OK", "close", "FAIL", "not run")
LEGEND = (
    f"Ours with its 95 % confidence interval over queries, the paper's value (and, after an arrow, the right one where "
    f"the paper errs), the difference in points: up to {OK:g} OK, up to {CLOSE:g} close, else FAIL. "
    "Not run: nothing of ours to compare; the values of services are copied."
)


def verdict(ours: float | None, printed: float) -> str:
    """OK, close or FAIL; `not run` where there is no value of ours.

    >>> [verdict(x, 50.0) for x in (50.9, 47.5, 40.0, None)]
    ['OK', 'close', 'FAIL', 'not run']
    """
    if ours is None:
        return "not run"
    difference = round(abs(ours - printed), 6)  # 51.1 - 50.1 is 1.0, not a little more
    return "OK" if difference <= OK else "close" if difference <= CLOSE else "FAIL"


def compare(
    ours: Sequence[Column], printed: Mapping[str, Mapping[str, float]], wrong: Sequence[Erratum] = ()
) -> pd.DataFrame:
    """One line for each printed value.

    Args:
        ours: Columns of our table; copied ones count as not run, as do those that are not there.
        printed: label -> row -> the paper's value; rows in the order of ours.
        wrong: Known errors; the corrected value is the one that is compared.

    Returns:
        Columns: column, row, ours, low, high (the confidence interval), printed, corrected (where the paper errs),
        difference, verdict.

    Raises:
        PaperError: A column has other rows in the paper than here.
    """
    own = {column.label: column for column in ours if not column.copied}
    corrected = {(e.column, e.row): e.corrected for e in wrong}
    lines = []
    for label, values in printed.items():
        column = own.get(label)
        if column and len(values) != len(column.values):
            raise PaperError(f"{label}: {len(values)} printed values, expected {len(column.values)}")
        for place, (row, value) in enumerate(values.items()):
            right = corrected.get((label, row), value)
            measured, margin = (column.values[place], column.margins[place]) if column else (None, None)
            lines.append(
                {
                    "column": label,
                    "row": row,
                    "ours": measured,
                    "low": column and measured - margin,
                    "high": column and measured + margin,
                    "printed": value,
                    "corrected": corrected.get((label, row)),
                    "difference": column and measured - right,
                    "verdict": verdict(measured, right),
                }
            )
    numbers = dict.fromkeys(["ours", "low", "high", "corrected", "difference"], float)
    return pd.DataFrame(lines).astype(numbers)


def compare_table(study: Study, table: str, *, partly: bool = False) -> pd.DataFrame:
    """`compare` for the columns of a table. partly: systems without scores are not run, instead of an error."""
    spec = study.config.tables[table]
    printed = {label: values for label, values in read_printed(spec.printed).items() if label in spec.columns}
    return compare(columns(study, table, partly=partly), printed, errata(study, table))


def count(comparison: pd.DataFrame) -> str:
    """How often each verdict was given, in words."""
    counts = comparison["verdict"].value_counts()
    return ", ".join(f"{name} {counts.get(name, 0)}" for name in VERDICTS)


def to_markdown(comparison: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """The verdicts counted, then ours, the printed value, the difference and the verdict for each row and column."""

    def cell(line: pd.Series) -> str:
        if pd.isna(line.ours):
            return f"not run ({_printed(line, '→')})"
        return f"{_ours(line, '±')} ({_printed(line, '→')}) {_difference(line)} {_stressed(line.verdict)}"

    cells = comparison.assign(cell=comparison.apply(cell, axis=1))
    wide = cells.pivot(index="row", columns="column", values="cell")
    wide = wide.loc[comparison["row"].unique(), comparison["column"].unique()]
    table = wide.rename_axis("Task").rename_axis(None, axis=1).to_markdown(disable_numparse=True)
    return "\n\n".join([f"{count(comparison)}. {LEGEND}", table, *notes, *_errors(comparison)]) + "\n"


def to_latex(study: Study, name: str, comparison: pd.DataFrame) -> str:
    """The table again, two lines in each cell: ours; the paper's, the difference, the verdict.

    Systems are columns, and a wide table is cut into pieces.
    """
    table, names = study.config.tables[name].model_copy(update={"transposed": False}), rows(study, name)
    lines = {(line.column, line.row): line for line in comparison.itertuples()}

    def cell(column: Column, row: int) -> str:
        line = lines[column.label, names[row]]
        printed = _printed(line, r"$\to$")
        above, below = "not run", printed
        if pd.notna(line.ours):
            word = rf"\textbf{{{line.verdict}}}" if line.verdict == "FAIL" else line.verdict
            above = _ours(line, r"\,$\pm$\,")
            below = rf"{printed}\enspace {_difference(line)} {word}".replace("-", "$-$")
        return rf"\begin{{tabular}}[c]{{@{{}}r@{{}}}}\strut {above}\\[-3pt]{{\scriptsize {below}}}\end{{tabular}}"

    pieces = [
        tabular(piece, [Column(label, "", [0.0] * len(names), []) for label in piece.columns], names, cell)
        for piece in split(table)
    ]
    notes = [escape(note) for note in [f"{count(comparison)}. {LEGEND}", *table.notes, *_errors(comparison)]]
    return float_of(pieces, f"Comparison with the paper. {table.caption}", f"{name}-compare", notes)


def split(table: Table, width: int = 7) -> list[Table]:
    """Tables of so many columns at most, about equally many, groups kept together."""
    parts = list(table.groups) if table.groups else table.columns
    size = len(table.columns) // len(parts)
    if len(table.columns) <= width:
        return [table]
    number = math.ceil(len(parts) / (width // size))
    ends = [round(len(parts) * place / number) for place in range(number + 1)]
    pieces = []
    for part in (parts[start:end] for start, end in itertools.pairwise(ends)):
        groups = {name: table.groups[name] for name in part} if table.groups else {}
        columns = [label for heads in groups.values() for label in heads.values()] or part
        pieces.append(table.model_copy(update={"groups": groups, "columns": columns}))
    return pieces


def _ours(line, plus_minus: str) -> str:
    margin = line.high - line.ours
    return f"{line.ours:.1f}" + (f"{plus_minus}{margin:.1f}" if pd.notna(margin) else "")


def _printed(line, arrow: str) -> str:
    return f"{line.printed:.1f}" + (f" {arrow} {line.corrected:.1f}" if pd.notna(line.corrected) else "")


def _difference(line) -> str:
    return f"{round(line.difference, 1) + 0.0:+.1f}"  # not -0.0


def _stressed(word: str) -> str:
    return f"**{word}**" if word == "FAIL" else word


def _errors(comparison: pd.DataFrame) -> list[str]:
    """A sentence for each column that is printed with errors."""
    wrong = comparison[comparison["corrected"].notna()]
    return [
        f"Printed in error: {label}, "
        + ", ".join(f"{line.row} {line.printed:.1f} (right: {line.corrected:.1f})" for line in lines.itertuples())
        + "."
        for label, lines in wrong.groupby("column", sort=False)
    ]


def write_comparison(study: Study, name: str, output: Mapping[str, str | Path]) -> None:
    """Compare a table with its printed values; `output`: csv, md, tex -> file."""
    comparison = compare_table(study, name)
    texts = {
        "csv": to_csv(comparison),
        "md": to_markdown(comparison, study.config.tables[name].notes),
        "tex": to_latex(study, name, comparison),
    }
    for suffix, path in output.items():
        with atomic_write(path) as partial:
            partial.write_text(texts[suffix], encoding="utf-8")


def to_csv(comparison: pd.DataFrame) -> str:
    """A line for each printed value, numbers with two decimals."""
    return comparison.to_csv(index=False, float_format="%.2f", lineterminator="\n")
