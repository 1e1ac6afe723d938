"""Ours beside the paper's: each value with its difference, and a word on how close it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from revela.paper import PaperError
from revela.paper.tables import MEAN, Erratum, read_errata, read_printed
from revela.provenance import atomic_write

# Points of nDCG@10 (percent) up to which a value agrees with the printed one, or is close to it.
OK, CLOSE = 1.0, 3.0


def verdict(ours: float | None, printed: float) -> str:
    """OK, close or FAIL; `not run` where there is no value of ours.

    >>> [verdict(x, 50.0) for x in (50.9, 47.5, 40.0, None)]
    ['OK', 'close', 'FAIL', 'not run']
    """
    if ours is None:
        return "not run"
    # a tolerance of rounding: printed values have one decimal
    difference = round(abs(ours - printed), 6)
    return "OK" if difference <= OK else "close" if difference <= CLOSE else "FAIL"


def compare(
    ours: Mapping[str, Sequence[float]],
    printed: Mapping[str, Mapping[str, float]],
    rows: Sequence[str],
    errata: Sequence[Erratum] = (),
) -> pd.DataFrame:
    """One line for each printed value.

    Args:
        ours: label -> measured values in percent, in the order of `rows`; a label that was not run is absent.
        printed: label -> row -> the paper's value; its rows stand in the same order, under the paper's names.
        rows: Our names of the rows, the mean last.
        errata: Known errors; the corrected value is the one that is compared.

    Returns:
        Columns: column, row, ours, printed, corrected (where the paper errs), difference, verdict.
    """
    corrected = {(e.column, e.row): e.corrected for e in errata}
    lines = []
    for label, values in printed.items():
        if len(values) != len(rows):
            raise PaperError(f"{label}: {len(values)} printed values, expected {len(rows)}")
        for place, (row, value) in enumerate(zip(rows, values.values(), strict=True)):
            right = corrected.get((label, row), value)
            own = ours[label][place] if label in ours else None
            lines.append(
                {
                    "column": label,
                    "row": row,
                    "ours": own,
                    "printed": value,
                    "corrected": right if (label, row) in corrected else None,
                    "difference": None if own is None else own - right,
                    "verdict": verdict(own, right),
                }
            )
    return pd.DataFrame(lines)


def to_markdown(comparison: pd.DataFrame) -> str:
    """The verdicts counted, then ours, the printed value and the verdict for each row and column."""

    def cell(line: pd.Series) -> str:
        printed = f"{line.printed:.1f}"
        if pd.notna(line.corrected):
            printed += f" → {line.corrected:.1f}"
        return f"not run ({printed})" if pd.isna(line.ours) else f"{line.ours:.1f} ({printed}) {line.verdict}"

    counts = comparison["verdict"].value_counts()
    summary = ", ".join(f"{name} {counts.get(name, 0)}" for name in ("OK", "close", "FAIL", "not run"))
    cells = comparison.assign(cell=comparison.apply(cell, axis=1))
    wide = cells.pivot(index="row", columns="column", values="cell")
    wide = wide.loc[comparison["row"].unique(), comparison["column"].unique()]
    head = f"Ours (printed → corrected) and verdict: OK within {OK:g} points, close within {CLOSE:g}. {summary}."
    return f"{head}\n\n{wide.rename_axis('Task').rename_axis(None, axis=1).to_markdown(disable_numparse=True)}\n"


def read_table(path: str | Path) -> tuple[dict[str, list[float]], list[str]]:
    """(label -> measured values, rows) of a table's csv; copied columns are left out."""
    frame = pd.read_csv(path, index_col="Task")
    labels = [label for label in frame.columns if not label.endswith(" (printed)")]
    if list(frame.index)[-1:] != [MEAN]:
        raise PaperError(f"{path}: the last row is not {MEAN}")
    return {label: frame[label].tolist() for label in labels}, list(frame.index)


def write_comparison(table: str, ours: str | Path, printed: str | Path, output: Mapping[str, str | Path]) -> None:
    """Compare a table's csv with its printed values; `output`: csv, md -> file."""
    values, rows = read_table(ours)
    errata = [e for e in read_errata(Path(printed).with_name("errata.csv")) if e.table == table]
    comparison = compare(values, read_printed(printed), rows, errata)
    texts = {
        "csv": comparison.to_csv(index=False, float_format="%.2f", lineterminator="\n"),
        "md": to_markdown(comparison),
    }
    for suffix, path in output.items():
        with atomic_write(path) as partial:
            partial.write_text(texts[suffix], encoding="utf-8")
