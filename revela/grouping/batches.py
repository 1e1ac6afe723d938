"""Neighbours of chunks -> batches of chunks that are alike: by mutual neighbours, along a path, or by clusters.

A pair of chunks of one document, where a share of pairs is asked for, moves as one. Everything is linear in the chunks
and their neighbours but for the sorting of edges.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from revela.grouping import GroupingError

ROWS_AT_A_TIME, EDGES_AT_A_TIME = 2**15, 2**20


def group(
    neighbours: np.ndarray,
    similarities: np.ndarray,
    documents: np.ndarray,
    *,
    batch_size: int,
    how: Literal["mutual", "path", "cluster"],
    keep_document: float,
    alike: np.ndarray | None,
    seed: int,
) -> np.ndarray:
    """Group chunks into batches of B. Every chunk is in one batch at most.

    mutual: The edges between chunks that are neighbours of each other are taken by descending similarity. Each joins
        the two groups of its chunks, if together they fit into a batch. The groups that are not full are then filled,
        the largest first, as clusters are.
    path: In-Context Pretraining (Shi et al. 2024, algorithm 1). A path goes from a chunk to its nearest chunk that it
        has not visited, and where there is none, to the chunk of least degree. It is cut into batches.
    cluster: The chunk of least degree that is left, with its nearest, then with the nearest of these, and so on. Where
        no neighbour is left, the chunk of least degree goes on.

    A chunk that would break a rule in a batch is left for a later one. What is left over when no batch can be
    completed is dropped: `len(documents) - batches.size` chunks.

    Args:
        neighbours: int32 [n, k], nearest first; -1 where there are fewer.
        similarities: Of the neighbours, float32 [n, k].
        documents: The document of each chunk, [n].
        batch_size: B.
        how: See above. The degree of a chunk is how many neighbours it has and of how many it is one.
        keep_document: A batch holds at least ceil(keep_document * B / 2) pairs of chunks of one document, no chunk in
            two of them. So at least this share of its chunks comes with another chunk of its document (all but one,
            where B is odd). A pair are two chunks that follow each other in their document. Which pairs, is drawn. 0:
            nothing is asked for.
        alike: Labels [n]: no batch holds two chunks with the same label.
        seed: Of that draw and of the order of chunks of the same degree.

    Returns:
        Numbers of chunks, int64 [batches, B].

    Raises:
        GroupingError: There are too few chunks or pairs for a single batch.
    """
    draw = np.random.default_rng(seed)
    pairs = min(math.ceil(keep_document * batch_size / 2 - 1e-9), batch_size // 2)
    chunks = _Chunks(neighbours, similarities, batch_size - 2 * pairs, pairs)
    chunks.partner[:] = _partners(documents, alike, batch_size, pairs, draw)
    if alike is not None:
        _, kind, count = np.unique(alike, return_inverse=True, return_counts=True)
        chunks.kind[:] = np.where(count[kind] > 1, kind, -1)  # most are alone, and need no look
    chunks.queue(np.lexsort((draw.permutation(len(documents)), _degrees(neighbours))))
    if how == "path":
        made = _path(chunks)
    elif how == "cluster":
        made = _clusters(chunks, iter(()))
    else:
        made = _mutual(chunks)
    return np.array(made, np.int64).reshape(-1, batch_size)


def _partners(
    documents: np.ndarray, alike: np.ndarray | None, batch_size: int, pairs: int, draw: np.random.Generator
) -> np.ndarray:
    """The other chunk of each chunk's pair, int32 [n], -1 for a chunk that is in none."""
    partner = np.full(len(documents), -1, np.int32)
    if len(documents) < batch_size:
        raise GroupingError(f"{len(documents)} chunks are too few for a batch of {batch_size}")
    if not pairs:
        return partner
    order = np.argsort(documents, kind="stable")
    starts = np.ones(len(order), bool)
    starts[1:] = documents[order[1:]] != documents[order[:-1]]
    place = np.arange(len(order))
    even = (place - np.maximum.accumulate(np.where(starts, place, 0))) % 2 == 0
    first = np.flatnonzero(even[:-1] & ~starts[1:])
    both = order[np.stack([first, first + 1])]
    if alike is not None:
        both = both[:, alike[both[0]] != alike[both[1]]]
    count = both.shape[1]
    batches = min(count // pairs, len(documents) // batch_size)
    if not batches:
        raise GroupingError(f"keep_document: a batch needs {pairs} pairs of chunks of one document; there are {count}")
    both = both[:, draw.choice(count, batches * pairs, replace=False)]
    partner[both[0]], partner[both[1]] = both[1], both[0]
    return partner


def _degrees(neighbours: np.ndarray) -> np.ndarray:
    degrees = (neighbours >= 0).sum(axis=1)
    for column in neighbours.T:
        degrees += np.bincount(column[column >= 0], minlength=len(degrees))
    return degrees


class _Chunks:
    """The chunks that no batch has yet, and the batch that is being made.

    Single numbers are read and written through memoryviews, several times as fast as through numpy.
    """

    def __init__(self, near: np.ndarray, similarity: np.ndarray, singles: int, pairs: int):
        self.near, self.similarity, self.singles, self.pairs = near, similarity, singles, pairs
        count = len(near)
        self.free = np.append(np.ones(count, bool), False)  # [-1], where there is no neighbour, is not free
        self.partner, self.kind = np.full(count, -1, np.int32), np.full(count, -1, np.int64)
        self._free, self._partner, self._kind = memoryview(self.free), memoryview(self.partner), memoryview(self.kind)
        self.made = array("i")
        self.begin()

    def queue(self, order: np.ndarray) -> None:
        """The order of chunks where no neighbour is left. Pairs, which stand at their earlier chunk, have their own."""
        partner = self.partner[order]
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        self._pairs_queue = deque(order[(partner >= 0) & (rank[order] < rank[partner])].tolist())
        self._singles_queue = deque(order[partner < 0].tolist())

    def begin(self) -> None:
        """Begin a batch."""
        self.batch: list[int] = []
        self.singles_left, self.pairs_left, self.kinds = self.singles, self.pairs, set()

    def add(self, chunk: int) -> bool:
        """Add a free chunk, with its partner, if that breaks no rule. A batch that is full is done."""
        if not self._free[chunk]:
            return False
        other, kind = self._partner[chunk], self._kind[chunk]
        if not (self.singles_left if other < 0 else self.pairs_left) or kind in self.kinds:
            return False
        if other < 0:
            self.singles_left -= 1
        elif self._kind[other] in self.kinds:
            return False
        else:
            self.pairs_left -= 1
        for one in (chunk,) if other < 0 else (chunk, other):
            self._free[one] = False
            self.batch.append(one)
            if self._kind[one] >= 0:
                self.kinds.add(self._kind[one])
        return True

    @property
    def full(self) -> bool:
        return not (self.singles_left or self.pairs_left)

    def add_next(self) -> bool:
        """Add the first pair of the queue, else the first single chunk. One that does not fit goes to the end."""
        queue = self._pairs_queue if self.pairs_left else self._singles_queue
        for _ in range(len(queue)):
            chunk = queue.popleft()
            if self._free[chunk]:
                if self.add(chunk):
                    return True
                queue.append(chunk)
        return False


def _path(chunks: _Chunks) -> array:
    last = -1
    while True:
        chunks.begin()
        while not chunks.full:
            row = chunks.near[last] if last >= 0 else np.empty(0, np.int32)
            # where none of all that are left fits, they have too few labels, or pairs, for another batch
            if not any(map(chunks.add, row[chunks.free[row]].tolist())) and not chunks.add_next():
                return chunks.made
            last = chunks.batch[-1]
        chunks.made.extend(chunks.batch)


def _clusters(chunks: _Chunks, starts: Iterator[Iterable[int]]) -> array:
    """Each start with its nearest; then, as long as there are batches, from the queue."""
    while True:
        chunks.begin()
        for start in starts:
            for chunk in start:
                chunks.add(chunk)
            if chunks.batch:
                break
        edge = list(chunks.batch)  # whose neighbours are considered next
        while not chunks.full:
            size = len(chunks.batch)
            candidates = chunks.near[edge].ravel()
            free = chunks.free[candidates]
            order = np.argsort(-chunks.similarity[edge].ravel()[free], kind="stable")
            for chunk in candidates[free][order].tolist():
                if chunks.add(chunk) and chunks.full:
                    break
            if size == len(chunks.batch) and not chunks.add_next():
                return chunks.made
            edge = chunks.batch[size:]
        chunks.made.extend(chunks.batch)


def _mutual(chunks: _Chunks) -> array:
    groups = _joined(chunks, *_mutual_edges(chunks.near, chunks.similarity))
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    size = chunks.singles + 2 * chunks.pairs
    complete = order[np.repeat(sizes == size, sizes)]
    chunks.free[complete] = False
    chunks.made.extend(complete.tolist())
    largest = np.argsort(-sizes, kind="stable")
    largest = largest[(sizes[largest] > 1) & (sizes[largest] < size)]
    return _clusters(chunks, (order[starts[one] : starts[one] + sizes[one]].tolist() for one in largest.tolist()))


def _mutual_edges(near: np.ndarray, similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two chunks of each edge between mutual neighbours, int32 [e] twice, by descending similarity."""
    found = []
    for start in range(0, len(near), ROWS_AT_A_TIME):
        block = near[start : start + ROWS_AT_A_TIME]
        row, column = np.nonzero(block > np.arange(start, start + len(block))[:, None])  # an edge once
        other = block[row, column]
        mutual = (near[other] == (row + start)[:, None]).any(axis=1)
        row, column = row[mutual], column[mutual]
        found.append(((row + start).astype(np.int32), other[mutual], similarity[start + row, column]))
    one, other, similar = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(-similar, kind="stable")
    return one[order], other[order]


def _joined(chunks: _Chunks, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The group of each chunk, int32 [n], once edges have joined what fits into a batch. Members of a group form a ring."""
    count = len(chunks.partner)
    paired = chunks.partner >= 0
    label = np.where(paired, np.minimum(np.arange(count), chunks.partner), np.arange(count)).astype(np.int32)
    ring = np.where(paired, chunks.partner, np.arange(count)).astype(np.int32)
    singles, pairs = (~paired).astype(np.int32), (paired & (label == np.arange(count))).astype(np.int32)
    kinds: dict[int, set[int]] = {}  # of a group's near-duplicates
    for chunk in np.flatnonzero(chunks.kind >= 0).tolist():
        kinds.setdefault(int(label[chunk]), set()).add(int(chunks.kind[chunk]))
    labels, rings, single, pair = map(memoryview, (label, ring, singles, pairs))
    for start in range(0, len(one), EDGES_AT_A_TIME):
        left, right = (part[start : start + EDGES_AT_A_TIME] for part in (one, other))
        a, b = label[left], label[right]
        fits = (a != b) & (singles[a] + singles[b] <= chunks.singles) & (pairs[a] + pairs[b] <= chunks.pairs)
        for x, y in zip(left[fits].tolist(), right[fits].tolist(), strict=True):
            into, gone = labels[x], labels[y]
            if into == gone or single[into] + single[gone] > chunks.singles or pair[into] + pair[gone] > chunks.pairs:
                continue
            if into in kinds and gone in kinds and not kinds[into].isdisjoint(kinds[gone]):
                continue
            if single[into] + 2 * pair[into] < single[gone] + 2 * pair[gone]:
                into, gone = gone, into
            if gone in kinds:
                kinds.setdefault(into, set()).update(kinds.pop(gone))
            single[into] += single[gone]
            pair[into] += pair[gone]
            member = gone
            while labels[member] != into:
                labels[member] = into
                member = rings[member]
            rings[into], rings[gone] = rings[gone], rings[into]
    return label
