"""All comparisons with the paper on one page, with a list of what fails, and the verdict on them.

Only systems that have been scored are compared. Nothing is run for the page: the rest counts as `not run`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from revela.paper.compare import EXPECTED, VERDICTS, compare_table, count, to_csv, to_markdown
from revela.paper.page import html_body, html_page, write_texts
from revela.provenance import git_commit

if TYPE_CHECKING:
    from revela.study.layout import Layout
    from revela.study.tables import CheckSpec


def compare_all(spec: CheckSpec, layout: Layout) -> dict[str, pd.DataFrame]:
    """table -> its comparison, from the scores that exist.

    A table that is made on request is left out unless something of it has been scored.
    """
    found = {table.name: compare_table(table, layout, partly=True) for table in spec.tables}
    optional = {table.name for table in spec.tables if table.table.on_request}
    return {n: c for n, c in found.items() if n not in optional or (c["verdict"] != "not run").any()}


def to_page(spec: CheckSpec, comparisons: Mapping[str, pd.DataFrame]) -> str:
    """The page in Markdown: how often each verdict was given, what fails, then each table."""
    if not comparisons:
        return "# Comparison with the paper\n\nNo table of this configuration has printed values to compare with.\n"
    counts = pd.DataFrame({name: c["verdict"].value_counts() for name, c in comparisons.items()}).T
    counts = counts.reindex(columns=[*VERDICTS, EXPECTED]).fillna(0).astype(int)
    counts.loc["all"] = counts.sum()
    failing = failures(comparisons)
    lines = [
        "# Comparison with the paper",
        f"Code at commit {git_commit() or 'unknown'}. Tables that have not been scored are not run.",
        counts.rename_axis("Table").to_markdown(),
        f"## What fails: {len(failing)}",
        failing.to_markdown(index=False, floatfmt=".1f") if len(failing) else "Nothing that was measured.",
    ]
    tables = {table.name: table.table for table in spec.tables}
    for name, comparison in comparisons.items():
        lines += [f"## {name}", tables[name].caption, to_markdown(comparison, tables[name].notes).strip()]
    return "\n\n".join(lines) + "\n"


def failures(comparisons: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The lines of all comparisons whose verdict is FAIL, the largest difference first."""
    every = pd.concat([c.assign(table=name) for name, c in comparisons.items()]) if comparisons else pd.DataFrame()
    if every.empty:
        return every
    failing = every[every["verdict"] == "FAIL"][
        ["table", "column", "row", "ours", "printed", "corrected", "difference"]
    ]
    return failing.sort_values("difference", key=abs, ascending=False).assign(
        corrected=lambda f: f["corrected"].fillna("")
    )


def to_html(page: str) -> str:
    """The Markdown page as one self-contained HTML file. The shade of a cell shows its verdict."""
    body = html_body(page)
    for word, shade in (("<strong>FAIL</strong>", "fail"), ("close", "close"), (EXPECTED, "close"), ("OK", "ok")):
        body = re.sub(rf"<td[^>]*>([^<]*{re.escape(word)}</td>)", rf'<td class="{shade}">\1', body)
    body = re.sub(r"<td[^>]*>(not run)", r'<td class="none">\1', body)
    return html_page("Comparison with the paper", body)


def write_check(spec: CheckSpec, layout: Layout, output: Mapping[str, str | Path]) -> None:
    """Write the page; `output`: html, md, csv (all comparisons, a line for each printed value) -> file."""
    comparisons = compare_all(spec, layout)
    page = to_page(spec, comparisons)
    every = [c.assign(table=name) for name, c in comparisons.items()]
    header = [
        "table",
        "column",
        "row",
        "ours",
        "low",
        "high",
        "printed",
        "corrected",
        "difference",
        "verdict",
        "reason",
    ]
    texts = {
        "html": to_html(page),
        "md": page,
        "csv": to_csv(pd.concat(every)[header] if every else pd.DataFrame(columns=header)),
    }
    write_texts(texts, output)


def verdict_line(path: str | Path) -> tuple[str, bool]:
    """(one line on a page, whether it fails). The line names the page and counts its verdicts.

    It fails if a measured value does, or if nothing has been measured.

    path: the csv of a page, or of the anchors.
    """
    comparisons = pd.read_csv(path)
    page = next(page for suffix in (".html", ".md") if (page := Path(path).with_suffix(suffix)).exists())
    if not (comparisons["verdict"] != "not run").any():
        return f"{page}: nothing measured", True
    return f"{page}: {count(comparisons)}", bool((comparisons["verdict"] == "FAIL").any())
