"""What regrouping did: batches before and after, measured on a sample, and ten of each to read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from revela.files import atomic_write, write_json
from revela.text.parquet import read_table

SAMPLE = 1000  # batches
TO_READ = 10
SHOWN = 300  # characters of a chunk

_WORD = re.compile(r"\w+")


def write_report(
    before: tuple[str, str | Path],
    after: tuple[str, str | Path],
    neighbours: str | Path | None,
    outputs: tuple[str | Path, str | Path],
    *,
    documents: bool,
    seed: int,
) -> dict[str, Any]:
    """Write a JSON file and a Markdown page on a regrouped corpus beside the one that it comes from.

    Args:
        before: The name of the corpus that was regrouped, and its batches.parquet.
        after: Of the regrouped one.
        neighbours: The JSON file beside its neighbours; None: it is random.
        outputs: The JSON file and the page.
        documents: Whether the batches name their documents.
        seed: Of the sample, 1,000 batches of each corpus at most.

    Returns:
        What the JSON file holds: ``neighbours`` (their recall and mean similarity by source, or None) and ``corpora``:
        name -> what `measured` says.
    """
    corpora = {name: sampled(path, seed) for name, path in (before, after)}
    found = {name: measured(rows, documents=documents) for name, rows in corpora.items()}
    near = json.loads(Path(neighbours).read_text(encoding="utf-8")) if neighbours else None
    report = {"neighbours": near, "corpora": found}
    write_json(outputs[0], report)
    page = [f"# {after[0]}: batches of {before[0]}, regrouped", "", *_table(found), "", *_neighbours(near)]
    for name, rows in reversed(corpora.items()):
        page += ["", f"## {min(TO_READ, len(rows))} batches of {name}"]
        for number, row in enumerate(rows[:: max(1, len(rows) // TO_READ)][:TO_READ], start=1):
            page += ["", f"### {number}. {row['src']}", "", *map(_chunk, row["text"], row["document"])]
    with atomic_write(outputs[1]) as partial:
        partial.write_text("\n".join(page) + "\n", encoding="utf-8")
    return report


def sampled(batches: str | Path, seed: int) -> list[dict[str, Any]]:
    """Rows of a batches.parquet in their order, drawn by the seed."""
    number = pq.read_metadata(batches).num_rows
    chosen = set(np.random.default_rng(seed).choice(number, min(SAMPLE, number), replace=False).tolist())
    return [row for place, row in enumerate(read_table(batches)) if place in chosen]


def measured(rows: Sequence[dict[str, Any]], *, documents: bool) -> dict[str, float | int | None]:
    """Means over batches.

    ``same_document``: the share of a batch's pairs of chunks that come from one document; ``overlap``: the Jaccard
    similarity of the sets of words of its pairs; ``batches``: how many were looked at.
    """
    pairs = [list(combinations(range(len(row["text"])), 2)) for row in rows]
    same, overlap = [], []
    for row, of_batch in zip(rows, pairs, strict=True):
        words = [set(_WORD.findall(text.lower())) for text in row["text"]]
        same.append(np.mean([row["document"][a] == row["document"][b] for a, b in of_batch]))
        overlap.append(np.mean([len(words[a] & words[b]) / max(1, len(words[a] | words[b])) for a, b in of_batch]))
    return {
        "batches": len(rows),
        "same_document": round(float(np.mean(same)), 4) if documents else None,
        "overlap": round(float(np.mean(overlap)), 4),
    }


def _table(found: dict[str, dict[str, Any]]) -> list[str]:
    head = "| corpus | batches looked at | pairs of one document | overlap of words in a pair |"
    lines = [head, "|---|---:|---:|---:|"]
    for name, values in found.items():
        same = "unknown" if values["same_document"] is None else f"{values['same_document']:.1%}"
        lines.append(f"| {name} | {values['batches']:,} | {same} | {values['overlap']:.3f} |")
    return lines


def _neighbours(near: dict[str, Any] | None) -> list[str]:
    if near is None:
        return ["The batches are random."]
    lines = ["| source | chunks | similarity of the neighbours | recall of the search |", "|---|---:|---:|---:|"]
    for source, values in near.items():
        recall = "exact" if values["recall"] is None else f"{values['recall']:.1%}"
        lines.append(f"| {source} | {values['chunks']:,} | {values['similarity']:.3f} | {recall} |")
    return lines


def _chunk(text: str, document: str) -> str:
    shown = " ".join(text.split())
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]} …"
    return f"- `{document}`: {shown.replace('`', chr(39))}"
