"""A retrieval task that is made here, and how it is written in the layouts of CoIR, BEIR and BRIGHT."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class RetrievalTask:
    """Queries, the documents that are searched, and which of them are relevant, or may not be found, for each query."""

    documents: dict[str, str]  # id -> text
    queries: dict[str, str]
    relevant: dict[str, list[str]]
    excluded: dict[str, list[str]]

    def sample(self, queries: int, documents: int) -> RetrievalTask:
        """So many queries and documents at most, chosen by the hashes of their names. Relevant and excluded ones stay."""
        chosen = sorted(sorted(self.queries, key=name_hash)[:queries])
        kept = {document for query in chosen for document in self.relevant[query] + self.excluded[query]}
        others = sorted((document for document in self.documents if document not in kept), key=name_hash)
        kept.update(others[: max(0, documents - len(kept))])
        return RetrievalTask(
            {name: self.documents[name] for name in sorted(kept)},
            {name: self.queries[name] for name in chosen},
            {name: self.relevant[name] for name in chosen},
            {name: self.excluded[name] for name in chosen},
        )


def name_hash(name: str) -> str:
    """The SHA-256 of a name, for an order that has nothing to do with what the name stands for."""
    return hashlib.sha256(name.encode()).hexdigest()


def pairs(pairs: list[tuple[str, str, str]]) -> RetrievalTask:
    """A task of (name, query, document) in which no two queries and no two documents are the same."""
    queries, documents = {}, {}
    for name, query, document in pairs:
        if query not in queries and document not in documents:
            queries[query], documents[document] = name, name
    by_name = {name: query for query, name in queries.items()}
    return RetrievalTask(
        {name: document for document, name in documents.items()},
        by_name,
        {name: [name] for name in by_name},
        {name: [] for name in by_name},
    )


def write_tasks(layout: str, tasks: Mapping[str, RetrievalTask], folder: Path, *, queries: int, documents: int) -> dict:
    """Write tasks in a layout, cut to so many queries and documents at most, and return their facts.

    Args:
        layout: ``coir``, ``beir`` or ``bright``.
        tasks: Name -> task.
        folder: An existing folder.
        queries: Queries of a task at most.
        documents: Documents of a task at most. Relevant ones always stay.

    Returns:
        ``sha256`` over all tasks, and the counts of each task.
    """
    total, counts = hashlib.sha256(), {}
    for name, task in tasks.items():
        task = task.sample(queries, documents)
        _WRITERS[layout](task, name, folder)
        total.update(json.dumps([name, task.documents, task.queries, task.relevant, task.excluded]).encode())
        counts[name] = {"documents": len(task.documents), "queries": len(task.queries)}
    return {"sha256": total.hexdigest(), "tasks": counts}


def _write_coir(task: RetrievalTask, name: str, folder: Path) -> None:
    document_ids = {key: f"d{i}" for i, key in enumerate(task.documents)}
    query_ids = {key: f"q{i}" for i, key in enumerate(task.queries)}
    qrels = [
        {"query_id": query_ids[query], "corpus_id": document_ids[document], "score": 1}
        for query in task.queries
        for document in task.relevant[query]
    ]
    for relative, rows in {
        f"{name}-queries-corpus/data/corpus-00000-of-00001.parquet": _coir_rows(document_ids, task.documents),
        f"{name}-queries-corpus/data/queries-00000-of-00001.parquet": _coir_rows(query_ids, task.queries),
        f"{name}-qrels/data/test-00000-of-00001.parquet": qrels,
    }.items():
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / relative)


def _coir_rows(ids: dict[str, str], texts: dict[str, str]) -> list[dict[str, str]]:
    return [{"_id": ids[key], "partition": "test", "text": text, "title": ""} for key, text in texts.items()]


def _write_beir(task: RetrievalTask, name: str, folder: Path) -> None:
    (folder / name / "qrels").mkdir(parents=True)
    corpus = [{"_id": key, "title": "", "text": text} for key, text in task.documents.items()]
    queries = [{"_id": f"query/{key}", "text": text} for key, text in task.queries.items()]
    for file, rows in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        (folder / name / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    qrels = [f"query/{query}\t{document}\t1\n" for query in task.queries for document in task.relevant[query]]
    (folder / name / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(qrels))


def _write_bright(task: RetrievalTask, name: str, folder: Path) -> None:
    documents = [{"id": key, "content": text} for key, text in task.documents.items()]
    examples = [
        {
            "id": key,
            "query": text,
            "excluded_ids": task.excluded[key] or ["N/A"],
            "gold_ids": task.relevant[key],
        }
        for key, text in task.queries.items()
    ]
    for config, rows in (("documents", documents), ("examples", examples)):
        (folder / config).mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / config / f"{name}-00000-of-00001.parquet")


_WRITERS = {"coir": _write_coir, "beir": _write_beir, "bright": _write_bright}
