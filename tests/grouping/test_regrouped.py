"""Regrouped batches: the same chunks in other batches, whose embeddings survive a kill; by BM25 as by hand."""

import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from revela.evaluation.bm25 import BM25
from revela.grouping import GroupingError, chunks
from revela.grouping.bm25_neighbours import bm25_neighbours, by_bm25
from revela.grouping.embeddings import write_embeddings
from revela.grouping.neighbours import by_embedding
from revela.grouping.regrouped import write_neighbours, write_regrouped
from revela.grouping.report import measured, write_report
from revela.study.grouping import NeighbourSpec, RegroupSpec
from revela.study.system import Bm25
from revela.text.batches import BATCHES
from revela.text.parquet import read_table, write_table

WORDS = ["sort", "list", "read", "file", "open", "socket", "send", "byte", "draw", "line", "plot", "axis"]


@pytest.fixture
def batches(tmp_path):
    """Nine batches of four: of source a in rows 0-2 and 5-8, of b between. A chunk's text names its number."""
    rows = []
    for row in range(9):
        numbers = range(4 * row, 4 * row + 4)
        text = [f"chunk {number} {WORDS[number % 12]} {WORDS[number % 5]}" for number in numbers]
        rows.append(("b" if row in (3, 4) else "a", text, [f"doc{number // 6}" for number in numbers]))
    path = tmp_path / "batches.parquet"
    write_table(path, BATCHES, rows, lambda row: 1)
    return path


def spec(how, **settings):
    return RegroupSpec(**{"batch_size": 4, "seed": 5, "how": how, "keep_document": 0, "documents": True, **settings})


def contents(path):
    """(source, chunk, document) of all chunks, counted."""
    rows = list(read_table(path))
    assert all(len(row["text"]) == len(row["document"]) == 4 for row in rows)
    return Counter((row["src"], *pair) for row in rows for pair in zip(row["text"], row["document"]))


def neighbour_spec(neighbours, *, documents=True):
    return NeighbourSpec(
        system=Bm25(name="bm25", k1=0.9, b=0.4, weigh_queries=False),
        batch_size=4,
        neighbours=neighbours,
        documents=documents,
        seed=5,
    )


def write_by_bm25(batches, output):
    return write_neighbours(neighbour_spec(6), batches, by_bm25(neighbour_spec(6), batches), output)


def test_random_batches_have_the_same_chunks(batches, tmp_path):
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    counts = write_regrouped(spec("random"), batches, one)
    assert contents(one) == contents(batches)
    assert (counts["batches"], counts["chunks"], counts["sources"]) == (9, 36, {"a": 7, "b": 2})
    assert counts["parts"] == {"a": {"available": 7, "taken": 7}, "b": {"available": 2, "taken": 2}}
    assert pq.read_schema(one).equals(pq.read_schema(batches))
    write_regrouped(spec("random"), batches, other)
    assert one.read_bytes() == other.read_bytes()
    write_regrouped(spec("random", seed=6), batches, other)
    assert pq.read_table(one) != pq.read_table(other)


@pytest.mark.parametrize("how", ["mutual", "path", "cluster"])
def test_grouped_batches_have_chunks_of_the_corpus_once(batches, tmp_path, how):
    """And those that are alike, which two of each source are, never share one."""
    near = write_by_bm25(batches, tmp_path / "near.npz")
    assert {source: values["chunks"] for source, values in near.items()} == {"a": 28, "b": 8}
    labels = np.arange(36)
    labels[[3, 15]] = [0, 12]
    np.save(tmp_path / "alike.npy", labels)
    files = {"neighbours": tmp_path / "near.npz", "alike": tmp_path / "alike.npy"}
    made = tmp_path / "made.parquet"
    counts = write_regrouped(spec(how), batches, made, **files)
    assert counts["batches"] >= 8 and contents(made) <= contents(batches)
    for row in read_table(made):
        numbers = {int(text.split()[1]) for text in row["text"]}
        assert not ({0, 3} <= numbers or {12, 15} <= numbers)
    write_regrouped(spec(how), batches, tmp_path / "again.parquet", **files)
    assert (tmp_path / "again.parquet").read_bytes() == made.read_bytes()


def test_bm25_neighbours_are_those_of_its_ranking():
    """Against the scores of each pair, which the evaluation's index gives; a document's own chunks are left out."""
    texts = [f"{WORDS[n % 12]} {WORDS[n % 5]} {WORDS[n % 7]}" for n in range(20)]
    documents = np.arange(20) // 2
    found, scores = bm25_neighbours(texts, 5, BM25(), "texts", documents=documents)
    from revela.evaluation.bm25 import Index

    index = Index(BM25(), texts, "texts")
    for number, words in enumerate(index.documents):
        of_all = index.scores(words)
        others = [n for n in range(20) if documents[n] != documents[number]]
        best = sorted(others, key=lambda n: (-of_all[n], n))[:5]
        assert found[number].tolist() == best and np.allclose(scores[number], of_all[best])
    alone, none = bm25_neighbours(["sort list", "sort file"], 1, BM25(), "texts", documents=np.zeros(2, int))
    assert alone.tolist() == [[-1], [-1]] and (none == -np.inf).all()


