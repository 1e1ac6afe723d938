"""Benchmarks are read as the field's harnesses read them, and what is wrong with a folder is said in one line."""

import gzip
import importlib.util
import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_folders import (
    DOCUMENTS,
    QRELS,
    QUERIES,
    real_cosqa,
    tables,
    task,
    write_beir,
    write_bright,
    write_coir,
    write_jsonl,
    write_parquet,
)

from revela.evaluation.bm25 import BM25
from revela.evaluation.folder import evaluate_folder
from revela.evaluation.tasks import BenchmarkError, load_task


def contents(part):
    """(documents, queries, qrels) as plain dicts."""
    return dict(part.corpus), part.queries, part.qrels


def joined(corpus):
    """The text that a harness makes of its {"title", "text"}."""
    return {id: f"{document['title'] or ''} {document['text'] or ''}".strip() for id, document in corpus.items()}


@pytest.mark.parametrize(("layout", "write"), [("coir", write_coir), ("beir", write_beir)])
def test_layouts_give_the_same_task(tmp_path, layout, write):
    [part] = load_task(task(layout), write(tmp_path))
    documents, queries, qrels = contents(part)
    assert documents == {
        "d1": "a cat sat on the mat",
        "d2": "Dogs dogs chase cats",
        "d10": "Fish",
        "d9": "swimming fishes, and a cat",
    }
    assert list(queries.items()) == [("q1", "cats"), ("q2", "fish")]  # q3 is not judged
    assert qrels == QRELS and list(qrels) == ["q1", "q2"]
    assert part.excluded == {"q1": frozenset(), "q2": frozenset()}


def test_document_text_without_titles(tmp_path):
    [part] = load_task(task("coir"), write_coir(tmp_path), document_text="text")
    assert dict(part.corpus) == {id: text for id, (_, text) in DOCUMENTS.items()}


def test_missing_titles_and_null_texts(tmp_path):
    folder = write_beir(tmp_path)
    rows = [{"_id": "d1", "text": " a "}, {"_id": "d9", "title": None, "text": None}, {"_id": "d10", "text": "b"}]
    write_jsonl(folder / "t" / "corpus.jsonl", rows)
    assert dict(load_task(task("beir"), folder)[0].corpus) == {"d1": "a", "d9": "", "d10": "b"}


def test_bright(tmp_path):
    folder = write_bright(
        tmp_path,
        documents={"a/1": "x", "a/2": "y", "b c": "z"},
        queries={"0": "first", "1": "second"},
        gold={"0": ["a/1", "b c"], "1": ["a/2"]},
        excluded={"1": ["a/1"]},
    )
    [part] = load_task(task("bright"), folder)
    assert contents(part) == (
        {"a/1": "x", "a/2": "y", "b c": "z"},
        {"0": "first", "1": "second"},
        {"0": {"a/1": 1, "b c": 1}, "1": {"a/2": 1}},
    )
    assert part.excluded == {"0": frozenset(), "1": frozenset({"a/1"})}


def test_parts(tmp_path):
    for name in ("go", "ruby"):
        write_coir(tmp_path, name, queries={"q1": f"cats in {name}", "q2": "fish"})
    parts = load_task(task("coir", parts="go;ruby"), tmp_path)
    assert [part.name for part in parts] == ["go", "ruby"]
    assert [part.queries["q1"] for part in parts] == ["cats in go", "cats in ruby"]
    assert [part.key("q1") for part in parts] == ["go/q1", "ruby/q1"]
    assert load_task(task("coir", parts="go"), tmp_path)[0].key("q1") == "q1"


def corpus_folder_of_parquet(folder):
    corpus, queries, qrels = tables()
    write_parquet(folder / "t" / "corpus" / "train-00000-of-00002.parquet", corpus[:3])
    write_parquet(folder / "t" / "corpus" / "train-00001-of-00002.parquet", corpus[3:])
    write_parquet(folder / "t" / "queries" / "queries-00000-of-00001.parquet", queries)
    hyphens = [{name.replace("_", "-"): value for name, value in row.items()} for row in qrels]
    write_parquet(folder / "t" / "data" / "test-00000-of-00001.parquet", hyphens)


