"""Systems: whatever answers queries with ranked documents. A type a kind, which says what its rankings depend on.

A system's name is its path in results: a cell's path, `untrained/{model}` for a backbone as it came, or the name of a
row of models.tsv. `Study.system` makes the system of a name. Each type names the module that loads it, so that a ranking
is made again when that code changes, and not when another type's does.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from revela.study.base import Strict
from revela.study.cell import Cell
from revela.study.layout import Layout

UNTRAINED = "untrained/"
Pooling = Literal["eos", "mean", "cls"]  # each is a function in `revela.method.pooling`
Precision = Literal["bf16", "fp32"]


class _System(Strict):
    """What all systems share."""

    module: ClassVar[str]  # has `load(system, layout, compute)`, which returns a `revela.evaluation.ranking.Ranker`
    gpu: ClassVar[bool] = True  # whether a job that runs it asks for one
    network: ClassVar[bool] = False
    name: str

    @property
    def models(self) -> list[str]:
        """The models of `resources/models` that it is made of; the first one's size decides what it costs."""
        return []

    def folders(self, layout: Layout) -> list[str]:
        """What it is loaded from."""
        return [layout.model(model) for model in self.models]


class Bm25(_System):
    """BM25 as in bm25s."""

    module: ClassVar[str] = "revela.evaluation.bm25"
    gpu: ClassVar[bool] = False
    kind: Literal["bm25"] = "bm25"
    k1: float
    b: float
    weigh_queries: bool


class _Eos(_System):
    """A retriever that pools at EOS, read with the study's prefixes and length."""

    module: ClassVar[str] = "revela.evaluation.retrievers"
    query_prefix: str
    passage_prefix: str
    max_length: int
    batch_tokens: int
    precision: Precision = "fp32"


class Trained(_Eos):
    """A cell's retriever. Its name is the cell's path."""

    kind: Literal["trained"] = "trained"

    @property
    def cell(self) -> Cell:
        return Cell.parse(self.name)

    @property
    def models(self) -> list[str]:
        return [self.cell.retriever]

    def folders(self, layout: Layout) -> list[str]:
        """The cell, and the backbone that its adapters belong to."""
        return [layout.cell(self.cell), layout.model(self.cell.retriever)]


class Untrained(_Eos):
    """A backbone before training, used as a cell is."""

    kind: Literal["untrained"] = "untrained"

    @property
    def models(self) -> list[str]:
        return [self.name.removeprefix(UNTRAINED)]


class Encoder(_System):
    """An off-the-shelf encoder; with `base` its weights are an adapter of a backbone."""

    module: ClassVar[str] = "revela.evaluation.off_the_shelf"
    kind: Literal["encoder"] = "encoder"
    base: str
    pooling: Literal["", Pooling]  # "": as its sentence-transformers folder says
    query_prefix: str
    passage_prefix: str
    passage_prefixes: dict[str, str]  # of tasks whose passages have another one
    similarity: Literal["cosine", "dot"]
    max_length: int
    batch_tokens: int
    precision: Precision | Literal["stored"] = "fp32"

    @property
    def models(self) -> list[str]:
        return [self.name, *([self.base] if self.base else [])]


class Api(_System):
    """An encoder behind an API. Tables copy the paper's values of it, unless it has been run here."""

    module: ClassVar[str] = "revela.evaluation.apis"
    gpu: ClassVar[bool] = False
    network: ClassVar[bool] = True
    kind: Literal["api"] = "api"
    provider: str
    model: str
    price: float | None  # US dollars for a million tokens
    max_length: int


System = Annotated[Bm25 | Trained | Untrained | Encoder | Api, Field(discriminator="kind")]
