"""A run: a ranker answers the queries of a task. All rankers look alike here, and no kind of them is imported."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from revela.evaluation.runs import write_run
from revela.evaluation.tasks import load_task

if TYPE_CHECKING:
    from revela.evaluation.tasks import Part
    from revela.study.specification import RunSpec

Ranking = list[tuple[str, float]]  # (document id, score), best first


class Ranker(Protocol):
    """A system that is loaded and ready to search."""

    name: str

    def search(self, part: Part, top_k: int, state: Path | None) -> Iterator[tuple[str, Ranking]]:
        """(query id, its `top_k` best documents) for each query of the part, in order.

        `state` is a file from which a long search can resume. Raises EvaluationError for a part that the system cannot
        search.
        """
        ...


def run_task(
    ranker: Ranker, spec: RunSpec, dataset_folder: str | Path, output: str | Path, *, state: str | Path | None = None
) -> None:
    """Rank the documents of `spec.task` and write the run file, whole or not at all.

    `state` is a folder that exists while the run is under way. If the job is killed, the next one resumes after the last
    complete shard and writes the same bytes.

    Raises:
        BenchmarkError: The benchmark cannot be read.
        EvaluationError: The system cannot answer it.
    """
    parts = load_task(spec.task, dataset_folder, document_text=spec.document_text)
    found = rankings(ranker, parts, exclude=spec.exclude, top_k=spec.top_k, state=state and Path(state))
    write_run(output, found, ranker.name)
    if state:
        shutil.rmtree(state, ignore_errors=True)


def rankings(
    ranker: Ranker, parts: Sequence[Part], *, exclude: bool, top_k: int, state: Path | None = None
) -> Iterator[tuple[str, Ranking]]:
    """(query's name in the run, its `top_k` best documents) for each query of all parts.

    A ranking leaves out the document with the query's own id (as beir does; it matters on ArguAna) and, with `exclude`,
    the documents that the task excludes for the query. They are removed before the cut, so they take no place.
    """
    for part in parts:
        barred = {query: {query} | (part.excluded[query] if exclude else set()) for query in part.queries}
        depth = top_k + max(map(len, barred.values()))
        for query, ranking in ranker.search(part, depth, state and state / f"{part.name}.npz"):
            kept = [(document, score) for document, score in ranking if document not in barred[query]]
            yield part.key(query), kept[:top_k]
