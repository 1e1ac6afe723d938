"""Dense rankers: an encoder of queries and documents, and exact search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from revela.evaluation import EvaluationError
from revela.evaluation.search import search
from revela.evaluation.workers import embeddings

if TYPE_CHECKING:
    from revela.evaluation.encoders import Encoder
    from revela.evaluation.ranking import Ranking
    from revela.evaluation.tasks import Part
    from revela.evaluation.workers import Workers


class Dense:
    """Ranks by the inner product, or the cosine, of a query's embedding and a document's."""

    def __init__(
        self,
        name: str,
        encoder: Encoder | Workers,
        *,
        shard_documents: int,
        query_prefix: str = "",
        passage_prefix: str = "",
        passage_prefixes: Mapping[str, str] | None = None,
        similarity: Literal["dot", "cosine"] = "dot",
        device: str = "cpu",
        identity: str = "",
    ):
        """shard_documents: different texts that are encoded and scored at a time.

        passage_prefixes: part -> its passage prefix, where it differs. device: where scores are computed.
        identity: what distinguishes encoders of the same model.
        """
        self.name, self.encoder, self.identity = name, encoder, identity
        self.shard_documents, self.similarity, self.device = shard_documents, similarity, device
        self.query_prefix, self.passage_prefix = query_prefix, passage_prefix
        self.passage_prefixes = passage_prefixes or {}

    def search(self, part: Part, top_k: int, state: Path | None = None) -> Iterator[tuple[str, Ranking]]:
        prefix = self.query_prefix
        if "{task}" in prefix:
            if not part.instruction:
                raise EvaluationError(f"{part.name}: the prefix {prefix!r} needs an instruction in benchmarks.tsv")
            prefix = prefix.replace("{task}", part.instruction)
        # White space around prefix and text is removed, as in mteb's RepLLaMA wrapper, which the paper used.
        queries = [(prefix + text).strip() for text in part.queries.values()]
        size = self.shard_documents
        shards = (queries[first : first + size] for first in range(0, len(queries), size))
        rankings = search(
            np.concatenate(list(embeddings(self.encoder, shards, "query"))),
            part.corpus,
            self.encoder,
            top_k=top_k,
            shard_documents=self.shard_documents,
            prefix=self.passage_prefixes.get(part.name, self.passage_prefix),
            similarity=self.similarity,
            device=self.device,
            description=part.name,
            state=state,
            identity=self.identity,
        )
        return zip(part.queries, rankings, strict=True)
