"""The nearest chunks of each chunk: exact by blocks of matrix products, or nearly so by an inverted file of faiss.

The inverted file keeps the vectors in float16, so its memory is theirs, once. How many of its lists a search visits is
chosen by measurement: the fewest at which a sample finds what the exact search finds.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from revela.grouping import GroupingError, chunks

if TYPE_CHECKING:
    from revela.grouping.regrouped import Find
    from revela.study.grouping import NeighbourSpec

SCORES_AT_A_TIME = 2**26
ROWS_AT_A_TIME = 2**16
LISTS_AT_A_TIME = 32
SAME = 1e-4  # products that differ by less are equal, for float16 rounds
RECALL = 0.96  # that the sample must reach: a percent more than is wanted of all, for the sample is one
SAMPLE = 1000
LISTS = 4  # times the root of the number of chunks
TRAINED_ON = 48  # chunks for each list
ROUNDS = 8  # of k-means


def by_embedding(spec: NeighbourSpec, vectors: str | Path, *, threads: int) -> Find:
    """Finds neighbours for `regrouped.write_neighbours` by the embeddings that `embeddings.write_embeddings` wrote."""
    of_all = np.load(vectors, mmap_mode="r")

    def find(source, numbers, documents, k):
        own, exact = chunks.rows(of_all, numbers), spec.is_exact(len(numbers))
        found = neighbours(own, k, documents=documents, exact=exact, threads=threads, seed=spec.seed)
        return *found, None if exact else recall(own, found, documents=documents, seed=spec.seed)

    return find


def neighbours(
    vectors: np.ndarray,
    k: int,
    *,
    documents: np.ndarray | None = None,
    exact: bool = True,
    threads: int | None = None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The k chunks with the largest inner product for each chunk, itself excluded.

    Args:
        vectors: float16 or float32 [n, d]; a file mapped into memory is read block by block.
        k: Neighbours of a chunk.
        documents: The document of each chunk, int [n]. If given, chunks of the same document are excluded as well.
        exact: Whether all chunks are compared. If not, an inverted file of faiss finds at least 0.96 of what a sample of
            1,000 chunks should find; `recall` says how much another sample finds.
        threads: Of faiss; all cores by default.
        seed: Of the lists of the inverted file and of the sample.

    Returns:
        Numbers int32 [n, k], nearest first, and inner products float32 [n, k]; -1 and -inf where there are fewer.

    Raises:
        GroupingError: The inverted file is needed, and faiss is not installed.
    """
    if exact:
        return _exact(vectors, np.arange(len(vectors)), k, documents)
    return _InvertedFile(vectors, k, documents, threads, seed).search()


