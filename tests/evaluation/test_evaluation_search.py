"""Streaming search finds what brute force finds, in trec_eval's order, for any size of the shards."""

import threading

import numpy as np
import pytest
from benchmark_folders import Encoder, task, write_coir

from revela.evaluation import EvaluationError, search
from revela.evaluation.bm25 import best_documents
from revela.evaluation.search import TopK
from revela.evaluation.tasks import load_task


def corpus(folder, texts):
    """The corpus of documents id -> text."""
    documents = {id: ("", text) for id, text in texts.items()}
    write_coir(folder, documents=documents, qrels={"q1": {next(iter(documents)): 1}})
    return load_task(task("coir"), folder)[0].corpus


def table(vectors):
    """An encoder that knows the vector of each text."""
    return Encoder(lambda texts: np.array([vectors[text] for text in texts], np.float32))


def brute_force(queries, texts, vectors, k):
    """Every score, sorted by score and then by descending id."""
    rankings = []
    for query in queries:
        scored = [(float(np.dot(query, np.float32(vectors[text]))), id) for id, text in texts.items()]
        rankings.append([(id, score) for score, id in sorted(scored, reverse=True)[:k]])
    return rankings


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """300 documents with small integers as coordinates, so that scores are exact and many of them tie.

    Every fifth text is that of an earlier document, mostly of another shard.
    """
    rng = np.random.default_rng(0)
    texts = {}
    for number, name in enumerate(rng.permutation(300)):
        again = number % 5 == 4
        texts[f"d{name}"] = texts[f"{rng.choice(list(texts))}"] if again else f"text {number}"
    vectors = {text: rng.integers(-2, 3, 6) for text in set(texts.values())}
    queries = rng.integers(-2, 3, (7, 6)).astype(np.float32)
    return corpus(tmp_path_factory.mktemp("case"), texts), texts, vectors, queries


@pytest.mark.parametrize("k", [1, 10, 299, 1000])
@pytest.mark.parametrize("shard", [1, 7, 100, 10_000])
def test_equals_brute_force(case, shard, k):
    documents, texts, vectors, queries = case
    found = list(search.search(queries, documents, table(vectors), top_k=k, shard_documents=shard))
    assert found == brute_force(queries, texts, vectors, k)


def test_blocks_of_queries(case, monkeypatch):
    documents, texts, vectors, queries = case
    monkeypatch.setattr(search, "SCORES_AT_A_TIME", 100)
    found = list(search.search(queries, documents, table(vectors), top_k=20, shard_documents=50))
    assert found == brute_force(queries, texts, vectors, 20)


def test_the_shards_may_get_better_and_better():
    """Each new shard replaces all that was kept, which is the worst case for the threshold."""
    top = TopK(np.ones((2, 1), np.float32), 3)
    for first in range(0, 20, 5):
        top.add(np.arange(first, first + 5, dtype=np.float32)[:, None], np.arange(first, first + 5))
    scores, ranks = top.result()
    assert scores.tolist() == [[19, 18, 17]] * 2
    assert ranks.tolist() == [[19, 18, 17]] * 2


def test_order_of_scores_and_ranks():
    """Of float32 in all its signs; -0.0 and 0.0 are one score, as they are to trec_eval."""
    import torch

    values = [0.0, -0.0, 1e-38, -1e-38, 3e38, -3e38, -1.0, 1.0, 1 + 2**-23, -0.0, 1e-45, -1e-45]
    scores, ranks = torch.tensor(values), torch.arange(len(values))
    found, order = search._unpack(search._pack(scores, ranks).sort(descending=True).values)
    expected = sorted(zip(scores.tolist(), range(len(values)), strict=True), reverse=True)
    assert list(zip(found.tolist(), order.tolist(), strict=True)) == expected


def test_random_embeddings_against_a_full_sort():
    rng = np.random.default_rng(1)
    queries, documents = rng.standard_normal((5, 16), np.float32), rng.standard_normal((1000, 16), np.float32)
    top = TopK(queries, 50)
    for first in range(0, 1000, 130):
        top.add(documents[first : first + 130], np.arange(first, min(first + 130, 1000)))
    scores, ranks = top.result()
    exact = queries.astype(float) @ documents.astype(float).T
    assert np.array_equal(ranks, np.argsort(-exact)[:, :50])
    np.testing.assert_allclose(scores, -np.sort(-exact)[:, :50], rtol=1e-5)


def test_equal_texts_are_encoded_once_and_tie(tmp_path):
    texts = {"a": "same", "b": "other", "c": "same", "z": "same", "d": "third"}
    rng = np.random.default_rng(2)
    encode = table({text: rng.standard_normal(768) for text in texts.values()})
    queries = rng.standard_normal((33, 768), np.float32)
    rankings = list(search.search(queries, corpus(tmp_path, texts), encode, top_k=5, shard_documents=2))
    assert encode.texts == ["same", "other", "third"]
    for ranking in rankings:
        duplicates = [(id, score) for id, score in ranking if id in "acz"]
        assert [id for id, _ in duplicates] == ["z", "c", "a"]
        assert len({score for _, score in duplicates}) == 1


def test_ties_fall_by_descending_id_even_at_the_cut(tmp_path):
    texts = {"d1": "one", "d9": "one", "d10": "two", "d2": "two"}
    vectors = {"one": [1.0], "two": [1.0]}
    documents = corpus(tmp_path, texts)
    for k in (1, 2, 3, 4):
        [ranking] = search.search(np.ones((1, 1), np.float32), documents, table(vectors), top_k=k, shard_documents=1)
        assert [id for id, _ in ranking] == ["d9", "d2", "d10", "d1"][:k]


