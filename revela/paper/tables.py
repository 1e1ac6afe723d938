"""Tables as tex, csv, md and html, with bold and grey values, daggers, sizes and groups as in the paper.

A copied value carries a p, one of a service that was measured here an m. One that is known to be wrong carries a star and a note with the right value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from revela.paper.page import html_body, html_page, write_texts
from revela.paper.values import Column, columns, over_seeds, rows

if TYPE_CHECKING:
    from revela.study.layout import Layout
    from revela.study.shown import Table
    from revela.study.tables import TableSpec

PACKAGES = "% needs \\usepackage{booktabs,graphicx,xcolor}\n"
_SIZE = re.compile(r"(.+)(?<!\.\d)-(\d+(?:\.\d+)?[BM])\b(.*)")  # Revela-0.5B, Revela-4M seed 1; not LLaMA-3.2-1B


def split_size(label: str) -> tuple[str, str]:
    """(label without its size, size or a dash).

    >>> split_size("Revela-0.5B"), split_size("Ada-2"), split_size("BGE-M3-0.6B")
    (('Revela', '0.5B'), ('Ada-2', '-'), ('BGE-M3', '0.6B'))
    """
    match = _SIZE.fullmatch(label)
    return (match[1] + match[3], match[2]) if match else (label, "-")


def best(table: Table, values: Sequence[Column]) -> list[set[str]]:
    """For each row the labels of its bold values: the best as printed, with one decimal, so that ties share it.

    The best is sought in the whole row or in each group, and among measured values unless `bold_copied` is set.
    """
    candidates = [column for column in values if table.bold_copied or not column.copied]
    groups = {"none": [], "row": [table.columns], "group": [list(heads.values()) for heads in table.groups.values()]}
    bold: list[set[str]] = [set() for _ in values[0].values]
    for group in groups[table.bold]:
        members = [column for column in candidates if column.label in group]
        for row, labels in enumerate(bold):
            shown = {column.label: round(column.values[row], 1) for column in members}
            labels |= {label for label, value in shown.items() if value == max(shown.values())}
    return bold


def to_csv(values: Sequence[Column], names: Sequence[str]) -> str:
    """Values with two decimals, systems as columns; a copied column says so in its header, a service's likewise."""
    frame = pd.DataFrame(
        {
            c.label + (" (printed)" if c.copied else " (measured)" if c.service else ""): [f"{v:.2f}" for v in c.values]
            for c in values
        },
        index=pd.Index(names, name="Task"),
    )
    return frame.to_csv(lineterminator="\n")


def to_markdown(table: Table, values: Sequence[Column], names: Sequence[str]) -> str:
    """A table for the terminal and for a page: bold is best, italic is supervised, ᵖ is copied."""
    bold = best(table, values)

    def cell(column: Column, row: int) -> str:
        text = f"{column.values[row]:.1f}" + "ᵖ" * column.copied + "ᵐ" * column.service
        text += _interval(table, column, row, " ± ") + _range(column, row, "-")
        text += "\\*" if is_wrong(column, names[row]) else ""
        text = f"_{text}_" if column.label in table.grey else text
        return f"**{text}**" if column.label in bold[row] else text

    group_of = {label: f"{group} {head}" for group, heads in table.groups.items() for head, label in heads.items()}
    heads = [c.label if table.transposed else group_of.get(c.label, c.label) for c in values]
    frame = pd.DataFrame(
        {h + ("†" if c.label in table.dagger else ""): map_rows(cell, c, names) for h, c in zip(heads, values)},
        index=pd.Index(names, name="Task"),
    )
    if table.transposed:
        frame = frame.T.rename_axis("Model")
    text = frame.to_markdown(disable_numparse=True, stralign="right", colalign=("left", *["right"] * frame.shape[1]))
    notes = legend(table, values, grey="Italic", printed="ᵖ", service="ᵐ", dagger="†")
    return "\n".join([table.caption, "", text, *(line for note in notes for line in ("", note))]) + "\n"


