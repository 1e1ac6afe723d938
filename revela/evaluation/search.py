"""Exact search by streaming: a shard of the corpus is encoded, scored against all queries, and forgotten.

Memory holds one shard's embeddings, one block of scores, and the k best of each query, however long the corpus is. A
ranking is ordered by score and then by descending document id, as trec_eval orders ties. This is a total order, so the
size of the shards makes no difference. Each different text is encoded and scored once, so that documents with the same
text tie exactly.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from tqdm import tqdm

from revela.evaluation import EvaluationError
from revela.evaluation.workers import embeddings
from revela.files import atomic_write

if TYPE_CHECKING:
    from revela.evaluation.encoders import Encoder
    from revela.evaluation.ranking import Ranking
    from revela.evaluation.tasks import Corpus
    from revela.evaluation.workers import Workers

SCORES_AT_A_TIME = 2**26  # 256 MB


def search(
    queries: np.ndarray,
    corpus: Corpus,
    encoder: Encoder | Workers,
    *,
    top_k: int,
    shard_documents: int,
    prefix: str = "",
    similarity: Literal["dot", "cosine"] = "dot",
    device: torch.device | str | None = None,
    description: str | None = None,
    state: Path | None = None,
    identity: str = "",
) -> Iterator[Ranking]:
    """The `top_k` best documents of each query.

    Args:
        queries: Embeddings [q, d].
        corpus: The documents.
        encoder: Makes embeddings of passages.
        shard_documents: Different texts encoded at a time.
        prefix: Put before each document. White space around the two is then removed.
        device: Where scores are computed; the CPU by default.
        description: Shown in front of the progress bar.
        state: A file that keeps the k best so far; beside it stand shards that several processes have encoded and that
            wait for their turn. A search that was stopped resumes after its last complete shard, if
            queries, documents and the other arguments are the same, and finds the same to the last bit.
        identity: What distinguishes this encoder from others that embed the queries alike, such as its length.

    Yields:
        A ranking for each query, in order.

    Raises:
        EvaluationError: An embedding that is not finite.
    """
    duplicates = Duplicates(corpus)
    queries = _scaled(queries, similarity, "query number {} (from 0)".format)
    best = TopK(queries, top_k, device)
    mark = _mark(queries, corpus, top_k, shard_documents, prefix, similarity, identity)
    if state:
        best.load(state, mark)
    texts = ((prefix + text).strip() for text in islice(corpus.unique_texts(), best.seen, None))
    shards = iter(lambda: list(islice(texts, shard_documents)), [])
    bar = tqdm(
        total=corpus.index.unique_texts,
        initial=best.seen,
        desc=description,
        unit=" documents",
        # in a job's log: a line now and then, and none of a short job
        **({} if sys.stderr.isatty() else {"mininterval": 60, "delay": 60}),
    )
    with bar:
        name = lambda number, first=best.seen: f"{mark}-{first + number * shard_documents}.npy"
        for vectors in embeddings(encoder, shards, "passage", name, state and state.parent):
            shard = slice(best.seen, best.seen + len(vectors))
            which = lambda row, first=best.seen: f"document {duplicates.id(first + row)!r}"
            best.add(_scaled(vectors, similarity, which), duplicates.rank[shard])
            if state:
                best.save(state, mark)
            bar.update(len(vectors))
    for scores, ranks in zip(*best.result(), strict=True):
        yield duplicates.ranking(scores, ranks, top_k)


def _mark(queries: np.ndarray, corpus: Corpus, *settings: object) -> str:
    """A hash of all that determines the k best. The queries' embeddings stand for the model."""
    digest = hashlib.blake2b(repr((queries.shape, corpus.index.digest, settings)).encode(), digest_size=16)
    digest.update(queries.tobytes())
    return digest.hexdigest()