def test_dot_and_cosine(tmp_path):
    documents = corpus(tmp_path, {"long": "x", "near": "y", "zero": "z"})
    vectors = {"x": [10.0, 10.0], "y": [1.0, 0.0], "z": [0.0, 0.0]}
    query = np.array([[2.0, 0.0]], np.float32)

    def found(similarity):
        [ranking] = search.search(query, documents, table(vectors), top_k=3, shard_documents=9, similarity=similarity)
        return ranking

    assert found("dot") == [("long", 20.0), ("near", 2.0), ("zero", 0.0)]
    assert found("cosine") == [("near", 1.0), ("long", pytest.approx(0.5**0.5)), ("zero", 0.0)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_must_be_finite(tmp_path, value):
    documents = corpus(tmp_path, {"good": "x", "bad": "y"})
    encode = table({"x": [1.0], "y": [value]})
    with pytest.raises(EvaluationError, match="the embedding of document 'bad' is not finite"):
        list(search.search(np.ones((1, 1), np.float32), documents, encode, top_k=1, shard_documents=1))
    with pytest.raises(EvaluationError, match="the embedding of query number 1 .from 0. is not finite"):
        list(search.search(np.float32([[1], [value]]), documents, encode, top_k=1, shard_documents=1))


def test_best_documents_of_a_sparse_ranking(tmp_path):
    documents = corpus(tmp_path, {id: id for id in ("d1", "d2", "d3", "d10", "d20")})
    scores = np.array([0.5, 0.0, 0.5, 0.5, 2.0], np.float32)
    everything = [("d20", 2.0), ("d3", 0.5), ("d10", 0.5), ("d1", 0.5)]
    for k in (1, 2, 3, 4, 9):
        assert best_documents(documents, scores, k) == everything[:k]
    assert best_documents(documents, np.zeros(5, np.float32), 3) == []


# --- the next shard is tokenised while this one is in the model


def test_the_next_shard_is_prepared_while_this_one_is_in_use(tmp_path):
    texts = {f"d{number}": f"text {number}" for number in range(3)}
    prepared = {text: threading.Event() for text in texts.values()}

    class Watched(Encoder):
        def prepare(self, texts, kind):
            assert kind == "passage" and threading.current_thread() is not threading.main_thread()
            prepared[texts[0]].set()
            return texts

    def encode(texts):
        following = prepared.get(f"text {int(texts[0][-1]) + 1}")
        assert following is None or following.wait(10)
        return np.ones((1, 1), np.float32)

    encoder = Watched(encode)
    list(search.search(np.ones((1, 1), np.float32), corpus(tmp_path, texts), encoder, top_k=3, shard_documents=1))
    assert encoder.texts == list(texts.values())


def test_an_error_in_preparation_is_raised(tmp_path):
    class Broken(Encoder):
        def prepare(self, texts, kind):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        documents = corpus(tmp_path, {"d": "text"})
        list(search.search(np.ones((1, 1), np.float32), documents, Broken(None), top_k=1, shard_documents=1))


# --- searches that were stopped


class Stopped(Exception):
    pass


def stops_at(vectors, shard):
    """An encoder that is killed in a shard."""
    encoder = table(vectors)

    def encode(texts):
        if len(encoder.calls) == shard + 1:
            raise Stopped
        return np.array([vectors[text] for text in texts], np.float32)

    encoder.encode = encode
    return encoder


@pytest.mark.parametrize("shard", [0, 1, 3])
def test_goes_on_after_the_last_whole_shard(case, tmp_path, shard):
    documents, texts, vectors, queries = case
    options = {"top_k": 20, "shard_documents": 60, "state": tmp_path / "state.npz"}
    with pytest.raises(Stopped):
        list(search.search(queries, documents, stops_at(vectors, shard), **options))
    encoder = table(vectors)
    assert list(search.search(queries, documents, encoder, **options)) == brute_force(queries, texts, vectors, 20)
    unique = list(documents.unique_texts())
    assert encoder.texts == unique[60 * shard :]
    # what is whole is not encoded again
    again = table(vectors)
    assert list(search.search(queries, documents, again, **options)) == brute_force(queries, texts, vectors, 20)
    assert not again.calls


@pytest.mark.parametrize("changed", ["queries", "top_k", "prefix", "identity", "documents"])
def test_does_not_go_on_from_another_search(case, tmp_path, capsys, changed):
    documents, texts, vectors, queries = case
    options = {"top_k": 20, "shard_documents": 60, "state": tmp_path / "state.npz"}
    list(search.search(queries, documents, table(vectors), **options))
    if changed == "queries":
        queries = queries + 1
    elif changed == "top_k":
        options["top_k"] = 10
    elif changed == "identity":
        options["identity"] = "max_length 10"
    elif changed == "prefix":
        vectors, options["prefix"] = {f"p {text}": vector for text, vector in vectors.items()}, "p "
    else:
        texts = {id: text for id, text in texts.items() if id != next(iter(texts))}
        documents = corpus(tmp_path, texts)
    encoder = table(vectors)
    found = list(search.search(queries, documents, encoder, **options))
    assert len(encoder.texts) == documents.index.unique_texts
    plain = {text.removeprefix("p "): vector for text, vector in vectors.items()}
    assert found == brute_force(queries, texts, plain, options["top_k"])
    assert "of another search, so this one starts anew" in capsys.readouterr().err
