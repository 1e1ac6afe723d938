"""What each job is given: one frozen specification of all settings that its result depends on.

A specification is made while the DAG is planned and travels to the script as JSON in the rule's `params`, so Snakemake
runs a job again when it changes, and a script can use nothing else. How a job is carried out (threads, checkpoints, a
budget) is no part of it: that is the section `compute` of the configuration. Jobs that make tables and figures are given
what `revela.study.tables` says.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from revela.study.base import Strict, added
from revela.study.cell import Cell
from revela.study.corpora import Corpus, Dataset, TextSource
from revela.study.package import Package
from revela.study.settings import LmEvaluation, Training
from revela.study.sheets import Task
from revela.study.study import Study
from revela.study.system import System

# --- text


class DatasetSpec(Strict):
    """A raw dataset to fetch or to build. `results` is the folder of results, none of which is text of a dataset.

    content: one hash over the user's files that it is a copy of, so that it is made again when they change.
    source: how the text is read whose held-out documents it is made of.
    """

    dataset: Dataset
    results: str
    content: str | None = None
    source: TextSource | None = None


def dataset_spec(study: Study, dataset: str) -> DatasetSpec:
    """The fetching or building of a dataset."""
    spec = study.config.datasets[dataset]
    source = _text(study.config.held_out[spec.held_out_of]) if spec.held_out_of else None
    return DatasetSpec(dataset=spec, results=study.config.results, source=source)


def package_spec(study: Study, package: str) -> Package:
    """The download of a package's files."""
    return study.config.packages[package]


class ModelSpec(Strict):
    """A pretrained model to fetch: its name, and its source as models.tsv has it.

    content: the hash of a local folder's files as they are now; None of others.
    """

    name: str
    source: str
    content: str | None = None


def model_spec(study: Study, model: str) -> ModelSpec:
    """The fetching of a model."""
    return ModelSpec(name=model, source=study.models[model].source)


class PunktSpec(Strict):
    """What Punkt is trained on, read as the corpus reads it that it is a source of; None: NLTK's own parameters."""

    source: TextSource | None


def punkt_spec(study: Study) -> PunktSpec:
    """The training of Punkt, or the choice of NLTK's own."""
    dataset = study.config.chunking.punkt
    if dataset == "nltk":
        return PunktSpec(source=None)
    sources = (source for corpus in study.config.corpora.values() for source in corpus.sources)
    return PunktSpec(source=_text(next((s for s in sources if s.dataset == dataset), TextSource(dataset=dataset))))


class Reading(Strict):
    """How a retriever reads a chunk: behind this prefix, and of so many tokens at most."""

    prefix: str
    max_length: int


class ChunkSpec(Strict):
    """How the documents of a corpus's sources become chunks. Tokens count where there is a reading."""

    sources: list[TextSource]
    max_words: int
    max_tokens: int | None = None
    reading: Reading | None = None


def chunk_spec(study: Study, corpus: str) -> ChunkSpec:
    """The chunks of a corpus's sources."""
    config = study.config
    sources = [_text(source) for source in config.corpora[corpus].sources]
    spec = ChunkSpec(sources=sources, max_words=config.chunking.max_words, max_tokens=config.chunking.max_tokens)
    if not config.chunking.tokenizer:
        return spec
    training = {**config.training.model_dump(exclude_unset=True), **config.corpora[corpus].training}
    training = Training.model_validate(training)
    prefix = max(training.query_prefix, training.passage_prefix, key=len)
    return spec.model_copy(update={"reading": Reading(prefix=prefix, max_length=training.retriever_max_length)})


def _text(source: TextSource) -> TextSource:
    """A source as text; how many batches it gives is the batches' affair."""
    return source.model_copy(update={"batches": None})


def chunked_as(study: Study, corpus: str) -> str:
    """The first corpus of equal sources: corpora that differ in their batches alone share their chunks."""
    wanted = chunk_spec(study, corpus)
    return next(name for name in study.config.corpora if chunk_spec(study, name) == wanted)