def qrels_beside_and_gzip(folder):
    write_beir(folder)
    for name in ("corpus", "queries"):
        path = folder / "t" / f"{name}.jsonl"
        (folder / "t" / f"{name}.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    (folder / "t" / "qrels").rename(folder / "t-qrels")


def no_folder_of_its_own(folder):
    write_beir(folder)
    for path in (folder / "t").iterdir():
        path.rename(folder / path.name)
    (folder / "t").rmdir()


@pytest.mark.parametrize("write", [corpus_folder_of_parquet, qrels_beside_and_gzip, no_folder_of_its_own])
def test_beir_as_on_the_hub(tmp_path, write):
    write(tmp_path)
    (tmp_path / "zip").mkdir()
    expected = contents(load_task(task("beir"), write_beir(tmp_path / "zip"))[0])
    assert contents(load_task(task("beir"), tmp_path)[0]) == expected


def test_qrels_beside_are_not_taken_for_coirs_layout(tmp_path):
    qrels_beside_and_gzip(tmp_path)
    found = evaluate_folder(BM25(), tmp_path, layout="beir", part="t")
    assert found["metrics"]["nDCG@10"] > 0


def test_equals_beir_loader(tmp_path):
    from beir.datasets.data_loader import GenericDataLoader

    folder = write_beir(tmp_path)
    corpus = folder / "t" / "corpus.jsonl"  # ids and texts that tempt a reader of lines and of tables
    quoted = {"_id": 'say_"it"', "title": "quoted", "text": "line\u2028one\nline two"}
    corpus.write_text(corpus.read_text() + json.dumps(quoted, ensure_ascii=False) + "\n", encoding="utf-8")
    with open(folder / "t" / "qrels" / "test.tsv", "a") as file:
        file.write('q3\t"say_""it"""\t1\n')
    theirs = GenericDataLoader(str(folder / "t")).load("test")
    documents, queries, qrels = contents(load_task(task("beir"), folder)[0])
    assert (documents, queries, qrels) == (joined(theirs[0]), theirs[1], theirs[2])
    assert qrels["q3"] == {'say_"it"': 1}


@pytest.mark.parametrize("name", ["t", "cosqa"])
def test_equals_coir_loader(tmp_path, monkeypatch, name):
    """coir-eval's own function reads a folder CoIR-Retrieval below the working directory."""
    folder = real_cosqa() if name == "cosqa" else write_coir(tmp_path / "data")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / "CoIR-Retrieval")
    [package] = importlib.util.find_spec("coir").submodule_search_locations
    spec = importlib.util.spec_from_file_location("coir_data_loader", f"{package}/data_loader.py")
    loader = importlib.util.module_from_spec(spec)  # the file alone: the package would load every model library
    spec.loader.exec_module(loader)
    theirs = loader.load_data_from_hf(name)
    documents, queries, qrels = contents(load_task(task("coir", name), tmp_path / "CoIR-Retrieval")[0])
    assert (documents, queries, qrels) == (joined(theirs[0]), theirs[1], theirs[2])


# --- the index of a corpus


def test_index_orders_ids_and_numbers_texts(tmp_path):
    texts = {"b": "same", "a": "other", "ü": "same", "b2": "same ", "z\x00": "other", "": "last"}
    documents = {id: ("", text) for id, text in texts.items()}
    folder = write_coir(tmp_path, documents=documents, qrels={"q1": {"a": 1}})
    [part] = load_task(task("coir"), folder, document_text="text")
    index = part.corpus.index
    assert [str(id) for id in index.ids] == list(texts)
    assert [str(id) for id in index.ids[np.argsort(index.rank)]] == sorted(texts)
    assert index.text.tolist() == [0, 1, 0, 2, 1, 3]
    assert list(part.corpus.unique_texts()) == ["same", "other", "same ", "last"]
    assert (len(part.corpus), index.unique_texts) == (6, 4)


# --- what is wrong


def line(path, number, text):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[: number - 1], text, *lines[number:]]) + "\n")


def qrels_of(relation):
    return lambda f: (f / "t/qrels/test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{relation}\n")


