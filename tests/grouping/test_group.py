"""Groupings of twelve chunks worked by hand, and what holds for all groupings."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revela.grouping import GroupingError
from revela.grouping.batches import group
from revela.grouping.neighbours import neighbours

HOW = ("mutual", "path", "cluster")

# Twelve chunks on a line, 1, 2, .., 11 apart, and the three nearest of each. By degree 11 is first, then 0 and 10, then
# 1, 4, 5, 6, 7 and 9, then 2 and 8, then 3.
LINE = np.array([0, 1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 66])
NEAREST = np.array(
    [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 4, 1], [3, 5, 2], [4, 6, 3]]
    + [[5, 7, 4], [6, 8, 5], [7, 9, 6], [8, 10, 7], [9, 11, 8], [10, 9, 8]],
    np.int32,
)
CLOSENESS = -np.abs(LINE[NEAREST] - LINE[:, None]).astype(np.float32)
APART = np.arange(12)  # each of its own document
ONE_AND_TWO = np.array([0, 1, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11])  # are near-duplicates
THREE_PAIRS = np.array([0, 0, 9, 1, 1, 8, 2, 2, 7, 6, 5, 4])  # 0 and 1, 3 and 4, 6 and 7 are of one document


def twelve(how, documents=APART, keep_document=0.0, alike=None, seed=1, batch_size=4):
    return group(
        NEAREST,
        CLOSENESS,
        documents,
        batch_size=batch_size,
        how=how,
        keep_document=keep_document,
        alike=alike,
        seed=seed,
    )


def sets(batches):
    return {frozenset(batch) for batch in batches.tolist()}


def test_mutual():
    """Each edge joins two groups as long as they have four chunks at most: 0-1, 1-2, 2-3, then not 3-4, and so on."""
    assert twelve("mutual").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_mutual_edges_alone_join():
    """Of 2 and 4 only 4 is near the other, so 4 is joined by 4-5. Three chunks a batch: 0-1, 1-2; 3-4, 4-5; 6-7, 7-8."""
    assert twelve("mutual", batch_size=3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_mutual_without_near_duplicates():
    """1-2 and 0-2 are refused, so 2-3, 3-4 and 4-5 make a batch, and so do 6 to 9. 0 and 1 have no free neighbours."""
    assert twelve("mutual", alike=ONE_AND_TWO).tolist() == [[2, 3, 4, 5], [6, 7, 8, 9], [0, 1, 11, 10]]


def test_path():
    """From 11, whose degree is least, to the nearest each time."""
    assert twelve("path").tolist() == [[11, 10, 9, 8], [7, 6, 5, 4], [3, 2, 1, 0]]


def test_path_without_near_duplicates():
    """After 2 comes 0, since 1 is like 2. Then 1 alone is left for the batch, which is dropped."""
    assert twelve("path", alike=ONE_AND_TWO).tolist() == [[11, 10, 9, 8], [7, 6, 5, 4]]


@pytest.mark.parametrize("seed", range(5))
def test_cluster(seed):
    """11 with its nearest, 0 with its nearest, and the rest, whichever of them comes first."""
    batches = twelve("cluster", seed=seed)
    assert batches[:2].tolist() == [[11, 10, 9, 8], [0, 1, 2, 3]]
    assert sets(batches[2:]) == {frozenset([4, 5, 6, 7])}


@pytest.mark.parametrize("seed", range(5))
def test_cluster_without_near_duplicates(seed):
    """0 takes 1 and 3, and by 3 its neighbour 4."""
    batches = twelve("cluster", alike=ONE_AND_TWO, seed=seed)
    assert batches[:2].tolist() == [[11, 10, 9, 8], [0, 1, 3, 4]]
    assert sets(batches[2:]) == {frozenset([2, 5, 6, 7])}


def test_mutual_with_a_pair_of_a_document_in_each_batch():
    """7-8 and 8-9 complete the pair 6, 7. 0 and 1 take 2, 3 and 4 take 5, and what both lack comes by its degree."""
    batches = twelve("mutual", THREE_PAIRS, keep_document=0.5)
    assert batches.tolist() == [[6, 7, 8, 9], [0, 1, 2, 11], [3, 4, 5, 10]]


def test_path_with_a_pair_of_a_document_in_each_batch():
    """0, 1, 2, and 3 must wait, so 11 goes on: 10, 9, by 7 its pair, 5, by 4 its pair, and 8 is left."""
    batches = twelve("path", THREE_PAIRS, keep_document=0.5)
    assert batches.tolist() == [[0, 1, 2, 11], [10, 9, 7, 6], [5, 4, 3, 8]]


@pytest.mark.parametrize("seed", range(5))
def test_cluster_with_a_pair_of_a_document_in_each_batch(seed):
    """After 0, 1, 2 and 11, either 4 or 6 and 7 come first, whose degree is the same."""
    batches = twelve("cluster", THREE_PAIRS, keep_document=0.5, seed=seed)
    assert batches[0].tolist() == [0, 1, 2, 11]
    four_first = {frozenset([3, 4, 5, 10]), frozenset([6, 7, 8, 9])}
    six_first = {frozenset([5, 6, 7, 8]), frozenset([3, 4, 9, 10])}
    assert sets(batches[1:]) in (four_first, six_first)


def test_more_pairs_than_needed_are_drawn():
    documents = np.arange(12) // 2
    drawn = {
        str(sorted(sets(twelve("mutual", documents, keep_document=0.5, seed=seed)), key=min)) for seed in range(20)
    }
    assert len(drawn) > 1


def test_the_number_of_batches_follows_from_the_pairs():
    two_pairs = np.array([0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    for how in HOW:
        assert twelve(how, two_pairs, keep_document=0.5).shape == (2, 4)  # of twelve chunks


@pytest.mark.parametrize("how", HOW)
def test_what_cannot_be_grouped(how):
    with pytest.raises(GroupingError, match="12 chunks are too few for a batch of 16"):
        twelve(how, batch_size=16)
    with pytest.raises(GroupingError, match="needs 2 pairs of chunks of one document; there are 0"):
        twelve(how, keep_document=1.0)
    with pytest.raises(GroupingError, match="needs 1 pairs .* there are 0"):  # the only pair is of near-duplicates
        twelve(how, np.array([0, 1, 1, *range(3, 12)]), keep_document=0.1, alike=ONE_AND_TWO)
    assert twelve(how, alike=np.zeros(12, int)).shape == (0, 4)  # all are alike


@st.composite
def corpora(draw):
    count, batch_size = draw(st.integers(8, 90)), draw(st.integers(2, 8))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    vectors = random.standard_normal((count, 3)).astype(np.float32)
    near, products = neighbours(vectors, draw(st.integers(1, 6)), seed=1)
    documents = random.integers(draw(st.integers(1, count)), size=count)
    alike = random.integers(draw(st.integers(1, 2 * count)), size=count) if draw(st.booleans()) else None
    return near, products, documents, batch_size, draw(st.sampled_from([0, 0.2, 0.5, 0.8, 1])), alike


@pytest.mark.parametrize("how", HOW)
@settings(max_examples=25, deadline=None)
@given(corpus=corpora(), seed=st.integers(0, 3))
def test_rules(how, corpus, seed):
    near, products, documents, batch_size, keep, alike = corpus
    options = {"batch_size": batch_size, "how": how, "keep_document": keep, "alike": alike, "seed": seed}
    try:
        batches = group(near, products, documents, **options)
    except GroupingError:
        return
    assert batches.dtype == np.int64 and batches.shape[1] == batch_size
    used = batches.ravel()
    assert len(set(used.tolist())) == len(used) and (used >= 0).all() and (used < len(documents)).all()
    np.testing.assert_array_equal(batches, group(near, products, documents, **options))
    for batch in batches:
        assert alike is None or len(set(alike[batch])) == batch_size
        pairs = (np.unique(documents[batch], return_counts=True)[1] // 2).sum()
        assert pairs >= min(math.ceil(keep * batch_size / 2 - 1e-9), batch_size // 2)
    if alike is None and not keep:
        assert len(documents) - batches.size < batch_size
    elif alike is None:
        available = (np.unique(documents, return_counts=True)[1] // 2).sum()
        wanted = min(math.ceil(keep * batch_size / 2 - 1e-9), batch_size // 2)
        assert len(batches) == min(available // wanted, len(documents) // batch_size)
    elif not keep:  # another batch could not have been made
        left = np.setdiff1d(np.arange(len(documents)), used)
        assert len(set(alike[left])) < batch_size


@pytest.mark.parametrize("how", HOW)
def test_chunks_of_a_topic_come_together(how):
    """300 chunks of 20 topics: by chance one in 20 of a batch's pairs would be of one topic."""
    random = np.random.default_rng(1)
    topic = random.integers(20, size=300)
    vectors = random.standard_normal((20, 16))[topic] + 0.3 * random.standard_normal((300, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    near, products = neighbours(vectors, 8, seed=1)
    batches = group(near, products, np.arange(300), batch_size=4, how=how, keep_document=0, alike=None, seed=1)
    same = (topic[batches][:, :, None] == topic[batches][:, None]).mean()
    assert (same * 16 - 4) / 12 > 0.6  # a path that ends goes on elsewhere
