"""BM25."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from revela.evaluation import EvaluationError

if TYPE_CHECKING:
    from revela.evaluation.ranking import Ranking
    from revela.evaluation.tasks import Corpus, Part
    from revela.study.layout import Layout
    from revela.study.settings import Compute
    from revela.study.system import Bm25


def load(system: Bm25, layout: Layout, compute: Compute) -> BM25:
    """The ranker. It needs no model, so nothing is read."""
    return BM25.of(system)


class BM25:
    """BM25 as in bm25s (method lucene, k1 1.5, b 0.75) on stemmed English words of two letters or more.

    A document that shares no word with the query has the score 0 and is not retrieved. Title and text are one
    text: whatever stands between them is no part of a word.

    With `weigh_queries` the words of a query are weighed as those of a document are: query-side BM25, which the
    authors of BRIGHT used (k1 0.9, b 0.4; Ge, Sharifymoghaddam and Lin 2025, arXiv 2509.02558). It dampens words that
    occur often in a query, and BRIGHT's queries are long.
    """

    def __init__(self, name: str = "bm25", *, k1: float = 1.5, b: float = 0.75, weigh_queries: bool = False):
        self.name, self.k1, self.b, self.weigh_queries = name, k1, b, weigh_queries

    @classmethod
    def of(cls, system: Bm25) -> BM25:
        """With the settings of a study's system."""
        return cls(system.name, k1=system.k1, b=system.b, weigh_queries=system.weigh_queries)

    def search(self, part: Part, top_k: int, state: Path | None = None) -> Iterator[tuple[str, Ranking]]:
        index = Index(self, (text for _, text in part.corpus), part.name)
        words = index.tokenizer.streaming_tokenize(part.queries.values(), update_vocab=False, allow_empty=False)
        for query, ids in zip(part.queries, words, strict=True):
            yield query, best_documents(part.corpus, index.scores(ids), top_k)


class Index:
    """Texts as BM25 has indexed them. `documents` are the ids of their words."""

    def __init__(self, ranker: BM25, texts: Iterable[str], name: str):
        """name: of the texts, for the EvaluationError where none of them has a word."""
        import bm25s
        import Stemmer
        from bm25s.stopwords import STOPWORDS_EN
        from bm25s.tokenization import Tokenizer

        self.tokenizer = Tokenizer(
            lower=True,
            splitter=r"(?u)\b\w\w+\b",
            stopwords=list(STOPWORDS_EN),  # Lucene's 33
            stemmer=Stemmer.Stemmer("english"),
        )
        self.documents: list[list[int]] = list(self.tokenizer.streaming_tokenize(texts, allow_empty=False))
        if not any(self.documents):
            raise EvaluationError(f"{name}: no document has a word that BM25 could index")
        self.ranker = ranker
        self._index = bm25s.BM25(method="lucene", k1=ranker.k1, b=ranker.b)
        self._index.index((self.documents, self.tokenizer.get_vocab_dict()), show_progress=False)
        self._length = np.mean([len(document) for document in self.documents])

    def scores(self, words: list[int]) -> np.ndarray:
        """Scores [n] of all documents for a query of these words."""
        return self._weighed(words) if self.ranker.weigh_queries else self._index.get_scores_from_ids(words)

    def _weighed(self, words: list[int]) -> np.ndarray:
        """Scores [n] of all documents: sums over words of the weight in the query times that in the document."""
        weights, documents, starts = (self._index.scores[name] for name in ("data", "indices", "indptr"))
        size, k1, b = self._index.scores["num_docs"], self.ranker.k1, self.ranker.b
        words, counts = np.unique(np.array(words, np.int64), return_counts=True)
        having = starts[words + 1] - starts[words]
        idf = np.log(1 + (size - having + 0.5) / (having + 0.5))
        in_query = idf * counts / (counts + k1 * (1 - b + b * counts.sum() / self._length))
        scores = np.zeros(size, np.float32)
        for word, weight in zip(words, in_query, strict=True):
            entries = slice(starts[word], starts[word + 1])
            scores[documents[entries]] += weight * weights[entries]
        return scores


def best_documents(corpus: Corpus, scores: np.ndarray, top_k: int) -> Ranking:
    """The best documents by their scores [n], among those with a positive one; ties by descending document id."""
    documents = np.flatnonzero(scores > 0)
    if len(documents) > top_k:
        threshold = np.partition(scores[documents], -top_k)[-top_k]
        documents = documents[scores[documents] >= threshold]
    order = np.lexsort((-corpus.index.rank[documents], -scores[documents]))[:top_k]
    documents = documents[order]
    return list(zip(corpus.index.ids[documents].tolist(), scores[documents].tolist(), strict=True))
