"""Scores: run files and judgements become numbers. Nothing else is read, so anyone can check a score.

The measures are pytrec_eval's, which is trec_eval: linear gains, and ties in score by descending document id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from revela.evaluation import EvaluationError
from revela.evaluation.runs import read_run
from revela.evaluation.tasks import load_task
from revela.files import sha256_file, write_json
from revela.provenance import folder_sha256, git_commit, versions

if TYPE_CHECKING:
    from revela.evaluation.tasks import Part
    from revela.study.sheets import Task
    from revela.study.specification import ScoreSpec

# name -> (pytrec_eval's name, depth: how many documents of a ranking it uses)
METRICS = {
    "nDCG@1": ("ndcg_cut_1", 1),
    "nDCG@10": ("ndcg_cut_10", 10),
    "nDCG@100": ("ndcg_cut_100", 100),
    "MAP": ("map", 0),
    "MRR@10": ("recip_rank", 10),
    "Recall@10": ("recall_10", 10),
    "Recall@100": ("recall_100", 100),
    "Recall@1000": ("recall_1000", 1000),
}
PROTOCOL = {
    "ties": "by descending document id",
    "equal texts": "encoded once, so they tie",
    "document with the query's id": "dropped",
    "query without a result": "counts as 0",
    "query without a relevant document": "left out",
    "parts of a task": "unweighted mean",
}


class Evaluator:
    """Measures of a run whose queries are added one by one.

    per_query: query -> metric -> value in [0, 1], for each query that has a relevant document; 0 until it is added.
    """

    def __init__(self, qrels: Mapping[str, Mapping[str, int]], *, top_k: int = 1000):
        """qrels: query -> document -> relevance; documents above 0 are relevant. top_k: the depth of the run.

        Measures of a greater depth than the run's are left out.
        """
        import pytrec_eval

        judged = {query: dict(found) for query, found in qrels.items() if max(found.values(), default=0) > 0}
        self._metrics = {name: measure for name, (measure, depth) in METRICS.items() if depth <= top_k}
        self._evaluator = pytrec_eval.RelevanceEvaluator(
            judged, {"ndcg_cut.1,10,100", "map", "recip_rank", "recall.10,100,1000"}
        )
        self.per_query = {query: dict.fromkeys(self._metrics, 0.0) for query in judged}
        self.with_result = 0

    def add(self, query: str, documents: Mapping[str, float]) -> None:
        """Add a query's documents with their scores. Queries without a relevant document are ignored."""
        if query not in self.per_query:
            return
        values = self._evaluator.evaluate({query: dict(documents)})[query]
        if values["recip_rank"] < 0.1:  # the first relevant document comes after the tenth place
            values["recip_rank"] = 0.0
        self.per_query[query] = {name: values[measure] for name, measure in self._metrics.items()}
        self.with_result += 1

    def means(self) -> dict[str, float]:
        """Metric -> its mean over the queries."""
        return {name: _mean(values[name] for values in self.per_query.values()) for name in self._metrics}


def score_task(
    task: Task,
    dataset_folder: str | Path,
    run_file: str | Path,
    *,
    document_text: Literal["title+text", "text"],
    top_k: int,
) -> dict[str, Any]:
    """Scores of one run file: the task's `metrics` and, for each part, its metrics, counts and values of each query.

    Args:
        document_text, top_k: As in the specification of the run.

    Raises:
        BenchmarkError: The benchmark cannot be read.
        EvaluationError: The run file cannot be read, or belongs to other queries.
    """
    parts = load_task(task, dataset_folder, document_text=document_text)
    evaluators = {part.name: Evaluator(part.qrels, top_k=top_k) for part in parts}
    owners = {part.key(query): (evaluators[part.name], query) for part in parts for query in part.queries}
    for key, documents in read_run(run_file):
        if key not in owners:
            raise EvaluationError(f"{run_file}: query {key!r} is not a query of {task.key}")
        evaluator, query = owners[key]
        evaluator.add(query, documents)
    scored = {part.name: _part_scores(part, evaluators[part.name]) for part in parts}
    names = next(iter(scored.values()))["metrics"]
    return {
        "label": task.label,
        "metrics": {name: _mean(part["metrics"][name] for part in scored.values()) for name in names},
        "parts": scored,
    }


def _part_scores(part: Part, evaluator: Evaluator) -> dict[str, Any]:
    per_query = evaluator.per_query
    if not per_query:
        raise EvaluationError(f"{part.corpus.files[0].parent}: no query of {part.name} has a relevant document")
    metrics = evaluator.means()
    return {
        "metrics": metrics,
        "counts": {
            "documents": len(part.corpus),
            "different documents": part.corpus.index.unique_texts,
            "queries": len(per_query),
            "queries without a relevant document": len(part.queries) - len(per_query),
            "queries without a result": len(per_query) - evaluator.with_result,
            "relevant judgements": sum(score > 0 for judged in part.qrels.values() for score in judged.values()),
        },
        "queries": list(per_query),
        "per_query": {name: [round(values[name], 6) for values in per_query.values()] for name in metrics},
    }


def score_benchmark(
    spec: ScoreSpec, datasets: Mapping[str, str | Path], runs: Mapping[str, str | Path], output: str | Path
) -> dict[str, Any]:
    """Score a system's run files on a benchmark and write the result as JSON.

    Args:
        datasets: dataset -> its folder, for each dataset of the benchmark's tasks.
        runs: task -> run file, for each task of the benchmark.
        output: A JSON file: ``system``, ``benchmark``, ``protocol``, ``tasks`` (task -> what `score_task` returns)
            and ``provenance`` (commit, library versions, hashes of datasets and run files). Metrics are in [0, 1].
    """
    read_as = {"document_text": spec.document_text, "top_k": spec.top_k}
    scores = {
        "system": spec.system.name,
        "benchmark": spec.benchmark,
        "protocol": _protocol(spec),
        "tasks": {
            task.task: score_task(task, datasets[task.dataset], runs[task.task], **read_as) for task in spec.tasks
        },
        "provenance": {
            "commit": git_commit(),
            "versions": versions(),
            "datasets": {task.dataset: folder_sha256(datasets[task.dataset]) for task in spec.tasks},
            "runs": {task.task: sha256_file(runs[task.task]) for task in spec.tasks},
        },
    }
    write_json(output, scores, indent=None)
    return scores


def _protocol(spec: ScoreSpec) -> dict[str, Any]:
    """How the system read texts (a model card quotes its prefixes and length), and how rankings were made and scored."""
    system = spec.system.model_dump(exclude={"kind", "name", "price"})
    return {**system, **spec.model_dump(include={"document_text", "exclude", "top_k"}), **PROTOCOL}


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return fsum(values) / len(values)
