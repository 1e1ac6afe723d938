"""What regrouping did: batches before and after, measured on a sample, and ten of each to read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from revela.files import atomic_write, write_json
from revela.grouping.sample import drawn, rows_at

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
    gains: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Write a JSON file and a Markdown page on a regrouped corpus beside the one that it comes from.

    Args:
        before: The name of the corpus that was regrouped, and its batches.parquet.
        after: Of the regrouped one.
        neighbours: The JSON file beside its neighbours; None: it is random.
        outputs: The JSON file and the page.
        documents: Whether the batches name their documents.
        seed: Of the sample, 1,000 batches of each corpus at most.
        gains: What a cell's models make of the batches before and after, as `revela.grouping.gain` writes it, if that is
            known. The ten batches to read are some of those measured there.

    Returns:
        What the JSON file holds: ``neighbours`` (their recall and mean similarity by source, or None), ``corpora``:
        name -> what `measured` says, and of known gains ``gain``: name -> all of it.
    """
    corpora = {name: rows_at(path, drawn(path, seed, SAMPLE)) for name, path in (before, after)}
    found = {name: measured(list(rows.values()), documents=documents) for name, rows in corpora.items()}
    near = _read(neighbours) if neighbours else None
    gain = dict(zip(corpora, map(_read, gains), strict=True)) if gains else {}
    report = {"neighbours": near, "corpora": found} | ({"gain": gain} if gain else {})
    write_json(outputs[0], report)
    page = [
        f"# {after[0]}: batches of {before[0]}, regrouped",
        "",
        *_table(found),
        "",
        *_neighbours(near),
        *_gains(gain),
    ]
    for name, path in (after, before):
        of_batch = {one["batch"]: ["", _said(one)] for one in gain[name]["batches"]} if gain else {}
        rows = rows_at(path, of_batch) if gain else corpora[name]
        page += ["", f"## {min(TO_READ, len(rows))} batches of {name}"]
        chosen = list(rows)[:: max(1, len(rows) // TO_READ)][:TO_READ]
        for number, place in enumerate(chosen, start=1):
            row = rows[place]
            page += ["", f"### {number}. {row['src']}", *of_batch.get(place, []), ""]
            page += map(_chunk, row["text"], row["document"])
    with atomic_write(outputs[1]) as partial:
        partial.write_text("\n".join(page) + "\n", encoding="utf-8")
    return report


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
        mean = "none" if values["similarity"] is None else f"{values['similarity']:.3f}"
        lines.append(f"| {source} | {values['chunks']:,} | {mean} | {recall} |")
    return lines


def _gains(gain: dict[str, dict[str, Any]]) -> list[str]:
    if not gain:
        return []
    [cell, *_] = {one["cell"] for one in gain.values()}
    head = "| corpus | batches measured | entropy of Sim | share of the uniform's | loss under uniform Sim | gain by Sim | gain by Sim over the same document |"
    lines = ["", f"Measured with the models of `{cell}`, in nats; losses are those of the language model's tokens.", ""]
    lines += [head, f"|---|{'---:|' * 6}"]
    for name, one in gain.items():
        means = one["mean"]
        best = f"{means['uniform'] - means['same_document']:.3f}" if "same_document" in means else "unknown"
        lines.append(
            f"| {name} | {len(one['batches']):,} | {means['entropy']:.3f} | {means['of_uniform']:.1%} | "
            f"{means['uniform']:.3f} | {means['uniform'] - means['learned']:.3f} | {best} |"
        )
    return lines


def _said(one: dict[str, Any]) -> str:
    """What was measured of a batch, in a line."""
    return (
        f"Entropy of Sim {one['entropy']:.3f} nats, {one['of_uniform']:.1%} of the uniform's; loss {one['uniform']:.3f} under "
        f"a uniform Sim, {one['learned']:.3f} under this one."
    )


def _read(path: str | Path) -> dict[str, Any]:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _chunk(text: str, document: str) -> str:
    shown = " ".join(text.split())
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]} …"
    return f"- `{document}`: {shown.replace('`', chr(39))}"
