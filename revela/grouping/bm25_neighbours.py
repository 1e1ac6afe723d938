"""Nearest neighbours of chunks by BM25, as the evaluation has it: each chunk is a query for the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from revela.evaluation.bm25 import BM25, Index
from revela.grouping import chunks
from revela.text.progress import Progress, silent

if TYPE_CHECKING:
    from revela.grouping.regrouped import Find
    from revela.study.grouping import NeighbourSpec


def by_bm25(spec: NeighbourSpec, batches: str | Path, *, progress: Progress = silent) -> Find:
    """Finds neighbours for `regrouped.write_neighbours` by the text of a batches.parquet."""
    ranker, text = BM25.of(spec.system), chunks.column(batches, "text")

    def find(source, numbers, documents, k):
        texts = text.take(numbers).to_pylist()
        return *bm25_neighbours(texts, k, ranker, source, documents=documents, progress=progress), None

    return find


def bm25_neighbours(
    texts: Sequence[str],
    k: int,
    ranker: BM25,
    name: str,
    *,
    documents: np.ndarray | None = None,
    progress: Progress = silent,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best other texts of each, best first: numbers int32 [n, k] and scores float32 [n, k].

    Ties go to the lower number, also among texts that share no word with the query, whose score is 0.

    Args:
        texts: The chunks.
        k: Neighbours of a chunk, fewer than there are chunks.
        ranker: BM25 with its settings.
        name: Of the texts, for messages.
        documents: The document of each, int [n]. If given, chunks of the same document are excluded; where too few others
            are left, numbers are -1 and scores -inf, as of `revela.grouping.neighbours`.
        progress: Makes the progress bar.

    Raises:
        EvaluationError: No text has a word.
    """
    index = Index(ranker, texts, name)
    found, scores = np.empty((len(texts), k), np.int32), np.empty((len(texts), k), np.float32)
    for number, words in enumerate(progress(iterable=index.documents, desc=name, unit=" chunks")):
        of_all = index.scores(words)
        of_all[number if documents is None else documents == documents[number]] = -np.inf
        least = np.partition(of_all, -k)[-k]
        better, equal = np.flatnonzero(of_all > least), np.flatnonzero(of_all == least)
        best = np.concatenate([better, equal[: k - len(better)]])
        best = best[np.lexsort((best, -of_all[best]))]
        scores[number] = of_all[best]
        found[number] = np.where(scores[number] > -np.inf, best, -1)
    return found, scores
