"""Tables of scores: tasks of one benchmark x systems (Tables 1, 6 and 7 and their kin), as tex, csv and md.

A measured value comes from a score file. An API's value is the paper's printed one; it is marked wherever it
stands, so that it never passes for measured. A value that is missing is an error, never a blank.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from revela.config import Table
from revela.paper import PaperError
from revela.provenance import atomic_write

METRIC = "nDCG@10"
MEAN = "Mean"
PACKAGES = "% needs \\usepackage{booktabs,graphicx,xcolor}\n"
_SIZE = re.compile(r"(.+)-(\d+(?:\.\d+)?[BM])\b(.*)")  # Revela-0.5B, Revela-4M seed 1


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
    """A system's values in percent, one a task and their mean last."""

    label: str
    values: list[float]
    printed: bool = False  # copied from the paper, not measured
    grey: bool = False
    dagger: bool = False
    errata: tuple[Erratum, ...] = ()  # of printed values

    @property
    def name(self) -> str:
        """The label without its size."""
        match = _SIZE.fullmatch(self.label)
        return match[1] + match[3] if match else self.label

    @property
    def size(self) -> str:
        """The size at the label's end, or a dash."""
        match = _SIZE.fullmatch(self.label)
        return match[2] if match else "-"


def measured(path: str | Path, tasks: Sequence[str]) -> list[float]:
    """Values of one system in percent, and their mean; PaperError where a task or its value is missing."""
    try:
        scores = json.loads(Path(path).read_text(encoding="utf-8"))["tasks"]
        values = [100 * scores[task]["metrics"][METRIC] for task in tasks]
    except (OSError, json.JSONDecodeError) as error:
        raise PaperError(f"{path}: not a score file ({error})") from None
    except KeyError as error:
        raise PaperError(f"{path}: no {METRIC} of task {error}") from None
    return [*values, sum(values) / len(values)]


def read_printed(path: str | Path) -> dict[str, dict[str, float]]:
    """The paper's printed values: column -> row -> value in percent, the mean among the rows."""
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    try:
        return {label: {row[0]: float(row[i]) for row in rows} for i, label in enumerate(header[1:], start=1)}
    except (ValueError, IndexError) as error:
        raise PaperError(f"{path}: not a table of numbers ({error})") from None