def to_latex(table: Table, values: Sequence[Column], names: Sequence[str], label: str) -> str:
    """A booktabs table for any article class."""
    bold = best(table, values)

    def cell(column: Column, row: int) -> str:
        text = f"{column.values[row]:.1f}"
        text = rf"\textbf{{{text}}}" if column.label in bold[row] else text
        text += _interval(table, column, row, r"\,$\pm$\,") + _range(column, row, "--")
        text += r"\textsuperscript{p}" if column.copied else r"\textsuperscript{m}" if column.service else ""
        text += r"\textsuperscript{*}" if is_wrong(column, names[row]) else ""
        return rf"\textcolor{{gray}}{{{text}}}" if column.label in table.grey else text

    marks = {"printed": r"\textsuperscript{p}", "service": r"\textsuperscript{m}", "dagger": r"\textsuperscript{\dag}"}
    notes = legend(table, values, grey="Grey", **marks)
    notes = [note if "\\" in note else escape(note) for note in notes]
    return float_of([tabular(table, values, names, cell)], table.caption, label, notes)


def tabular(table: Table, values: Sequence[Column], names: Sequence[str], cell: Callable[[Column, int], str]) -> str:
    """The tabular of a table, `cell(column, row)` in each place: heads, rules, groups and orientation."""
    body = [map_rows(cell, column, names) for column in values]
    if table.transposed:
        lines = [r"\toprule", _line(["Model", *map(escape, names)])]
        first = {next(iter(heads.values())) for heads in table.groups.values()} or {values[0].label}
        for column, cells in zip(values, body):
            lines += [r"\midrule"] if column.label in first else []
            lines.append(_line([_head(table, column.label), *cells]))
        return _tabular(len(names), [*lines, r"\bottomrule"])
    lines = [r"\toprule", *_heads(table, values), r"\midrule"]
    for row, name in enumerate(names):
        lines += [r"\midrule"] if 0 < row == len(names) - 1 else []  # above the means
        lines.append(_line([escape(name), *(cells[row] for cells in body)]))
    return _tabular(len(values), [*lines, r"\bottomrule"])


def float_of(tabulars: Sequence[str], caption: str, label: str, notes: Sequence[str]) -> str:
    """A table float around tabulars, one below the other. A tabular that is wider than the text is scaled down."""
    fit = r"\ifdim\width>\linewidth\linewidth\else\width\fi"
    # All pieces of a table that was cut have to fit on one page.
    font, size = (r"\small", r"\footnotesize") if len(tabulars) == 1 else (r"\footnotesize", r"\scriptsize")
    boxes = "\\par\\medskip\n".join(f"\\resizebox{{{fit}}}{{!}}{{%\n{tabular}}}\n" for tabular in tabulars)
    below = f"\\par\\smallskip\\parbox{{\\linewidth}}{{{size} {' '.join(notes)}}}\n" if notes else ""
    return (
        f"{PACKAGES}\\begin{{table}}[{'t' if len(tabulars) == 1 else 'p'}]\n\\centering\n"
        f"\\caption{{{escape(caption)}}}\n\\label{{tab:{label}}}\n"
        f"\\smallskip\n{font}\n\\setlength{{\\tabcolsep}}{{4pt}}\n{boxes}{below}\\end{{table}}\n"
    )


def _heads(table: Table, values: Sequence[Column]) -> list[str]:
    """The heads: one line, or two if sizes stand below them or groups above them."""
    if table.groups:
        sizes = {group: len(heads) for group, heads in table.groups.items()}
        spans = [rf"\multicolumn{{{size}}}{{c}}{{{subscript(group)}}}" for group, size in sizes.items()]
        ends = [1 + sum(list(sizes.values())[: place + 1]) for place in range(len(sizes))]
        rules = [rf"\cmidrule(lr){{{end - size + 1}-{end}}}" for end, size in zip(ends, sizes.values())]
        below = [escape(head) for heads in table.groups.values() for head in heads]
        return [_line(["", *spans]), " ".join(rules), _line(["Dataset", *below])]
    if table.size_row:
        names = [escape(split_size(c.label)[0]) + _dagger(table, c.label) for c in values]
        return [_line(["Dataset", *names]), _line(["Model Size", *(split_size(c.label)[1] for c in values)])]
    return [_line(["Dataset", *(_head(table, column.label) for column in values)])]


