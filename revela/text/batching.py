"""Chunks -> batches: documents form groups, their chunks are interleaved, and every B chunks form a batch (section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, zip_longest
from typing import TypeVar

Chunk = TypeVar("Chunk")


def interleave(documents: Iterable[list[Chunk]], group_size: int) -> Iterator[Chunk]:
    """The chunks of documents in the order d11, d21, .., dn1, d12, d22, .. within each group of n documents.

    A document without further chunks is passed over. Raises ValueError if the group size is below 1.

    >>> list(interleave([["a1", "a2", "a3"], ["b1"], ["c1", "c2"]], group_size=2))
    ['a1', 'b1', 'a2', 'a3', 'c1', 'c2']
    """
    if group_size < 1:
        raise ValueError(f"group_size must be at least 1, got {group_size}")
    documents = iter(documents)
    absent = object()
    while group := list(islice(documents, group_size)):
        for layer in zip_longest(*group, fillvalue=absent):
            yield from (chunk for chunk in layer if chunk is not absent)


def batches(chunks: Iterable[Chunk], size: int) -> Iterator[list[Chunk]]:
    """Consecutive chunks in lists of `size`. A shorter rest is left out.

    >>> list(batches("abcde", 2))
    [['a', 'b'], ['c', 'd']]
    """
    chunks = iter(chunks)
    while len(batch := list(islice(chunks, size))) == size:
        yield batch