class TopK:
    """The k best items of each query among all that were added, by score and then by rank.

    A score and a rank are packed into one integer whose order is theirs, so that the k best are the k largest.
    """

    def __init__(self, queries: np.ndarray, k: int, device: torch.device | str | None = None):
        """queries: [q, d]; k: items kept."""
        self.queries, self.k, self.seen = torch.from_numpy(queries).to(device), k, 0
        self.best = torch.empty((len(queries), 0), dtype=torch.int64, device=device)  # [q, items kept], in any order
        self._room = torch.empty(0, device=device)  # for scores; allocating it for each shard would cost as much again

    def add(self, vectors: np.ndarray, ranks: np.ndarray) -> None:
        """Consider vectors [n, d] of distinct ranks [n], 0 <= rank < 2^31, by their inner products with the queries."""
        vectors = torch.from_numpy(vectors).to(self.queries)
        ranks = torch.from_numpy(ranks).to(self.best)
        while len(vectors):
            # As many as were seen before, so that only few of them, about k log 2, are among the k best so far.
            size = min(max(self.seen, 2 * self.k), len(vectors))
            self._add(vectors[:size], ranks[:size])
            self.seen += size
            vectors, ranks = vectors[size:], ranks[size:]

    def _add(self, vectors: torch.Tensor, ranks: torch.Tensor) -> None:
        block = min(max(1, SCORES_AT_A_TIME // len(vectors)), len(self.queries))
        if len(self._room) < block * len(vectors):
            self._room = vectors.new_empty(block * len(vectors))
        merged = []
        for best, queries in zip(self.best.split(block), self.queries.split(block), strict=True):
            room = self._room[: len(queries) * len(vectors)].view(len(queries), len(vectors))
            merged.append(self._merge(best, torch.mm(queries, vectors.T, out=room), ranks))
        self.best = torch.cat(merged)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores [q, k] in float32 and ranks [q, k], best first."""
        scores, ranks = _unpack(self.best.sort(descending=True).values)
        return scores.cpu().numpy(), ranks.cpu().numpy()

    def save(self, path: Path, mark: str) -> None:
        """Write the best items so far to a file."""
        with atomic_write(path) as partial, open(partial, "wb") as file:
            np.savez(file, best=self.best.cpu().numpy(), mark=mark, seen=self.seen)

    def load(self, path: Path, mark: str) -> None:
        """Resume from a file, if it exists and belongs to the same search."""
        if not path.is_file():
            return
        with np.load(path) as saved:
            if str(saved["mark"]) != mark:
                print(f"{path}: of another search, so this one starts anew", file=sys.stderr)
                return
            self.best, self.seen = torch.from_numpy(saved["best"]).to(self.best), int(saved["seen"])

    def _merge(self, best: torch.Tensor, scores: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
        """The k best of `best` [q, kept] and of items with scores [q, n]."""
        # k kept items are better than an item below this score
        threshold = _unpack(best.amin(1, keepdim=True))[0] if best.shape[1] == self.k else -torch.inf
        left = _true(scores >= threshold)
        query, item = left // scores.shape[1], left % scores.shape[1]
        packed = _pack(scores.flatten()[left], ranks[item])
        counts = torch.bincount(query, minlength=len(scores))
        place = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
        table = packed.new_full((len(scores), int(counts.max())), torch.iinfo(torch.int64).min)
        table[query, place] = packed
        both = torch.cat([best, table], dim=1)
        return both.topk(min(self.k, both.shape[1]), sorted=False).values


def _true(mask: torch.Tensor) -> torch.Tensor:
    """Where a mask is true, as places in it flattened. On a CPU numpy is eight times as fast as torch at this."""
    return (
        torch.from_numpy(np.flatnonzero(mask.numpy())) if mask.device.type == "cpu" else mask.flatten().nonzero()[:, 0]
    )


def _pack(scores: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """Scores in float32 and ranks as int64 in the order (score, rank). -0.0 is 0.0, as it is to trec_eval."""
    return _ordered((scores + 0.0).view(torch.int32)).to(torch.int64) << 32 | ranks


def _unpack(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(scores, ranks) of what `_pack` packed."""
    return _ordered((packed >> 32).to(torch.int32)).view(torch.float32), packed & 0xFFFFFFFF


def _ordered(bits: torch.Tensor) -> torch.Tensor:
    """Bits of float32 as integers in the order of the floats, or back: the map is its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


class Duplicates:
    """Documents with the same text, for each different text of a corpus.

    rank: [texts] the highest rank of a text's documents. The k best texts, by score and this rank, contain the k best
        documents: any other document comes after one document of each of these texts.
    """

    def __init__(self, corpus: Corpus):
        index = corpus.index
        self._ids, self._document_rank, self._text = index.ids, index.rank, index.text
        self._documents = np.lexsort((-index.rank, index.text))  # by text, highest rank first
        self._count = np.bincount(index.text)
        self._start = np.cumsum(self._count) - self._count
        self._by_rank = np.argsort(index.rank)
        self.rank = index.rank[self._documents[self._start]]

    def id(self, text: int) -> str:
        """The id of a document with the text of this number."""
        return str(self._ids[self._documents[self._start[text]]])

    def ranking(self, scores: np.ndarray, ranks: np.ndarray, top_k: int) -> Ranking:
        """The best documents, given the best texts of a query: their scores [k] and ranks [k], best first."""
        texts = self._text[self._by_rank[ranks]]
        counts = self._count[texts]
        if counts.max(initial=1) == 1:  # texts are in the order of their documents already
            documents = self._documents[self._start[texts]][:top_k]
        else:
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            documents = self._documents[np.repeat(self._start[texts], counts) + within]
            scores = np.repeat(scores, counts)
            order = np.lexsort((-self._document_rank[documents], -scores))[:top_k]
            documents, scores = documents[order], scores[order]
        return list(zip(self._ids[documents].tolist(), scores[: len(documents)].tolist(), strict=True))


def _scaled(vectors: np.ndarray, similarity: str, name: Callable[[int], str]) -> np.ndarray:
    """Embeddings [n, d] as contiguous float32, of unit length for cosine; EvaluationError where one is not finite."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise EvaluationError(f"the embedding of {name(int(np.argmin(finite)))} is not finite")
    if similarity == "cosine":
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors
