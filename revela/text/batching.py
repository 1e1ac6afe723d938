"""Chunks -> batches: documents form groups, their chunks are interleaved, and every B chunks form a batch (section 4.1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice, zip_longest
from typing import TypeVar

Chunk = TypeVar("Chunk")


def interleave(documents: Iterable[list[Chunk]], group_size: int, *, refill: bool = False) -> Iterator[Chunk]:
    """The chunks of documents in the order d11, d21, .., dn1, d12, d22, .. within each group of n documents.

    A document without further chunks is passed over until the group ends, or with `refill` the next document takes its
    place, so that chunks of n documents alternate until the last. Raises ValueError if the group size is below 1.

    >>> list(interleave([["a1", "a2", "a3"], ["b1"], ["c1", "c2"]], group_size=2))
    ['a1', 'b1', 'a2', 'a3', 'c1', 'c2']
    >>> list(interleave([["a1", "a2", "a3"], ["b1"], ["c1", "c2"]], group_size=2, refill=True))
    ['a1', 'b1', 'a2', 'c1', 'a3', 'c2']
    """
    if group_size < 1:
        raise ValueError(f"group_size must be at least 1, got {group_size}")
    if refill:
        yield from _refilled(documents, group_size)
        return
    documents = iter(documents)
    absent = object()
    while group := list(islice(documents, group_size)):
        for layer in zip_longest(*group, fillvalue=absent):
            yield from (chunk for chunk in layer if chunk is not absent)


def _refilled(documents: Iterable[list[Chunk]], group_size: int) -> Iterator[Chunk]:
    waiting = map(iter, documents)
    places = deque(islice(waiting, group_size))
    while places:
        document = places.popleft()
        for chunk in islice(document, 1):
            yield chunk
            places.append(document)
            break
        else:
            places.extendleft(islice(waiting, 1))


def batches(chunks: Iterable[Chunk], size: int) -> Iterator[list[Chunk]]:
    """Consecutive chunks in lists of `size`. A shorter rest is left out.

    >>> list(batches("abcde", 2))
    [['a', 'b'], ['c', 'd']]
    """
    chunks = iter(chunks)
    while len(batch := list(islice(chunks, size))) == size:
        yield batch