class Ranker:
    """Embeds a text as its number and a one; it dies at the shard `at`."""

    passage_prefix, shard_documents, identity = "passage: ", 5, "numbers"

    def __init__(self, at=None):
        self.encoder, self.at, self.seen = self, at, []

    def prepare(self, texts, kind):
        assert kind == "passage" and all(text.startswith("passage: chunk ") for text in texts)
        return [int(text.split()[2]) for text in texts]

    def embed(self, numbers):
        if len(self.seen) == self.at:
            raise KeyboardInterrupt
        self.seen.append(numbers[0])
        return np.array([[3.0 * number, 4.0 * number + 1] for number in numbers])


def test_embeddings_go_on_after_a_kill(batches, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_text("1")
    whole, half = tmp_path / "whole.npy", tmp_path / "half.npy"

    def embed(ranker, output):
        state = tmp_path / "state"
        write_embeddings(ranker, [tmp_path / "model"], batches, 4, output, state=state)
        assert not state.exists()
        return np.load(output)

    vectors = embed(Ranker(), whole)
    expected = np.array([[3 * number, 4 * number + 1] for number in range(36)], float)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert vectors.dtype == np.float16 and np.allclose(vectors, expected, atol=1e-3)
    with pytest.raises(KeyboardInterrupt):
        embed(Ranker(at=3), half)
    assert not half.exists()
    ranker = Ranker()
    assert (embed(ranker, half) == vectors).all() and ranker.seen == [15, 20, 25, 30, 35]
    with pytest.raises(KeyboardInterrupt):  # what another model has embedded counts for nothing
        embed(Ranker(at=3), half)
    (tmp_path / "model/weights").write_text("2")
    ranker = Ranker()
    embed(ranker, half)
    assert ranker.seen[0] == 0

    # One that wrote over them before it failed leaves nothing to go on from, and neither does a cut-off removal.
    with pytest.raises(KeyboardInterrupt):
        embed(Ranker(at=3), half)
    (tmp_path / "model/weights").write_text("3")
    broken = Ranker()
    broken.embed = lambda numbers: np.full((len(numbers), 2), np.nan)
    with pytest.raises(GroupingError, match="chunk 0 is not finite"):
        embed(broken, half)
    (tmp_path / "model/weights").write_text("2")
    assert (embed(Ranker(), half) == vectors).all()
    with pytest.raises(KeyboardInterrupt):
        embed(Ranker(at=3), half)
    (tmp_path / "state/vectors.npy").unlink()
    assert (embed(Ranker(), half) == vectors).all()


def test_neighbours_by_embedding_are_found_within_a_source(batches, tmp_path):
    """Source a's chunks stand on both sides of b's, so its rows are gathered; b's are one block. A document is left out."""
    vectors = np.random.default_rng(0).normal(size=(36, 8)).astype(np.float16)
    np.save(tmp_path / "vectors.npy", vectors)
    spec, output = neighbour_spec(5), tmp_path / "neighbours.npz"
    counts = write_neighbours(spec, batches, by_embedding(spec, tmp_path / "vectors.npy", threads=1), output)
    assert {source: (of["chunks"], of["recall"]) for source, of in counts.items()} == {"a": (28, None), "b": (8, None)}
    with np.load(output) as found:
        for place, numbers in enumerate([[*range(12), *range(20, 36)], range(12, 20)]):
            own = vectors[np.array(numbers)].astype(np.float32)
            products = own @ own.T
            documents = np.array(numbers) // 6
            products[documents[:, None] == documents] = -np.inf
            best = np.argsort(-products, axis=1, kind="stable")[:, :5]
            there = np.take_along_axis(products, best, 1) > -np.inf
            assert (found[f"neighbours-{place}"] == np.where(there, best, -1)).all()


def test_chunks_of_one_document_have_no_neighbours(batches, tmp_path):
    def none(source, numbers, of_document, k):
        return np.full((len(numbers), k), -1, np.int32), np.full((len(numbers), k), -np.inf, np.float32), None

    found = write_neighbours(neighbour_spec(2, documents=False), batches, none, tmp_path / "neighbours.npz")
    assert {counts["similarity"] for counts in found.values()} == {None}
    json.loads((tmp_path / "neighbours.json").read_text(), parse_constant=pytest.fail)


def test_what_regrouping_did_by_hand(batches, tmp_path):
    rows = [
        {"text": ["a b c", "b c d", "e"], "document": ["x", "x", "y"]},  # 2 of 4 words, and none of two pairs
        {"text": ["a", "a", "A!"], "document": ["x", "x", "x"]},
    ]
    assert measured(rows, documents=True) == {"batches": 2, "same_document": 0.6667, "overlap": 0.5833}
    assert measured(rows, documents=False)["same_document"] is None
    write_by_bm25(batches, tmp_path / "near.npz")
    outputs = tmp_path / "report.json", tmp_path / "report.md"
    pair = ("before", batches), ("after", batches)
    report = write_report(*pair, tmp_path / "near.json", outputs, documents=True, seed=1)
    assert json.loads(outputs[0].read_text()) == report
    assert report["corpora"]["before"] == report["corpora"]["after"] and report["neighbours"]["a"]["recall"] is None
    page = outputs[1].read_text()
    assert page.count("### ") == 18 and "| before | 9 |" in page and "- `doc0`: chunk 0 sort sort" in page


def test_chunks_of_a_source_that_stand_together_are_not_read(batches):
    """As of the second one here; those of the first are apart."""
    vectors = np.arange(36)
    found = {source: chunks.rows(vectors, numbers) for source, numbers in chunks.by_source(batches, 4)}
    assert found["a"].tolist() == [*range(12), *range(20, 36)] and found["b"].tolist() == [*range(12, 20)]
    assert np.shares_memory(found["b"], vectors) and not np.shares_memory(found["a"], vectors)
