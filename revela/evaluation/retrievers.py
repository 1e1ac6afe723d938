"""Retrievers of this project: trained cells, and backbones before training, which are used as a cell is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from revela.evaluation.encoders import DTYPES, RetrieverEncoder, load_dense
from revela.retriever import Retriever

if TYPE_CHECKING:
    from revela.evaluation.dense import Dense
    from revela.study.layout import Layout
    from revela.study.settings import Compute
    from revela.study.system import Trained, Untrained


def load(system: Trained | Untrained, layout: Layout, compute: Compute) -> Dense:
    """The ranker of a cell or of a backbone. Embeddings have unit length. RetrieverError if there is no such model."""
    if system.kind == "trained":
        folder, load_encoder = layout.cell_retriever(system.cell), _trained
    else:
        [folder], load_encoder = system.folders(layout), _untrained
    return load_dense(system, partial(load_encoder, system, folder), [folder], layout, compute)


def _trained(system: Trained, folder: str, device: str) -> RetrieverEncoder:
    # The ranker adds the prefixes of the study, so those that the retriever was saved with are taken away.
    options = {"query_prefix": "", "passage_prefix": "", "max_length": system.max_length}
    options["dtype"] = DTYPES[system.precision]
    return RetrieverEncoder(Retriever.load(folder, device=device, **options).merge(), system.batch_tokens)


def _untrained(system: Untrained, folder: str, device: str) -> RetrieverEncoder:
    """Pooled at EOS and scaled to unit length, which is how a cell is built."""
    options = {"max_length": system.max_length, "dtype": DTYPES[system.precision]}
    retriever = Retriever.from_backbone(folder, **options)
    return RetrieverEncoder(retriever.to(device), system.batch_tokens)
