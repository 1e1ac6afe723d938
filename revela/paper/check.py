"""The page on which all comparisons with the paper stand together, and the list of what fails.

What has been scored is compared; nothing is run for it. The rest is `not run`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from revela.files import atomic_write
from revela.paper.compare import VERDICTS, compare_table, to_csv, to_markdown
from revela.paper.page import html_body, html_page
from revela.provenance import git_commit
from revela.study.study import Study


def compare_all(study: Study) -> dict[str, pd.DataFrame]:
    """table -> its comparison, for each table with printed values, with the scores that there are.

    Tables that are made on request stand there if anything of theirs has been scored.
    """
    printed = {name: table for name, table in study.config.tables.items() if table.printed}
    found = {name: compare_table(study, name, partly=True) for name in printed}
    return {n: c for n, c in found.items() if not printed[n].on_request or (c["verdict"] != "not run").any()}


def to_page(study: Study, comparisons: Mapping[str, pd.DataFrame]) -> str:
    """The page in Markdown: the verdicts of each table counted, what fails, then table by table."""
    if not comparisons:
        return "# Comparison with the paper\n\nNo table of this configuration has printed values to compare with.\n"
    counts = pd.DataFrame({name: c["verdict"].value_counts() for name, c in comparisons.items()}).T
    counts = counts.reindex(columns=VERDICTS).fillna(0).astype(int)
    counts.loc["all"] = counts.sum()
    failing = failures(comparisons)
    lines = [
        "# Comparison with the paper",
        f"Code at commit {git_commit() or 'unknown'}. Tables that have not been scored are not run.",
        counts.rename_axis("Table").to_markdown(),
        f"## What fails: {len(failing)}",
        failing.to_markdown(index=False, floatfmt=".1f") if len(failing) else "Nothing that was measured.",
    ]
    for name, comparison in comparisons.items():
        table = study.config.tables[name]
        lines += [f"## {name}", table.caption, to_markdown(comparison, table.notes).strip()]
    return "\n\n".join(lines) + "\n"


def failures(comparisons: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The lines of all comparisons that FAIL, the largest difference first."""
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
    """The Markdown page as one HTML file without anything from outside, verdicts by shade and word."""
    body = html_body(page)
    for word, shade in (("<strong>FAIL</strong>", "fail"), ("close", "close"), ("OK", "ok")):
        body = re.sub(rf"<td[^>]*>([^<]*{re.escape(word)}</td>)", rf'<td class="{shade}">\1', body)
    body = re.sub(r"<td[^>]*>(not run)", r'<td class="none">\1', body)
    return html_page("Comparison with the paper", body)


def write_check(study: Study, output: Mapping[str, str | Path]) -> None:
    """Write the page; `output`: html, md, csv (all comparisons, a line for each printed value) -> file."""
    comparisons = compare_all(study)
    page = to_page(study, comparisons)
    every = [c.assign(table=name) for name, c in comparisons.items()]
    header = ["table", "column", "row", "ours", "low", "high", "printed", "corrected", "difference", "verdict"]
    texts = {
        "html": to_html(page),
        "md": page,
        "csv": to_csv(pd.concat(every)[header] if every else pd.DataFrame(columns=header)),
    }
    for suffix, path in output.items():
        with atomic_write(path) as partial:
            partial.write_text(texts[suffix], encoding="utf-8")


def report(path: str | Path) -> tuple[str, bool]:
    """(one line on a check's csv, whether a measured value fails)."""
    comparisons = pd.read_csv(path)
    counts = comparisons["verdict"].value_counts()
    line = ", ".join(f"{name} {counts.get(name, 0)}" for name in VERDICTS)
    return f"{Path(path).with_suffix('.html')}: {line}", counts.get("FAIL", 0) > 0
