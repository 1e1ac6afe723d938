"""Encoders: texts -> embeddings, in two steps, so that one shard is tokenised while another is in the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch

from revela.evaluation.dense import Dense
from revela.evaluation.store import Store
from revela.evaluation.workers import Workers
from revela.files import sha256_json
from revela.provenance import folder_sha256

if TYPE_CHECKING:
    from revela.retriever import Retriever
    from revela.study.layout import Layout
    from revela.study.settings import Compute
    from revela.study.system import Encoder as OffTheShelf
    from revela.study.system import Trained, Untrained

Kind = Literal["query", "passage"]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "stored": "auto"}  # of weights, by a system's precision


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


def load_dense(
    system: Trained | Untrained | OffTheShelf,
    load_encoder: Callable[[str], Encoder],
    folders: Sequence[str],
    layout: Layout,
    compute: Compute,
) -> Dense:
    """The ranker of a system whose model runs here, on a GPU, or on the CPU if there is none.

    Several GPUs, or the `evaluation_processes` of a machine without, get a process each, which loads the system as this
    one would with its GPU alone.

    With `compute.store_embeddings` embeddings are kept on disk, in a folder named by all that they depend on besides
    the text.

    Args:
        load_encoder: device -> the encoder on it.
        folders: What the encoder is loaded from.
    """
    gpus = torch.cuda.device_count()
    device = "cuda" if gpus else "cpu"
    how = system.model_dump(include={"max_length", "batch_tokens", "pooling", "precision"}) | {"device": device}
    encoder: Encoder | Workers
    if gpus > 1 or (not gpus and compute.evaluation_processes > 1):
        alone = compute.model_copy(update={"evaluation_processes": 1})
        encoder = Workers((system, layout, alone), _environments(gpus, compute.evaluation_processes))
    else:
        encoder = load_encoder(device)
    if compute.store_embeddings and not isinstance(encoder, Workers):  # each process keeps what it encodes
        key = sha256_json([how, *map(folder_sha256, folders)])[:16]
        encoder = Store(encoder, Path(layout.embeddings(system.name), key))
    return Dense(
        system.name,
        encoder,
        shard_documents=compute.shard_documents,
        device=device,
        identity=sha256_json(how),
        **system.model_dump(include={"query_prefix", "passage_prefix", "passage_prefixes", "similarity"}),
    )


def _environments(gpus: int, processes: int) -> list[dict[str, str]]:
    """The variables of each process: one of this process's GPUs, or its share of the CPU's threads."""
    if gpus:
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in (named.split(",") if named else map(str, range(gpus)))]
    threads = str(max(1, torch.get_num_threads() // processes))
    return [{"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}] * processes
