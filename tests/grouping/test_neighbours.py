"""Neighbours against float64, and the inverted file against the exact search."""

import builtins

import numpy as np
import pytest

from revela.grouping import GroupingError
from revela.grouping.neighbours import neighbours, recall


def clustered(count, width=32, centres=60, seed=0):
    """Unit rows about centres that are themselves about a few topics."""
    draw = np.random.default_rng(seed)
    topics = draw.standard_normal((6, width))
    about = topics[draw.integers(6, size=centres)] + 0.7 * draw.standard_normal((centres, width))
    rows = about[draw.integers(centres, size=count)] + 0.6 * draw.standard_normal((count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def brute_force(vectors, k, documents=None):
    products = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    np.fill_diagonal(products, -np.inf)
    if documents is not None:
        products[documents[:, None] == documents] = -np.inf
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(products, order, axis=1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("per_document", [None, 5])
def test_exact_neighbours_are_those_of_float64(dtype, per_document, monkeypatch):
    monkeypatch.setattr("revela.grouping.neighbours.SCORES_AT_A_TIME", 2**12)  # several blocks on both sides
    monkeypatch.setattr("revela.grouping.neighbours.ROWS_AT_A_TIME", 2**6)
    vectors = clustered(300).astype(dtype)
    documents = None if per_document is None else np.arange(300) // per_document
    found, products = neighbours(vectors, 7, documents=documents, seed=1)
    expected, true_products = brute_force(vectors, 7, documents)
    assert found.dtype == np.int32 and products.dtype == np.float32
    np.testing.assert_allclose(products, true_products, atol=1e-6)
    ours = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    np.testing.assert_allclose(np.take_along_axis(ours, found, axis=1), true_products, atol=1e-6)
    assert (found == expected).mean() > 0.99  # the rest are ties


def test_where_there_are_fewer():
    vectors = clustered(4)
    found, products = neighbours(vectors, 5, seed=1)
    assert (found[:, 3:] == -1).all() and np.isneginf(products[:, 3:]).all()
    assert sorted(found[0, :3]) == [1, 2, 3]
    found, products = neighbours(vectors, 5, documents=np.array([0, 0, 0, 1]), seed=1)
    assert found[0].tolist() == [3, -1, -1, -1, -1] and np.isneginf(products[0, 1:]).all()
    assert sorted(found[3, :3]) == [0, 1, 2]


@pytest.fixture(scope="module")
def many():
    return clustered(2500)


@pytest.mark.parametrize("per_document", [None, 4])
def test_the_inverted_file_finds_nearly_all(many, per_document, tmp_path):
    np.save(tmp_path / "vectors.npy", many)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    documents = None if per_document is None else np.arange(len(many)) // per_document
    found, products = neighbours(mapped, 10, documents=documents, exact=False, seed=3)
    measured = recall(mapped, (found, products), documents=documents, seed=3)
    _, truth = brute_force(many, 10, documents)
    everywhere = (products >= truth[:, -1:] - 1e-6).mean()
    assert measured >= 0.95 and everywhere >= 0.95 and abs(measured - everywhere) < 0.02
    assert (found != np.arange(len(many))[:, None]).all() and (np.diff(products, axis=1) <= 0).all()
    if documents is not None:
        assert (documents[found] != documents[:, None])[found >= 0].all()
    again = neighbours(mapped, 10, documents=documents, exact=False, seed=3)
    np.testing.assert_array_equal(found, again[0])


def test_equal_vectors_count_for_each_other():
    vectors = np.repeat(clustered(40), 50, axis=0)
    found = neighbours(vectors, 8, exact=False, seed=1)
    assert recall(vectors, found, seed=1) == 1


def test_the_recall_is_measured():
    vectors = clustered(500)
    found, products = neighbours(vectors, 4, seed=1)
    products[:, 1:] = -np.inf  # one of four is left
    assert recall(vectors, (found, products), seed=1) == 0.25


def test_without_faiss(many, monkeypatch):
    original = builtins.__import__

    def missing(name, *rest):
        if name == "faiss":
            raise ModuleNotFoundError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(GroupingError, match="pip install faiss-cpu"):
        neighbours(many, 3, exact=False, seed=1)
