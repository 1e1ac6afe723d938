"""Anchors: published scores of systems that anyone can run. An evaluation that does not reach them is wrong."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from revela.evaluation.scores import score_task
from revela.files import atomic_write

if TYPE_CHECKING:
    from revela.study.specification import AnchorSpec

OK, CLOSE = 0.1, 1.0  # points of nDCG@10, in percent


def check_anchors(spec: AnchorSpec, datasets: Mapping[str, str | Path], runs: Sequence[str | Path]) -> list[list[str]]:
    """Rows of system, benchmark, task, published, found, difference and verdict, in the order of the sheet.

    Args:
        datasets: dataset -> its folder.
        runs: The run file of each anchor, in the same order.
    """
    read_as = {"document_text": spec.document_text, "top_k": spec.top_k}
    rows = []
    for system, task, published, run in zip(spec.systems, spec.tasks, spec.ndcg10, runs, strict=True):
        found = 100 * score_task(task, datasets[task.dataset], run, **read_as)["metrics"]["nDCG@10"]
        difference = found - published
        names = [system, task.benchmark, task.task]
        rows.append([*names, f"{published:.2f}", f"{found:.2f}", f"{difference:+.2f}", verdict(difference)])
    return rows


def verdict(difference: float) -> str:
    """OK where precision and rounding explain the difference, close where versions may, FAIL beyond that."""
    return "OK" if abs(difference) <= OK else "close" if abs(difference) <= CLOSE else "FAIL"


def write_anchors(rows: list[list[str]], csv_path: str | Path, md_path: str | Path) -> None:
    """Write the rows as CSV and as a Markdown table."""
    header = ["system", "benchmark", "task", "published", "found", "difference", "verdict"]
    with atomic_write(csv_path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    with atomic_write(md_path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