class ApartSpec(Strict):
    """The benchmarks' tasks with which documents of a corpus may share no text."""

    tasks: list[Task]


def apart_spec(study: Study, corpus: str) -> ApartSpec:
    """The comparison of a corpus with the benchmarks that it is to be apart from."""
    names = study.config.corpora[corpus].apart_from
    return ApartSpec(tasks=[task for name in names for task in study.benchmark_tasks(name)])


class BatchSpec(Strict):
    """How chunks become batches: those of sources, those of other corpora, or ready ones. One of the three is given."""

    batch_size: int
    seed: int
    batches: int | None  # in all; None: as many as there are
    take: Literal["random", "first"]
    sources: dict[str, int | Literal["rest"] | None] = Field({})  # dataset -> its batches
    rest_at: int = added(16, "Batch size at which the other sources are counted.")
    group_size: int | None = None  # of sources
    min_chunks: int = 1  # of sources
    max_chunks: int | None = None  # of sources
    mix: dict[str, int] = Field({})  # corpus -> its batches
    ready: str | None = None  # a dataset of ready batches


def batch_spec(study: Study, corpus: str, batch_size: int | str) -> BatchSpec:
    """The batches of a corpus, of one size."""
    spec = study.config.corpora[corpus]
    common = {"batch_size": int(batch_size), "seed": study.config.seed, "batches": spec.batches, "take": spec.take}
    if spec.ready:
        return BatchSpec(**common, ready=spec.ready)
    if spec.mix:
        return BatchSpec(**common, mix=spec.mix)
    sources = {source.dataset: source.batches for source in spec.sources}
    groups = {"group_size": spec.group_size, "min_chunks": spec.min_chunks, "max_chunks": spec.max_chunks}
    return BatchSpec(**common, sources=sources, rest_at=spec.rest_at, **groups)


class GroupSizeSpec(Strict):
    """How batches would come out with other numbers of documents in a group, beside what the paper states."""

    batches: BatchSpec
    documents: int | None  # that the paper counts


def group_size_spec(study: Study, corpus: str) -> GroupSizeSpec:
    """The comparison of group sizes, for batches of 16."""
    return GroupSizeSpec(batches=batch_spec(study, corpus, 16), documents=study.config.corpora[corpus].documents)


class PairSpec(Strict):
    """How batches become Contriever's pairs."""

    batch_size: int
    seed: int
    pairs: int | None  # None: one for each batch
    crop_ratio: tuple[float, float]


def pair_spec(study: Study, corpus: str, batch_size: int | str) -> PairSpec:
    """The pairs of a corpus, for batches of one size."""
    spec: Corpus = study.config.corpora[corpus]
    return PairSpec(batch_size=int(batch_size), seed=study.config.seed, pairs=spec.pairs, crop_ratio=spec.crop_ratio)


# --- training

SCORING = r"(mean|sum)(\d+)-(bf16|fp32)(?:-seed(\d+)-(\d+))?"  # names of REPLUG's scores


class ReplugScoreSpec(Strict):
    """What REPLUG's scores depend on besides the language model and the batches. Their file's name spells it out.

    positions: batches that training sees, the first of its order by `seed`; None: all.
    """

    length_normalised: bool
    lm_max_length: int
    precision: Literal["bf16", "fp32"]
    seed: int = 0
    positions: int | None = None

    @property
    def name(self) -> str:
        """For example mean156-bf16, or mean156-bf16-seed42-144000."""
        part = f"-seed{self.seed}-{self.positions}" if self.positions else ""
        return f"{'mean' if self.length_normalised else 'sum'}{self.lm_max_length}-{self.precision}{part}"

    @classmethod
    def parse(cls, name: str) -> ReplugScoreSpec:
        """The specification of a name that a rule has matched."""
        unit, length, precision, seed, positions = re.fullmatch(SCORING, name).groups()
        part = {"seed": int(seed), "positions": int(positions)} if seed else {}
        return cls(length_normalised=unit == "mean", lm_max_length=int(length), precision=precision, **part)