def _exact(
    vectors: np.ndarray, rows: np.ndarray, k: int, documents: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The neighbours of some `rows`, int [q], in the form of `neighbours`: int32 [q, k] and float32 [q, k].

    vectors, documents and k are those of `neighbours`.
    """
    at_a_time = max(1, min(len(rows), SCORES_AT_A_TIME // min(ROWS_AT_A_TIME, max(1, len(vectors)))))
    of_document = None if documents is None else torch.as_tensor(documents)
    found, products = np.full((len(rows), k), -1, np.int32), np.full((len(rows), k), -np.inf, np.float32)
    for start in range(0, len(rows), at_a_time):
        asked = torch.as_tensor(rows[start : start + at_a_time])
        queries = _float32(vectors[rows[start : start + at_a_time]])
        best = torch.empty((len(asked), 0))
        which = torch.empty((len(asked), 0), dtype=torch.int64)
        for first, block in _blocks(vectors, max(1, SCORES_AT_A_TIME // len(asked))):
            scores = queries @ _float32(block).T
            here = (asked >= first) & (asked < first + len(block))
            scores[here.nonzero()[:, 0], asked[here] - first] = -torch.inf
            if of_document is not None:
                same = of_document[asked][:, None] == of_document[first : first + len(block)]
                scores[same] = -torch.inf
            top = scores.topk(min(k, len(block)), dim=1)
            best, order = torch.cat([best, top.values], dim=1).sort(dim=1, descending=True, stable=True)
            which = torch.cat([which, top.indices + first], dim=1).gather(1, order)[:, :k]
            best = best[:, :k]
        which[best == -torch.inf] = -1
        found[start : start + len(asked), : which.shape[1]] = which.numpy()
        products[start : start + len(asked), : which.shape[1]] = best.numpy()
    return found, products


def recall(
    vectors: np.ndarray,
    found: tuple[np.ndarray, np.ndarray],
    *,
    documents: np.ndarray | None = None,
    sample: int = SAMPLE,
    seed: int,
) -> float:
    """The share of the exact neighbours of a sample of chunks that were found.

    found: what `neighbours` gave for these vectors [n, d] and documents [n]. A neighbour counts where it is as near as
        the last of the exact ones, so equal vectors count for each other.
    """
    rows = _sample(len(vectors), sample, seed + 1)  # another sample than the one that chose the number of lists
    truth = _exact(vectors, rows, found[0].shape[1], documents)
    return _agreement(truth[1], found[1][rows])


class _InvertedFile:
    """All vectors in lists about centres of k-means, and the number of lists that a search visits."""

    def __init__(
        self,
        vectors: np.ndarray,
        k: int,
        documents: np.ndarray | None,
        threads: int | None,
        seed: int,
    ):
        try:
            import faiss
        except ModuleNotFoundError:
            raise GroupingError("neighbours of so many chunks need faiss: pip install faiss-cpu") from None
        if threads:
            faiss.omp_set_num_threads(threads)
        self.k, self.documents = k, documents
        # what is excluded is found too, and is thrown away
        largest = 1 if documents is None else int(np.unique(documents, return_counts=True)[1].max())
        self.wanted = k + min(largest, 3 * k)
        count, width = vectors.shape
        lists = max(1, round(LISTS * count**0.5))
        self.index = faiss.index_factory(width, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
        self.index.by_residual = False
        self.index.cp.spherical, self.index.cp.niter, self.index.cp.seed = True, ROUNDS, seed
        self.index.train(_float32(vectors[_sample(count, TRAINED_ON * lists, seed)]).numpy())
        for _, block in _blocks(vectors, ROWS_AT_A_TIME):
            self.index.add(_float32(block).numpy())
        self._choose(vectors, _sample(count, SAMPLE, seed))

    def _choose(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        truth = _exact(vectors, rows, self.k, self.documents)
        queries = _float32(vectors[rows]).numpy()
        self.index.nprobe = 4
        while self.index.nprobe < self.index.nlist:
            if _agreement(truth[1], self._find(rows, queries)[1]) >= RECALL:
                return
            self.index.nprobe = self.index.nprobe * 3 // 2

    def search(self) -> tuple[np.ndarray, np.ndarray]:
        """Neighbours of all. The lists follow each other, so that those which a search visits are still in the cache."""
        count, width = self.index.ntotal, self.index.d
        found, products = np.empty((count, self.k), np.int32), np.empty((count, self.k), np.float32)
        for start in range(0, self.index.nlist, LISTS_AT_A_TIME):
            lists = range(start, min(start + LISTS_AT_A_TIME, self.index.nlist))
            rows, codes = zip(*(self._list(number) for number in lists), strict=True)
            rows = np.concatenate(rows)
            queries = _float32(np.concatenate(codes).view(np.float16).reshape(-1, width)).numpy()
            found[rows], products[rows] = self._find(rows, queries)
        return found, products

    def _list(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        from faiss.contrib.inspect_tools import get_invlist

        return get_invlist(self.index.invlists, number)

    def _find(self, rows: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int [q, k] and float32 [q, k] for queries [q, d], which are the vectors of these rows."""
        products, found = self.index.search(queries, self.wanted)
        out = (found == rows[:, None]) | (found < 0)
        if self.documents is not None:
            out |= self.documents[found] == self.documents[rows][:, None]
        order = np.argsort(out, axis=1, kind="stable")[:, : self.k]
        out, found, products = (np.take_along_axis(one, order, axis=1) for one in (out, found, products))
        return np.where(out, -1, found), np.where(out, np.float32(-np.inf), products)


def _agreement(truth: np.ndarray, products: np.ndarray) -> float:
    """The share of the exact products [q, k] that others [q, k] reach."""
    there = np.isfinite(truth)
    last = np.where(there, truth, np.inf).min(axis=1, keepdims=True)
    reached = np.minimum((products >= last - SAME).sum(axis=1), there.sum(axis=1))
    return float(reached.sum() / max(1, there.sum()))


def _sample(count: int, size: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).choice(count, min(count, size), replace=False))


def _float32(vectors: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(vectors)).float()


def _blocks(vectors: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first, vectors). The pages of a mapped file are given back, or they would count as this process's."""
    for start in range(0, len(vectors), size):
        yield start, np.array(vectors[start : start + size])
        if isinstance(vectors, np.memmap) and vectors.mode in ("r", "r+"):
            vectors._mmap.madvise(mmap.MADV_DONTNEED)
