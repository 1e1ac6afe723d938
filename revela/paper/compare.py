"""The comparison of a table with the paper: our value beside each printed one, their difference and a verdict."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from revela.paper import PaperError
from revela.paper.page import write_texts
from revela.paper.tables import escape, float_of, tabular
from revela.paper.values import Column, Erratum, columns, errata, read_printed, rows, seed_margins

if TYPE_CHECKING:
    from revela.study.layout import Layout
    from revela.study.sheets import Deviation
    from revela.study.shown import Table
    from revela.study.tables import TableSpec

ROUNDING = 0.05  # of a printed value
CLOSE = 2  # intervals
VERDICTS = ("OK", "close", "FAIL", "not run")
EXPECTED = "expected"
LEGEND = (
    "Ours with its 95 % interval (over queries and, where several were trained, over seeds), the paper's value (and, "
    "after an arrow, the right one where the paper errs), the difference in points: OK within the interval, close "
    f"within {CLOSE} intervals, else FAIL; expected: neither OK nor unforeseen, for the reason below. "
    "Not run: nothing of ours to compare."
)


def verdict(ours: float | None, printed: float, margin: float) -> str:
    """OK, close or FAIL by the half width of our interval; `not run` if we have no value.

    Where the interval is not known, for there is but one query, only the rounding of the printed value is allowed.

    >>> [verdict(x, 50.0, 2.0) for x in (52.0, 46.0, 45.9, None)]
    ['OK', 'close', 'FAIL', 'not run']
    """
    if ours is None:
        return "not run"
    margin = 0.0 if math.isnan(margin) else margin
    difference = round(abs(ours - printed) - ROUNDING, 6)  # 51.1 - 50.1 is 1.0, not a little more
    return "OK" if difference <= margin else "close" if difference <= CLOSE * margin else "FAIL"


def compare(
    ours: Sequence[Column],
    printed: Mapping[str, Mapping[str, float]],
    wrong: Sequence[Erratum] = (),
    deviations: Sequence[Deviation] = (),
    seeds: Mapping[str, Sequence[float]] = {},
) -> pd.DataFrame:
    """One line for each printed value.

    Args:
        ours: The columns of our table. Copied columns and missing ones count as not run.
        printed: label -> row -> the paper's value; rows in the order of ours.
        wrong: Known errors. Our value is compared with the corrected one.
        deviations: Printed values that ours are known not to agree with; what is not OK there is expected.
        seeds: label -> for each row, how far a run with another seed may lie. It widens the interval.

    Returns:
        Columns: column, row, ours, low, high (the interval), printed, corrected (if the paper errs), difference,
        verdict, reason (of a verdict that is expected).

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
            measured, margin = (column.values[place], column.margins[place]) if column else (None, math.nan)
            margin = math.hypot(margin, seeds[label][place]) if label in seeds else margin
            judged = verdict(measured, right, margin)
            reasons = [d.reason for d in deviations if d.column in ("*", label) and d.row in ("*", row)]
            is_expected = bool(reasons) and judged in ("close", "FAIL")
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
                    "verdict": EXPECTED if is_expected else judged,
                    "reason": "; ".join(reasons) if is_expected else "",
                }
            )
    numbers = dict.fromkeys(["ours", "low", "high", "corrected", "difference"], float)
    return pd.DataFrame(lines).astype(numbers)


def compare_table(spec: TableSpec, layout: Layout, *, partly: bool = False) -> pd.DataFrame:
    """`compare` for the columns of a table.

    partly: systems without scores count as not run, instead of a PaperError.
    """
    table = spec.table
    printed = {label: values for label, values in read_printed(table.printed).items() if label in table.columns}
    seeds = {}
    for column in spec.columns:
        if column.seeds:
            margins, number = seed_margins(spec, column, layout)
            seeds |= {column.label: margins} if number > 1 else {}
    _check_rows(spec, printed)
    return compare(columns(spec, layout, partly=partly), printed, errata(spec), spec.deviations, seeds)


def _check_rows(spec: TableSpec, printed: Mapping[str, Mapping[str, float]]) -> None:
    """PaperError for a deviation of a row that is not printed."""
    known = ["*", *(row for values in printed.values() for row in values)]
    for deviation in spec.deviations:
        if deviation.row not in known:
            raise PaperError(f"deviations of {spec.name}: no row {deviation.row!r} in {spec.table.printed}")


def count(comparison: pd.DataFrame) -> str:
    """How often each verdict was given, for example "OK 3, close 1, FAIL 0, not run 2"."""
    counts = comparison["verdict"].value_counts()
    shown = [*VERDICTS, *([EXPECTED] if EXPECTED in counts else [])]
    return ", ".join(f"{name} {counts.get(name, 0)}" for name in shown)


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


def to_latex(spec: TableSpec, comparison: pd.DataFrame) -> str:
    """The table with two lines in each cell: our value; the paper's, the difference and the verdict.

    Systems are columns. A wide table is cut into pieces.
    """
    table, names = spec.table.model_copy(update={"transposed": False}), rows(spec)
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
        tabular(piece, [Column(label, [0.0] * len(names), []) for label in piece.columns], names, cell)
        for piece in split(table)
    ]
    notes = [escape(note) for note in [f"{count(comparison)}. {LEGEND}", *table.notes, *_errors(comparison)]]
    return float_of(pieces, f"Comparison with the paper. {table.caption}", f"{spec.name}-compare", notes)


def split(table: Table, width: int = 7) -> list[Table]:
    """Cut a table into tables of at most `width` columns, about equally many each. Groups stay whole."""
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
    """A sentence for each column that the paper prints with errors, and for each reason of what is expected."""
    wrong = comparison[comparison["corrected"].notna()]
    expected = comparison[comparison["verdict"] == EXPECTED]
    reasons = []
    for reason, lines in expected.groupby("reason", sort=False):
        places = [f"{label} ({', '.join(found['row'])})" for label, found in lines.groupby("column", sort=False)]
        reasons.append(f"Expected: {', '.join(places)}: {reason}.")
    return reasons + [
        f"Printed in error: {label}, "
        + ", ".join(f"{line.row} {line.printed:.1f} (right: {line.corrected:.1f})" for line in lines.itertuples())
        + "."
        for label, lines in wrong.groupby("column", sort=False)
    ]


def write_comparison(spec: TableSpec, layout: Layout, output: Mapping[str, str | Path]) -> None:
    """Compare a table with its printed values; `output`: csv, md, tex -> file."""
    comparison = compare_table(spec, layout)
    texts = {
        "csv": to_csv(comparison),
        "md": to_markdown(comparison, spec.table.notes),
        "tex": to_latex(spec, comparison),
    }
    write_texts(texts, output)


def to_csv(comparison: pd.DataFrame) -> str:
    """A line for each printed value, numbers with two decimals."""
    return comparison.to_csv(index=False, float_format="%.2f", lineterminator="\n")