def read_errata(path: str | Path) -> list[Erratum]:
    """The known errors of the paper's printed values."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            Erratum(r["table"], r["column"], r["row"], float(r["printed"]), float(r["corrected"]), r["reason"])
            for r in csv.DictReader(file)
        ]


def make_columns(
    table: Table,
    name: str,
    systems: Mapping[str, str],
    apis: Sequence[str],
    scores: Mapping[str, str | Path],
    tasks: Sequence[str],
) -> list[Column]:
    """The columns of a table in its order.

    Args:
        name: The table's, by which `errata.csv` beside its printed values knows it.
        systems: label -> system.
        apis: Systems whose printed values are copied.
        scores: system -> its score file, for every other system.
        tasks: Names of the benchmark's tasks in the order of the rows.
    """
    printed = read_printed(table.printed) if table.printed else {}
    errata = read_errata(Path(table.printed).with_name("errata.csv")) if table.printed else []
    columns = []
    for label, system in systems.items():
        if system in apis:
            if label not in printed:
                raise PaperError(f"{table.printed}: no printed values of {label}, which is not run here")
            values = list(printed[label].values())
            if len(values) != len(tasks) + 1:
                raise PaperError(f"{table.printed}: {len(values)} rows, expected {len(tasks)} tasks and their mean")
        elif system in scores:
            values = measured(scores[system], tasks)
        else:
            raise PaperError(f"no score file of {label} ({system})")
        columns.append(
            Column(
                label,
                values,
                printed=system in apis,
                grey=label in table.grey,
                dagger=label in table.dagger,
                errata=tuple(e for e in errata if system in apis and (e.table, e.column) == (name, label)),
            )
        )
    return columns


def best(columns: Sequence[Column]) -> list[set[str]]:
    """For each row the labels of its best columns among measured ones, as printed with one decimal; ties share it."""
    rows = []
    for values in zip(*(column.values for column in columns), strict=True):
        own = {c.label: f"{v:.1f}" for c, v in zip(columns, values, strict=True) if not c.printed}
        top = max(map(float, own.values()))
        rows.append({label for label, value in own.items() if float(value) == top})
    return rows


def to_csv(columns: Sequence[Column], rows: Sequence[str]) -> str:
    """Values with two decimals; a copied column says so in its header."""
    frame = pd.DataFrame(
        {c.label + (" (printed)" if c.printed else ""): [f"{v:.2f}" for v in c.values] for c in columns},
        index=pd.Index(rows, name="Task"),
    )
    return frame.to_csv(lineterminator="\n")


def to_markdown(columns: Sequence[Column], rows: Sequence[str], caption: str) -> str:
    """A table for the terminal and for a page: bold is best, italic is supervised, ᵖ is copied."""
    bold = best(columns)

    def cell(column: Column, row: int) -> str:
        text = f"{column.values[row]:.1f}" + ("ᵖ" if column.printed else "")
        text = f"_{text}_" if column.grey else text
        return f"**{text}**" if column.label in bold[row] else text

    frame = pd.DataFrame(
        {c.label + ("†" if c.dagger else ""): [cell(c, row) for row in range(len(rows))] for c in columns},
        index=pd.Index(rows, name="Task"),
    )
    notes = _notes(columns, grey="Italic", printed="ᵖ")
    lines = [caption, "", frame.to_markdown(disable_numparse=True, stralign="right")]
    return "\n".join([*lines, *(line for note in notes for line in ("", note))]) + "\n"


def to_latex(columns: Sequence[Column], rows: Sequence[str], caption: str, label: str) -> str:
    """A booktabs table with a row of sizes, for any article class."""
    bold = best(columns)

    def cell(column: Column, row: int) -> str:
        text = f"{column.values[row]:.1f}" + (r"\textsuperscript{p}" if column.printed else "")
        text = rf"\textbf{{{text}}}" if column.label in bold[row] else text
        return rf"\textcolor{{gray}}{{{text}}}" if column.grey else text

    heads = [(_escape(c.name) + (r"\textsuperscript{\dag}" if c.dagger else ""), _escape(c.size)) for c in columns]
    frame = pd.DataFrame(
        [[cell(column, row) for column in columns] for row in range(len(rows))],
        index=pd.Index(map(_escape, rows)),
        columns=pd.MultiIndex.from_tuples(heads, names=["Dataset", "Model Size"]),
    )
    lines = frame.style.to_latex(hrules=True, sparse_columns=False, column_format="l" + "r" * len(columns)).splitlines()
    tabular = "\n".join([*lines[:-3], r"\midrule", *lines[-3:]])  # above the means
    notes = " ".join(_notes(columns, grey="Grey", printed=r"\textsuperscript{p}", dagger=r"\textsuperscript{\dag}"))
    return (
        f"{PACKAGES}\\begin{{table}}\n\\centering\n\\caption{{{_escape(caption)}}}\n\\label{{tab:{label}}}\n"
        f"\\resizebox{{\\linewidth}}{{!}}{{%\n{tabular}}}\n"
        + (f"\\par\\smallskip\\footnotesize {notes}\n" if notes else "")
        + "\\end{table}\n"
    )


def _notes(columns: Sequence[Column], *, grey: str, printed: str, dagger: str = "†") -> list[str]:
    notes = {
        f"{grey}: supervised.": any(c.grey for c in columns),
        f"{dagger}: code-related pairs in pre-training.": any(c.dagger for c in columns),
        f"{printed}: copied from the paper, not measured.": any(c.printed for c in columns),
    }
    for column in columns:
        if column.errata:
            wrong = ", ".join(f"{e.row} {e.printed:.1f} should be {e.corrected:.1f}" for e in column.errata)
            notes[f"{column.label} as printed is in error: {wrong} ({column.errata[0].reason})."] = True
    return [note for note, shown in notes.items() if shown]


def _escape(text: str) -> str:
    return re.sub(r"([%&#_$])", r"\\\1", text)


def write_table(
    table: Table,
    name: str,
    systems: Mapping[str, str],
    apis: Sequence[str],
    scores: Mapping[str, str | Path],
    tasks: Mapping[str, str],
    output: Mapping[str, str | Path],
) -> None:
    """Write a table; `tasks`: task -> label of its row; `output`: tex, csv, md -> file."""
    columns = make_columns(table, name, systems, apis, scores, list(tasks))
    rows = [*tasks.values(), MEAN]
    texts = {
        "tex": to_latex(columns, rows, table.caption, name),
        "csv": to_csv(columns, rows),
        "md": to_markdown(columns, rows, table.caption),
    }
    for suffix, path in output.items():
        with atomic_write(path) as partial:
            partial.write_text(texts[suffix], encoding="utf-8")
