"""Encoders: texts -> embeddings, in two halves, so that one shard is tokenised while another is in the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from revela.retriever import Retriever

Kind = Literal["query", "passage"]


class Encoder(Protocol):
    """`embed(prepare(texts, kind))` are the embeddings [n, d] of n texts."""

    def prepare(self, texts: list[str], kind: Kind) -> Any:
        """What needs no model. It runs in a thread beside `embed`."""
        ...

    def embed(self, prepared: Any) -> np.ndarray:
        """What needs the model."""
        ...


class RetrieverEncoder:
    """A retriever of this project. Prefixes are put in front by the caller."""

    def __init__(self, retriever: Retriever, batch_tokens: int | None = None):
        self.retriever, self.batch_tokens = retriever, batch_tokens

    def prepare(self, texts: list[str], kind: Kind) -> Any:
        return self.retriever.prepare(texts, kind)

    def embed(self, prepared: Any) -> np.ndarray:
        return self.retriever.embed(prepared, batch_tokens=self.batch_tokens)


class SentenceTransformerEncoder:
    """A model of sentence-transformers, which tokenises for itself."""

    def __init__(self, model: SentenceTransformer):
        self.model = model

    def prepare(self, texts: list[str], kind: Kind) -> list[str]:
        return texts

    def embed(self, prepared: list[str]) -> np.ndarray:
        return self.model.encode(prepared, show_progress_bar=False)


class Replicas:
    """Copies of one encoder, each on a GPU of its own, among which the texts are dealt out."""

    def __init__(self, encoders: Sequence[Encoder]):
        self.encoders = encoders

    def prepare(self, texts: list[str], kind: Kind) -> tuple[int, list[Any]]:
        count = len(self.encoders)
        hands = [texts[first::count] for first in range(count)]
        return len(texts), [
            encoder.prepare(hand, kind) for encoder, hand in zip(self.encoders, hands, strict=True) if hand
        ]

    def embed(self, prepared: tuple[int, list[Any]]) -> np.ndarray:
        size, hands = prepared
        with ThreadPoolExecutor(len(hands)) as pool:
            parts = list(pool.map(lambda encoder, hand: encoder.embed(hand), self.encoders, hands))
        vectors = np.empty((size, parts[0].shape[1]), parts[0].dtype)
        for first, part in enumerate(parts):
            vectors[first :: len(self.encoders)] = part
        return vectors


def prepared_ahead(encoder: Encoder, shards: Iterable[list[str]], kind: Kind) -> Iterator[Any]:
    """Each shard as the encoder prepares it, the next one in a thread while this one is in use."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for shard in shards:
            coming = pool.submit(encoder.prepare, shard, kind)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()
