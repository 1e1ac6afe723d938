"""Encoders: texts -> embeddings, in two steps, so that one shard is tokenised while another is in the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch

from revela.evaluation.dense import Dense
from revela.evaluation.store import Store
from revela.files import sha256_json
from revela.provenance import folder_sha256

if TYPE_CHECKING:
    from revela.retriever import Retriever
    from revela.study.layout import Layout
    from revela.study.settings import Compute
    from revela.study.system import Encoder as OffTheShelf
    from revela.study.system import Trained, Untrained

Kind = Literal["query", "passage"]


class Encoder(Protocol):
    """`embed(prepare(texts, kind))` are the embeddings [n, d] of n texts."""

    def prepare(self, texts: list[str], kind: Kind) -> Any:
        """The step that needs no model. It runs in a thread beside `embed`."""
        ...

    def embed(self, prepared: Any) -> np.ndarray:
        """The step that needs the model."""
        ...


class RetrieverEncoder:
    """A retriever of this project. The caller adds prefixes."""

    def __init__(self, retriever: Retriever, batch_tokens: int | None = None):
        self.retriever, self.batch_tokens = retriever, batch_tokens

    def prepare(self, texts: list[str], kind: Kind) -> Any:
        return self.retriever.prepare(texts, kind)

    def embed(self, prepared: Any) -> np.ndarray:
        return self.retriever.embed(prepared, batch_tokens=self.batch_tokens)


class Replicas:
    """Copies of one encoder, each on its own GPU. Each encodes a share of the texts."""

    def __init__(self, encoders: Sequence[Encoder]):
        self.encoders = encoders

    def prepare(self, texts: list[str], kind: Kind) -> tuple[int, list[Any]]:
        count = len(self.encoders)
        shares = [texts[first::count] for first in range(count)]
        return len(texts), [
            encoder.prepare(share, kind) for encoder, share in zip(self.encoders, shares, strict=True) if share
        ]

    def embed(self, prepared: tuple[int, list[Any]]) -> np.ndarray:
        size, shares = prepared
        with ThreadPoolExecutor(len(shares)) as pool:
            parts = list(pool.map(lambda encoder, share: encoder.embed(share), self.encoders, shares))
        vectors = np.empty((size, parts[0].shape[1]), parts[0].dtype)
        for first, part in enumerate(parts):
            vectors[first :: len(self.encoders)] = part
        return vectors


def load_dense(
    system: Trained | Untrained | OffTheShelf,
    load_encoder: Callable[[str], Encoder],
    folders: Sequence[str],
    layout: Layout,
    compute: Compute,
) -> Dense:
    """The ranker of a system whose model runs here: an encoder on each GPU, or on the CPU if there is none.

    With `compute.store_embeddings` embeddings are kept on disk, in a folder named by all that they depend on besides
    the text.

    Args:
        load_encoder: device -> the encoder on it.
        folders: What the encoder is loaded from.
    """
    devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]
    how = system.model_dump(include={"max_length", "batch_tokens", "pooling"}) | {"devices": devices}
    encoders = [load_encoder(device) for device in devices]
    encoder: Encoder = Replicas(encoders) if len(encoders) > 1 else encoders[0]
    if compute.store_embeddings:
        key = sha256_json([how, *map(folder_sha256, folders)])[:16]
        encoder = Store(encoder, Path(layout.embeddings(system.name), key))
    return Dense(
        system.name,
        encoder,
        shard_documents=compute.shard_documents,
        device=devices[0],
        identity=sha256_json(how),
        **system.model_dump(include={"query_prefix", "passage_prefix", "passage_prefixes", "similarity"}),
    )
