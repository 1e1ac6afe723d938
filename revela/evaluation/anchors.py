"""Anchors: scores that others published for systems anyone can run. A harness that misses them is wrong."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from revela.evaluation.scores import score_task
from revela.files import atomic_write
from revela.study.study import Study

OK, CLOSE = 0.1, 1.0  # points of nDCG@10, in percent


def check_anchors(study: Study, datasets: Mapping[str, str | Path], runs: Mapping[str, str | Path]) -> list[list[str]]:
    """Rows of system, benchmark, task, published, found, difference and verdict, in the order of the sheet.

    Args:
        datasets: dataset -> its folder.
        runs: an anchor's key -> run file.
    """
    rows = []
    for anchor in study.anchors:
        task = study.task(anchor.benchmark, anchor.task)
        found = 100 * score_task(task, study, datasets[task.dataset], runs[anchor.key])["metrics"]["nDCG@10"]
        difference = found - anchor.ndcg10
        names = [anchor.system, anchor.benchmark, anchor.task]
        rows.append([*names, f"{anchor.ndcg10:.2f}", f"{found:.2f}", f"{difference:+.2f}", verdict(difference)])
    return rows


def verdict(difference: float) -> str:
    """OK within what precision and rounding explain, close within what versions explain, FAIL beyond."""
    return "OK" if abs(difference) <= OK else "close" if abs(difference) <= CLOSE else "FAIL"


def write_anchors(rows: list[list[str]], csv_path: str | Path, md_path: str | Path) -> None:
    """Write the rows as CSV and as a Markdown table."""
    header = ["system", "benchmark", "task", "published", "found", "difference", "verdict"]
    with atomic_write(csv_path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    with atomic_write(md_path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
