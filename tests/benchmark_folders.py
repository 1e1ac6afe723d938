"""Small benchmarks written in the layouts of CoIR, BEIR and BRIGHT."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from revela.study.sheets import Task
from revela.study.specification import RunSpec
from revela.study.system import Bm25

DOCUMENTS = {  # id -> (title, text)
    "d1": ("", "a cat sat on the mat"),
    "d2": ("Dogs", "dogs chase cats"),
    "d10": ("Fish", ""),
    "d9": ("", "swimming fishes, and a cat"),
}
QUERIES = {"q1": "cats", "q2": "fish", "q3": "of another split"}
QRELS = {"q2": {"d10": 1, "d9": 2}, "q1": {"d1": 1, "d2": 0}}


def task(layout, name="t", **columns):
    """A row of benchmarks.tsv."""
    return Task(scale="test", benchmark=layout, task=name, label=name, layout=layout, dataset="set", **columns)


def run_spec(task, *, document_text="title+text", exclude=True, top_k=1000):
    """How a task is ranked, as by the defaults of the configuration. The ranker is handed to `run_task` beside it."""
    system = Bm25(name="bm25", k1=1.5, b=0.75, weigh_queries=False)
    return RunSpec(system=system, task=task, document_text=document_text, exclude=exclude, top_k=top_k)


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def tables(documents=DOCUMENTS, queries=QUERIES, qrels=QRELS):
    """Rows of corpus, queries and qrels with the columns of the hub."""
    return (
        [{"_id": id, "title": title, "text": text} for id, (title, text) in documents.items()],
        [{"_id": id, "text": text} for id, text in queries.items()],
        [
            {"query_id": query, "corpus_id": document, "score": score}
            for query, judged in qrels.items()
            for document, score in judged.items()
        ],
    )


def write_coir(folder, name="t", **content):
    corpus, queries, qrels = tables(**content)
    write_parquet(folder / f"{name}-queries-corpus" / "data" / "corpus-00000-of-00001.parquet", corpus)
    write_parquet(folder / f"{name}-queries-corpus" / "data" / "queries-00000-of-00001.parquet", queries)
    write_parquet(folder / f"{name}-qrels" / "data" / "test-00000-of-00001.parquet", qrels)
    return folder


def write_beir(folder, name="t", **content):
    corpus, queries, qrels = tables(**content)
    write_jsonl(folder / name / "corpus.jsonl", corpus)
    write_jsonl(folder / name / "queries.jsonl", queries)
    (folder / name / "qrels").mkdir()
    lines = [f"{row['query_id']}\t{row['corpus_id']}\t{row['score']}\n" for row in qrels]
    (folder / name / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


def write_bright(folder, name="t", *, documents, queries, gold, excluded):
    """excluded: query -> ids; a query without any gets the list ["N/A"], as in BRIGHT."""
    corpus = [{"id": id, "content": text} for id, text in documents.items()]
    examples = [
        {"query": text, "reasoning": "", "id": id, "excluded_ids": excluded.get(id, ["N/A"]), "gold_ids": gold[id]}
        for id, text in queries.items()
    ]
    write_parquet(folder / "documents" / f"{name}-00000-of-00001.parquet", corpus)
    write_parquet(folder / "examples" / f"{name}-00000-of-00001.parquet", examples)
    return folder


def shared_data():
    """The folder of real data beside the checkout. It may be absent."""
    return Path(os.environ.get("REVELA_SHARED", Path(__file__).parents[2] / "shared")) / "data"


def real_cosqa():
    """The folder with CoIR's CosQA as it is on the hub; the test is skipped where there is none."""
    folder = shared_data() / "CoIR-Retrieval"
    if not (folder / "cosqa-queries-corpus").is_dir():
        pytest.skip(f"needs the real CosQA in {folder}; REVELA_SHARED names the folder above data/")
    return folder


def published_cosqa():
    """The folder with CosQA under names that the hub has, with a hash; the test is skipped where there is none."""
    folder = shared_data().parent / "hub" / "CoIR-Retrieval"
    if not folder.is_dir():
        pytest.skip(f"needs CosQA as it was published, in {folder}; REVELA_SHARED names the folder above hub/")
    return folder


def cosqa_of_distinct(folder, queries=None, documents=None):
    """The real CosQA in CoIR's layout, with one document of each text, so that none tie; all of it, or its first rows.

    The first of several equal documents is kept, and replaces the others in the judgements.
    """
    source = real_cosqa()
    names = {
        "corpus": "cosqa-queries-corpus/data/corpus-00000-of-00001.parquet",
        "queries": "cosqa-queries-corpus/data/queries-00000-of-00001.parquet",
        "qrels": "cosqa-qrels/data/test-00000-of-00001.parquet",
    }
    rows = {kind: pq.read_table(source / name).to_pylist() for kind, name in names.items()}
    first = {}
    kept = {row["_id"]: first.setdefault(row["text"], row)["_id"] for row in rows["corpus"]}
    rows["qrels"] = [row | {"corpus_id": kept[row["corpus_id"]]} for row in rows["qrels"] if row["score"] > 0][:queries]
    asked, relevant = ({row[column] for row in rows["qrels"]} for column in ("query_id", "corpus_id"))
    rows["queries"] = [row for row in rows["queries"] if row["_id"] in asked]
    others = [row for row in first.values() if row["_id"] not in relevant]
    others = others[: None if documents is None else documents - len(relevant)]
    rows["corpus"] = [row for row in first.values() if row["_id"] in relevant] + others
    for kind, name in names.items():
        write_parquet(folder / name, rows[kind])
    return folder


class Encoder:
    """An encoder made of a function texts -> embeddings, which remembers the texts of each call."""

    def __init__(self, encode):
        self.encode, self.calls = encode, []

    def prepare(self, texts, kind):
        return list(texts)

    def embed(self, texts):
        self.calls.append(texts)
        return self.encode(texts)

    @property
    def texts(self):
        """The texts of all calls."""
        return [text for call in self.calls for text in call]
