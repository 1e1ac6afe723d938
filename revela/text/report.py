"""How a corpus came out: its counts in one file, beside those that other numbers of documents in a group would give."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from revela.study.study import Corpus
from revela.text.corpora import chosen_batches, write_counts

GROUP_SIZES = (1, 2, 4)


def compare_group_sizes(
    corpus: Corpus, chunks: str | Path, output: str | Path, *, batch_size: int, seed: int
) -> dict[str, Any]:
    """Write a JSON file on how a corpus's batches would come out by the documents in a group, 1, 2 or 4.

    For each: the counts of `corpora.write_batches`, but nothing is written. Where the corpus states the paper's number of
    documents, their batches are counted too (``batches_of_stated``), so that both of the paper's numbers have one of
    ours beside them: the documents of its batches, and the batches of its documents. Raises CorpusError where there is
    too little text for a batch.
    """
    groups = {}
    for size in GROUP_SIZES:
        batches, counts = chosen_batches(corpus.model_copy(update={"group_size": size}), [chunks], batch_size, seed)
        deque(batches, maxlen=0)
        groups[str(size)] = counts()
    stated = {"documents": corpus.documents, "batches": corpus.batches}
    of_stated = None if corpus.documents is None else _first_chunks(corpus, Path(chunks)) // batch_size
    return write_counts(output, {"stated": stated, "batches_of_stated": of_stated, "group_size": groups})


def write_report(
    chunks: str | Path | None, batches: Sequence[str | Path], group_sizes: str | Path | None, output: str | Path
) -> dict[str, Any]:
    """Gather a corpus's counts, of its chunks, its batches by their size, and by group size, in one JSON file.

    What a corpus has not is null: one of ready batches, or a mix, has no chunks of its own.
    """

    def read(path: str | Path) -> dict[str, Any]:
        return json.loads(Path(path).read_text(encoding="utf-8"))

    by_size = {str(counts["batch_size"]): counts for counts in map(read, batches)}
    report = {"chunks": chunks and read(chunks), "batches": by_size, "group_sizes": group_sizes and read(group_sizes)}
    return write_counts(output, report)


def _first_chunks(corpus: Corpus, path: Path) -> int:
    """The chunks of the first `corpus.documents` documents that have enough of them."""
    left, total = corpus.documents, 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["chunks"]):
            lengths = pc.list_value_length(batch["chunks"])
            lengths = pc.filter(lengths, pc.greater_equal(lengths, corpus.min_chunks))[:left]
            total += pc.sum(lengths).as_py() or 0
            left -= len(lengths)
            if not left:
                break
    return total
