"""Encoders that others trained, read as their rows of models.tsv say."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from revela.evaluation import EvaluationError
from revela.evaluation.encoders import DTYPES, Kind, RetrieverEncoder, load_dense
from revela.retriever import Retriever, load_adapter

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from revela.evaluation.dense import Dense
    from revela.study.layout import Layout
    from revela.study.settings import Compute
    from revela.study.system import Encoder


class SentenceTransformerEncoder:
    """A model of sentence-transformers, which does its own tokenising."""

    def __init__(self, model: SentenceTransformer):
        self.model = model

    def prepare(self, texts: list[str], kind: Kind) -> list[str]:
        return texts

    def embed(self, prepared: list[str]) -> np.ndarray:
        return self.model.encode(prepared, show_progress_bar=False)


def load(system: Encoder, layout: Layout, compute: Compute) -> Dense:
    """The ranker of an encoder. Without a pooling it is read as its sentence-transformers folder says.

    Raises EvaluationError where it has neither, and RetrieverError for a model that cannot be loaded.
    """
    folders = system.folders(layout)
    if not system.pooling and not Path(folders[0], "modules.json").is_file():
        raise EvaluationError(f"{folders[0]}: no modules.json, so models.tsv must give the pooling of {system.name}")
    load_encoder = _as_the_row_says if system.pooling else _as_its_folder_says
    return load_dense(system, partial(load_encoder, system, folders), folders, layout, compute)


def _as_its_folder_says(system: Encoder, folders: list[str], device: str) -> SentenceTransformerEncoder:
    from sentence_transformers import SentenceTransformer

    options = {"device": device, "local_files_only": True, "model_kwargs": {"dtype": DTYPES[system.precision]}}
    model = SentenceTransformer(folders[0], **options)
    model.max_seq_length = min(model.max_seq_length or system.max_length, system.max_length)
    return SentenceTransformerEncoder(model)


def _as_the_row_says(system: Encoder, folders: list[str], device: str) -> RetrieverEncoder:
    options = {"pooling": system.pooling, "normalize": False, "dtype": DTYPES[system.precision]}
    retriever = Retriever.from_backbone(folders[-1], max_length=system.max_length, **options)
    if system.base:  # the folder before it holds the adapter
        retriever.backbone = load_adapter(retriever.backbone, folders[0])
    return RetrieverEncoder(retriever.merge().to(device), system.batch_tokens)
