"""Evaluation without a workflow: one model, one benchmark folder, numbers.

The numbers equal those of sentence-transformers' InformationRetrievalEvaluator on the exported model: texts are encoded
with the prefixes and the length that the retriever was saved with.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revela.evaluation import EvaluationError
from revela.evaluation.bm25 import BM25
from revela.evaluation.ranking import rankings
from revela.evaluation.runs import read_run, write_run
from revela.evaluation.scores import Evaluator
from revela.evaluation.tasks import load_task
from revela.study.sheets import Task

if TYPE_CHECKING:
    import torch

    from revela.evaluation.ranking import Ranker, Ranking
    from revela.evaluation.tasks import Part
    from revela.retriever import Retriever


class AsSaved:
    """A retriever with the prefixes and the length that it was saved with."""

    def __init__(self, name: str, retriever: Retriever):
        self.name, self.retriever = name, retriever

    def search(self, part: Part, top_k: int, state: Path | None = None) -> Iterator[tuple[str, Ranking]]:
        from revela.evaluation.search import search

        found = search(
            self.retriever.encode(list(part.queries.values()), "query"),
            part.corpus,
            self.retriever,
            top_k=top_k,
            shard_documents=50_000,
            description=part.name,
            state=state,
        )
        return zip(part.queries, found, strict=True)


def load_model(model: str, *, max_length: int | None = None, dtype: torch.dtype | None = None) -> Ranker:
    """The ranker of what a user would type: ``bm25``, or a folder.

    The folder is that of a trained cell, a retriever, an export, or a language model as it is (EOS pooling, no prefixes,
    512 tokens). dtype: of its weights; bfloat16 on a GPU, float32 elsewhere, by default.

    Raises:
        EvaluationError: It is none of them.
        RetrieverError: The folder cannot be loaded.
    """
    if model == "bm25":
        return BM25()
    import torch

    from revela.retriever import SETTINGS, Retriever, retriever_folder

    if (retriever_folder(model) / SETTINGS).is_file():
        return AsSaved(model, Retriever.load(model, max_length=max_length, dtype=dtype).merge())
    if Path(model, "config.json").is_file():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = dtype or (torch.bfloat16 if device == "cuda" else torch.float32)
        return AsSaved(model, Retriever.from_backbone(model, max_length=max_length or 512, dtype=dtype).to(device))
    raise EvaluationError(f"{model}: no such model; valid: bm25, or a folder of a trained cell, retriever or export")


def evaluate_folder(
    ranker: Ranker,
    folder: str | Path,
    *,
    layout: str = "beir",
    part: str | None = None,
    split: str = "test",
    unretrievable: int = 0,
    top_k: int = 1000,
    run_file: str | Path | None = None,
) -> dict[str, Any]:
    """Metrics (in [0, 1]) and counts of a ranker on one benchmark in a folder.

    Args:
        folder: In BEIR's layout it holds corpus.jsonl, queries.jsonl and qrels/{split}.tsv.
        layout: beir, coir or bright.
        part: The name within the folder; none: the folder's own.
        split: Of the judgements.
        unretrievable: How many judgements no system can meet, as known for the benchmark (ArguAna: 5). They count
            as missed.
        top_k: Documents kept for a query.
        run_file: Where to keep the ranking (TREC, gzipped); none: nowhere.

    Raises:
        BenchmarkError: The folder cannot be read.
        EvaluationError: The folder has another layout, or no query has a relevant document.
    """
    folder = Path(folder)
    parts = sorted(path.name.removesuffix("-queries-corpus") for path in folder.glob("*-queries-corpus"))
    if parts and (layout != "coir" or part not in parts):
        raise EvaluationError(
            f"{folder}: is in CoIR's layout, with the parts {', '.join(parts)}: --layout coir --part .."
        )
    name = part or folder.resolve().name
    slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("._-") or "benchmark"
    task = Task(
        scale="own",
        benchmark="own",
        task=slug,
        label=name,
        layout=layout,
        dataset=slug,
        parts=name,
        split=split,
        unretrievable=unretrievable,
    )
    [found] = load_task(task, folder)
    evaluator = Evaluator(found.qrels, top_k=top_k)
    with tempfile.TemporaryDirectory() as scratch:
        run_file = run_file or Path(scratch, "run.gz")
        write_run(run_file, rankings(ranker, [found], exclude=True, top_k=top_k), ranker.name)
        for query, documents in read_run(run_file):
            evaluator.add(query, documents)
    if not evaluator.per_query:
        raise EvaluationError(f"{folder}: no query has a relevant document")
    counts = {"documents": len(found.corpus), "queries": len(evaluator.per_query)}
    return {"system": ranker.name, "benchmark": name, "metrics": evaluator.means(), **counts}
