"""Which chunks are near-duplicates: MinHash signatures of datasketch, bands of them, and components of what agrees.

Two chunks that are almost the same make the loss of their batch trivial, so a batch holds one of them at most. As in
Lee et al. 2022 (Deduplicating Training Data Makes Language Models Better), the chunks are compared by the Jaccard
similarity of their 5-word shingles, which MinHash estimates.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from revela.grouping import GroupingError

WORDS = 5  # of a shingle
HASHES = 128  # of a signature; the estimate's standard error is 0.04 at most
# A pair that is missed counts nine times a pair that is compared in vain: the comparison is cheap and follows anyway.
WEIGHTS = (0.1, 0.9)
PAIRS_AT_A_TIME = 2**17

_WORD = re.compile(r"\w+")


def near_duplicates(texts: Iterable[str], threshold: float, seed: int) -> np.ndarray:
    """Label the chunks so that near-duplicates have the same label.

    Two chunks are near-duplicates where the estimated similarity is at least the threshold, and so are two that a
    chain of such pairs links. Chunks that share the hashes of a band are compared with the first and the previous one
    of the band, so that a text that is there a million times costs a million comparisons. What was read is a
    signature of 512 bytes a chunk.

    Args:
        texts: The chunks.
        threshold: Of the Jaccard similarity, above 0 and at most 1.
        seed: Of the hash functions.

    Returns:
        Labels int64 [n]: the number of the first chunk of each kind.

    Raises:
        GroupingError: datasketch is not installed.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ModuleNotFoundError:
        raise GroupingError("near-duplicates are found by datasketch: pip install datasketch") from None
    sketches = MinHash.generator(map(_shingles, texts), num_perm=HASHES, seed=seed, hashfunc=zlib.crc32)
    signatures = np.fromiter((sketch.hashvalues for sketch in sketches), np.dtype((np.uint32, HASHES)))
    count = len(signatures)
    lsh = MinHashLSH(threshold, HASHES, weights=WEIGHTS)  # for its choice of bands
    alike = np.zeros((2, 0), np.int64)
    for band in range(lsh.b):
        pairs = _candidates(signatures[:, band * lsh.r : (band + 1) * lsh.r], seed)
        agree = [
            (signatures[first] == signatures[second]).mean(axis=1) >= threshold
            for first, second in (
                pairs[:, start : start + PAIRS_AT_A_TIME] for start in range(0, pairs.shape[1], PAIRS_AT_A_TIME)
            )
        ]
        alike = np.concatenate([alike, pairs[:, np.concatenate(agree)]] if agree else [alike], axis=1)
    graph = coo_array((np.ones(alike.shape[1], bool), (alike[0], alike[1])), shape=(count, count))
    components = connected_components(graph, directed=False)[1]
    _, first, label = np.unique(components, return_index=True, return_inverse=True)
    return first[label].astype(np.int64)


def _shingles(text: str) -> Iterator[bytes]:
    words = _WORD.findall(text.lower()) or [text.strip()]
    for start in range(max(1, len(words) - WORDS + 1)):
        yield " ".join(words[start : start + WORDS]).encode()


def _candidates(hashes: np.ndarray, seed: int) -> np.ndarray:
    """Pairs [2, p] of chunks with the same hashes [n, r], each with the first and the previous of its kind."""
    factors = np.random.default_rng(seed).integers(2**63, size=hashes.shape[1], dtype=np.uint64) | np.uint64(1)
    keys = np.zeros(len(hashes), np.uint64)
    for column, factor in zip(hashes.T, factors, strict=True):
        keys = (keys ^ column) * factor
        keys ^= keys >> np.uint64(29)
    order = np.argsort(keys, kind="stable")
    place = np.arange(len(order))
    starts = np.ones(len(order), bool)
    starts[1:] = keys[order[1:]] != keys[order[:-1]]
    begin = np.maximum.accumulate(np.where(starts, place, 0))
    second = np.flatnonzero(~starts)
    third = second[begin[second] != second - 1]  # whose previous one is not the first
    pairs = np.concatenate([[begin[second], second], [third - 1, third]], axis=1)
    return order[pairs]
