"""What the jobs of regrouped corpora are given, as `revela.study.specification` says it of all others."""

from __future__ import annotations

from typing import Literal

from revela.study.base import Strict
from revela.study.cell import Cell
from revela.study.corpora import RANDOM
from revela.study.settings import Training
from revela.study.study import Study
from revela.study.system import System


class EmbeddingSpec(Strict):
    """The embeddings of all chunks of a corpus's batches."""

    system: System


def embedding_spec(study: Study, system: str) -> EmbeddingSpec:
    """The embeddings by a system."""
    return EmbeddingSpec(system=study.system(system))


class NeighbourSpec(Strict):
    """The nearest neighbours of each chunk among those of the same source in other documents, where these are known."""

    system: System
    batch_size: int
    neighbours: int
    documents: bool
    exact_up_to: int = 100_000
    seed: int

    def is_exact(self, chunks: int) -> bool:
        """Whether so many chunks of a source are all compared. Among more, an inverted file finds the neighbours."""
        return chunks <= self.exact_up_to


def neighbour_spec(
    study: Study, corpus: str, batch_size: int | str, system: str, neighbours: int | str
) -> NeighbourSpec:
    """The neighbours by a system of the chunks of a corpus's batches, of one size."""
    return NeighbourSpec(
        system=study.system(system),
        batch_size=int(batch_size),
        neighbours=int(neighbours),
        documents=not study.config.corpora[corpus].ready,
        seed=study.config.seed,
    )


class NearDuplicateSpec(Strict):
    """Which chunks of a corpus's batches are nearly the same."""

    threshold: float
    seed: int


def near_duplicate_spec(study: Study, threshold: str) -> NearDuplicateSpec:
    """Those from a similarity on."""
    return NearDuplicateSpec(threshold=float(threshold), seed=study.config.seed)


class RegroupSpec(Strict):
    """How the chunks of a corpus's batches are put into others. `documents`: whether the batches name them."""

    batch_size: int
    seed: int
    how: Literal["random", "mutual", "path", "cluster"]
    keep_document: float
    documents: bool


def regroup_spec(study: Study, corpus: str, batch_size: int | str) -> RegroupSpec:
    """The batches of a regrouped corpus, of one size."""
    regroup = study.config.corpora[corpus].regroup
    return RegroupSpec(
        batch_size=int(batch_size),
        seed=study.config.seed,
        how="random" if regroup.by == RANDOM else regroup.batch,
        keep_document=regroup.keep_document,
        documents=not study.config.corpora[regroup.corpus].ready,
    )


class GroupingReportSpec(Strict):
    """A regrouped corpus beside the one that it comes from."""

    before: str
    after: str
    documents: bool
    seed: int


def grouping_report_spec(study: Study, corpus: str) -> GroupingReportSpec:
    """The comparison of a regrouped corpus."""
    before = study.config.corpora[corpus].regroup.corpus
    documents = not study.config.corpora[before].ready
    return GroupingReportSpec(before=before, after=corpus, documents=documents, seed=study.config.seed)


class GainSpec(Strict):
    """What the models of a cell make of a corpus's batches, measured on some of them."""

    cell: str
    settings: Training
    batches: int
    documents: bool
    seed: int


def gain_spec(study: Study, corpus: str, cell: str) -> GainSpec:
    """The measurement of a corpus, regrouped or not, by a cell."""
    regroup = study.config.corpora[corpus].regroup
    return GainSpec(
        cell=cell,
        settings=study.training_settings(Cell.parse(cell)),
        batches=study.config.evaluation.gain_batches,
        documents=not study.config.corpora[regroup.corpus if regroup else corpus].ready,
        seed=study.config.seed,
    )