def replug_score_spec(study: Study, cell: Cell) -> ReplugScoreSpec:
    """Of the scores that a cell is trained with."""
    settings, corpus = study.training_settings(cell), study.config.corpora[cell.corpus]
    if corpus.regroup:  # into as many batches
        corpus = study.config.corpora[corpus.regroup.corpus]
    there, seen = corpus.batches or sum(corpus.mix.values()), (settings.max_steps or 0) * settings.batches_per_step
    part = {"seed": settings.seed, "positions": seen} if seen and not 0 < there <= seen else {}
    return ReplugScoreSpec(**settings.model_dump(include={"length_normalised", "lm_max_length", "precision"}), **part)


class TrainingSpec(Strict):
    """A cell's training."""

    cell: str
    settings: Training


def training_spec(study: Study, cell: str) -> TrainingSpec:
    """The training of a cell, by its path."""
    return TrainingSpec(cell=cell, settings=study.training_settings(Cell.parse(cell)))


def timing_spec(study: Study, cell: str) -> Training:
    """The settings under which a cell's batches are timed."""
    return study.training_settings(Cell.parse(cell))


# --- evaluation


class RunSpec(Strict):
    """A system's ranking of a task's documents."""

    system: System
    task: Task
    document_text: Literal["title+text", "text"]
    exclude: bool
    top_k: int


def run_spec(study: Study, system: str, benchmark: str, task: str) -> RunSpec:
    """The ranking of a task by a system."""
    ranking = study.config.evaluation.model_dump(include={"document_text", "exclude", "top_k"})
    return RunSpec(system=study.system(system), task=study.task(benchmark, task), **ranking)


class ScoreSpec(Strict):
    """A system's scores on a benchmark. How it read texts is written into the protocol."""

    system: System
    benchmark: str
    tasks: list[Task]
    document_text: Literal["title+text", "text"]
    exclude: bool
    top_k: int


def score_spec(study: Study, system: str, benchmark: str) -> ScoreSpec:
    """The scores of a system on a benchmark."""
    ranking = study.config.evaluation.model_dump(include={"document_text", "exclude", "top_k"})
    return ScoreSpec(
        system=study.system(system), benchmark=benchmark, tasks=study.benchmark_tasks(benchmark), **ranking
    )


class AnchorSpec(Strict):
    """Scores that others published, beside those found here: a task and a value for each system."""

    systems: list[str]
    tasks: list[Task]
    ndcg10: list[float]
    document_text: Literal["title+text", "text"]
    top_k: int


def anchor_spec(study: Study) -> AnchorSpec:
    """The comparison with published scores."""
    anchors = study.anchors
    return AnchorSpec(
        systems=[anchor.system for anchor in anchors],
        tasks=[study.task(anchor.benchmark, anchor.task) for anchor in anchors],
        ndcg10=[anchor.ndcg10 for anchor in anchors],
        **study.config.evaluation.model_dump(include={"document_text", "top_k"}),
    )


def lm_evaluation_spec(study: Study) -> LmEvaluation:
    """The tasks that language models are tested on."""
    return study.config.lm_evaluation


class SmokeSpec(Strict):
    """A smoke test: a cell of each method with its settings, and the speed that the plan assumes."""

    cells: dict[str, Training]
    device: str
    training_mfu: float
    encoding_mfu: float


def smoke_spec(study: Study) -> SmokeSpec:
    """The smoke test, of the first cell of each method in runs.tsv."""
    first: dict[str, Cell] = {}
    for run in study.runs:
        first.setdefault(run.method, run.cell)
    cells = {cell.path: study.training_settings(cell) for cell in first.values()}
    plan = study.config.compute.model_dump(include={"device", "training_mfu", "encoding_mfu"})
    return SmokeSpec(cells=cells, **plan)