def _head(table: Table, label: str) -> str:
    return subscript(label) + _dagger(table, label)


def _dagger(table: Table, label: str) -> str:
    return r"\textsuperscript{\dag}" if label in table.dagger else ""


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tabular(width: int, lines: Sequence[str]) -> str:
    content = "\n".join(lines)
    return f"\\begin{{tabular}}{{l{'r' * width}}}\n{content}\n\\end{{tabular}}"


def map_rows(cell: Callable[[Column, int], str], column: Column, names: Sequence[str]) -> list[str]:
    """The cells of a column."""
    return [cell(column, row) for row in range(len(names))]


def _interval(table: Table, column: Column, row: int, sign: str) -> str:
    """Half the width of a value's interval, where the table shows it and it is known."""
    shown = table.intervals and not column.copied and not math.isnan(column.margins[row])
    return f"{sign}{column.margins[row]:.1f}" if shown else ""


def _range(column: Column, row: int, dash: str) -> str:
    """The lowest and the highest of several seeds."""
    return f" ({dash.join(f'{end:.1f}' for end in column.ranges[row])})" if column.ranges else ""


def is_wrong(column: Column, row: str) -> bool:
    """Whether a copied value is known to be an error of the paper."""
    return any(erratum.row == row for erratum in column.errata)


def legend(table: Table, values: Sequence[Column], *, grey: str, printed: str, service: str, dagger: str) -> list[str]:
    """What the marks of a table mean, and the errors among its copied values."""
    copied = any(column.copied for column in values)
    value = "measured value" if copied and not table.bold_copied else "value"
    notes = {
        f"Bold: the best {value} in each row.": table.bold == "row",
        f"Bold: the best {value} of each group in each row.": table.bold == "group",
        "±: the 95 % interval over the queries.": table.intervals,
        "Means over seeds; in brackets the lowest and the highest.": any(column.ranges for column in values),
        f"{grey}: supervised.": bool(table.grey),
        f"{dagger}: code-related pairs in pre-training.": bool(table.dagger),
        f"{printed}: copied from the paper, not measured.": copied,
        f"{service}: measured here, by the service's API.": any(column.service for column in values),
    }
    for column in values:
        if column.errata:
            right = ", ".join(f"{e.row} {e.corrected:.1f}" for e in column.errata)
            reason = column.errata[0].reason
            notes[f"*: {column.label} as printed is in error; right is {right} ({reason})."] = True
    return [note for note, shown in notes.items() if shown]


def subscript(label: str) -> str:
    r"""A label in LaTeX, its size as a subscript.

    >>> print(subscript("Revela-wiki-1B"), subscript("LLaMA-3.2-1B (original)"))
    Revela-wiki\textsubscript{1B} LLaMA-3.2-1B (original)
    """
    match = _SIZE.fullmatch(label)
    return rf"{escape(match[1])}\textsubscript{{{match[2]}}}{escape(match[3])}" if match else escape(label)


def escape(text: str) -> str:
    """Text as LaTeX."""
    return re.sub(r"([%&#_$])", r"\\\1", text)


def write_table(spec: TableSpec, layout: Layout, output: Mapping[str, str | Path]) -> None:
    """Write a table; `output`: tex, csv, md, html -> file. Raises PaperError if a value is missing.

    Where means over seeds are shown, the CSV has the seeds.
    """
    table, found, names = spec.table, columns(spec, layout), rows(spec)
    values = found
    if table.over_seeds:
        values = over_seeds(table, found)
        table = table.model_copy(update={"columns": list(table.groups), "groups": {}})
    markdown = to_markdown(table, values, names)
    texts = {
        "tex": to_latex(table, values, names, spec.name),
        "csv": to_csv(found, names),
        "md": markdown,
        "html": html_page(spec.name, html_body(markdown)),
    }
    write_texts(texts, output)
