"""How a corpus came out: its counts in one file, and what other numbers of documents in a group would give."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from revela.text.batches import chosen_batches
from revela.text.parquet import write_counts
from revela.text.progress import Progress, silent

if TYPE_CHECKING:
    from revela.study.specification import BatchSpec, GroupSizeSpec

GROUP_SIZES = (1, 2, 4)


def compare_group_sizes(
    spec: GroupSizeSpec,
    chunks: str | Path,
    output: str | Path,
    *,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write a JSON file on how a corpus's batches would come out with 1, 2 or 4 documents in a group.

    It holds the counts of `batches.write_batches` for each number; batches themselves are not written. Where the corpus
    states the paper's number of documents, the batches that so many documents give are counted too
    (``batches_of_stated``). Then both of the paper's numbers have one of ours beside them: the documents of its batches,
    and the batches of its documents.

    Args:
        spec: The batches, and the documents that the paper counts.
        chunks: The corpus's chunks.parquet.
        output: The JSON file.
        progress: Makes the progress bar of each number.

    Returns:
        What was written.

    Raises:
        CorpusError: There is too little text for a batch.
    """
    groups = {}
    for size in GROUP_SIZES:
        of_size = spec.batches.model_copy(update={"group_size": size})
        batches, counts = chosen_batches(of_size, [chunks], progress)
        deque(batches, maxlen=0)
        groups[str(size)] = counts()
    stated = {"documents": spec.documents, "batches": spec.batches.batches}
    of_stated = None
    if spec.documents is not None:
        first = _first_chunks(Path(chunks), spec.documents, spec.batches)
        of_stated = first // spec.batches.batch_size
    return write_counts(output, {"stated": stated, "batches_of_stated": of_stated, "group_size": groups})


def write_report(
    chunks: str | Path | None,
    batches: Sequence[str | Path],
    group_sizes: str | Path | None,
    output: str | Path,
    *,
    apart: str | Path | None = None,
    grouping: Sequence[str | Path] | None = None,
) -> dict[str, Any]:
    """Gather the counts of a corpus in one JSON file: of its chunks, of its batches by their size, and by group size.

    What a corpus does not have is null: ready batches and mixes have no chunks of their own. A corpus that is kept apart
    from benchmarks has the report on that too (`apart`), and a regrouped one what regrouping did, by batch size
    (`grouping`, in the order of `batches`).
    """

    def read(path: str | Path) -> dict[str, Any]:
        return json.loads(Path(path).read_text(encoding="utf-8"))

    by_size = {str(counts["batch_size"]): counts for counts in map(read, batches)}
    report = {"chunks": chunks and read(chunks), "batches": by_size, "group_sizes": group_sizes and read(group_sizes)}
    if apart:
        report["apart"] = read(apart)
    if grouping:
        report["grouping"] = dict(zip(by_size, map(read, grouping), strict=True))
    return write_counts(output, report)


def _first_chunks(path: Path, documents: int, spec: BatchSpec) -> int:
    """The number of chunks of the first documents that have enough of them."""
    left, total = documents, 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["chunks"]):
            lengths = pc.list_value_length(batch["chunks"])
            lengths = pc.filter(lengths, pc.greater_equal(lengths, spec.min_chunks))[:left]
            if spec.max_chunks:
                lengths = pc.min_element_wise(lengths, spec.max_chunks)
            total += pc.sum(lengths).as_py() or 0
            left -= len(lengths)
            if not left:
                break
    return total