FAULTS = {
    "no qrels": (lambda f: (f / "t/qrels/test.tsv").unlink(), r"t/qrels: no test\.jsonl, test\.tsv"),
    "no corpus": (lambda f: (f / "t/corpus.jsonl").unlink(), r"/t: no corpus\.jsonl"),
    "empty corpus": (lambda f: (f / "t/corpus.jsonl").write_text(""), r"corpus\.jsonl: the corpus is empty"),
    "no judgement": (
        lambda f: (f / "t/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n"),
        "/t: t has no judged query",
    ),
    "broken json": (lambda f: line(f / "t/corpus.jsonl", 3, '{"_id": "d'), r"corpus\.jsonl:3: not JSON"),
    "not an object": (lambda f: line(f / "t/queries.jsonl", 2, "[1]"), r"queries\.jsonl:2: not a JSON object"),
    "no text": (lambda f: line(f / "t/corpus.jsonl", 2, '{"_id": "d2"}'), r"corpus\.jsonl:2: no 'text'; there are _id"),
    "not utf-8": (lambda f: (f / "t/corpus.jsonl").write_bytes(b"\xff\xfe"), r"corpus\.jsonl: not readable as text"),
    "document twice": (
        lambda f: line(f / "t/corpus.jsonl", 4, '{"_id": "d2", "text": "other"}'),
        r"corpus\.jsonl:4: document 'd2' stands twice, first in .*corpus\.jsonl:2",
    ),
    "query twice": (
        lambda f: line(f / "t/queries.jsonl", 3, '{"_id": "q1", "text": "birds"}'),
        r"queries\.jsonl:3: query 'q1' stands twice",
    ),
    "unknown query": (qrels_of("q9\td1\t1"), r"test\.tsv:2: query 'q9' is not in .*queries\.jsonl"),
    "unknown document": (
        qrels_of("q1\td1\t1\nq1\td3\t1"),
        r"test\.tsv:3: document 'd3', relevant to query 'q1', is not in the corpus \(1 such",
    ),
    "no header": (lambda f: line(f / "t/qrels/test.tsv", 1, "q2\td10\t1"), r"test\.tsv:2: no 'query_id'; there are q2"),
    "short line": (qrels_of("q1\td1"), r"test\.tsv:2: no 'score'; there are query_id, corpus_id"),
    "score": (qrels_of("q1\td1\tyes"), r"test\.tsv:2: score 'yes' is no integer"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line_with_their_place(tmp_path, fault):
    spoil, message = FAULTS[fault]
    folder = write_beir(tmp_path)
    assert load_task(task("beir"), folder)
    spoil(folder)
    with pytest.raises(BenchmarkError, match=message) as error:
        load_task(task("beir"), folder)
    assert "\n" not in str(error.value)


def test_own_id_cannot_be_relevant(tmp_path):
    folder = write_beir(tmp_path, queries={"d1": "cats"}, qrels={"d1": {"d1": 1}})
    with pytest.raises(BenchmarkError, match=r"test\.tsv:2: document 'd1', .* has the query's own id"):
        load_task(task("beir"), folder)


def test_known_gaps_of_a_published_benchmark(tmp_path):
    folder = write_beir(tmp_path, qrels={"q1": {"d1": 1, "gone": 1}, "q2": {"lost": 1, "unjudged": 0}})
    [part] = load_task(task("beir", unretrievable=2), folder)
    assert part.qrels == {"q1": {"d1": 1, "gone": 1}, "q2": {"lost": 1, "unjudged": 0}}
    with pytest.raises(BenchmarkError, match=re.escape("(2 such judgements, allowed are 1: ")):
        load_task(task("beir", unretrievable=1), folder)


def test_no_folder(tmp_path):
    with pytest.raises(BenchmarkError, match=r"nowhere: no such folder \(dataset 'set' of task beir/t\)"):
        load_task(task("beir"), tmp_path / "nowhere")


def test_unknown_part(tmp_path):
    with pytest.raises(BenchmarkError, match=r"rust-queries-corpus: no corpus\.jsonl"):
        load_task(task("coir", parts="t;rust"), write_coir(tmp_path))


def test_missing_shard(tmp_path):
    folder = write_coir(tmp_path)
    data = folder / "t-queries-corpus" / "data"
    (data / "corpus-00000-of-00001.parquet").rename(data / "corpus-00000-of-00002.parquet")
    with pytest.raises(BenchmarkError, match="1 of 2 shards are there"):
        load_task(task("coir"), folder)


def test_broken_parquet(tmp_path):
    folder = write_coir(tmp_path)
    path = folder / "t-qrels" / "data" / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BenchmarkError, match=r"test-00000-of-00001\.parquet: not readable as parquet"):
        load_task(task("coir"), folder)


def test_gold_and_excluded(tmp_path):
    folder = write_bright(tmp_path, documents={"a": "x"}, queries={"0": "y"}, gold={"0": ["a"]}, excluded={"0": ["a"]})
    with pytest.raises(BenchmarkError, match=r"parquet:1: document 'a' is both gold and excluded"):
        load_task(task("bright"), folder)


def test_queries_are_those_of_the_split(tmp_path):
    assert set(QUERIES) - set(load_task(task("beir"), write_beir(tmp_path))[0].queries) == {"q3"}


@pytest.mark.parametrize("suffix", ["tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("grades, whole", [([1, 2], True), ([1.0, 2.0], True), ([1, 0.5], False), ([1, None], False)])
def test_a_grade_means_the_same_in_every_format(tmp_path, suffix, grades, whole):
    """Cut to 0, a grade of 0.9 would take its query out of the mean."""
    write_beir(tmp_path)
    (tmp_path / "t/qrels/test.tsv").unlink()
    rows = [{"query-id": "q1", "corpus-id": f"d{n}", "score": grade} for n, grade in enumerate(grades, start=1)]
    path = tmp_path / f"t/qrels/test.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [rows[0], *(r.values() for r in rows)]))
    if whole:
        [part] = load_task(task("beir"), tmp_path)
        assert part.qrels == {"q1": {"d1": 1, "d2": 2}} and type(part.qrels["q1"]["d1"]) is int
    else:
        with pytest.raises(BenchmarkError, match="is no integer"):
            load_task(task("beir"), tmp_path)
