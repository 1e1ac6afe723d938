"""Interleaving and batches: hand-worked orders, and what holds for any documents."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revela.text.batching import batches, interleave


def document(name, length):
    return [f"{name}{i}" for i in range(1, length + 1)]


def test_three_documents_by_hand():
    # section 4.1: d11, d21, .., dn1, d12, ..
    documents = [document("a", 3), document("b", 3), document("c", 3)]
    assert list(interleave(documents, 3)) == ["a1", "b1", "c1", "a2", "b2", "c2", "a3", "b3", "c3"]


def test_groups_follow_one_another():
    documents = [document(name, 2) for name in "abcde"]
    assert list(interleave(documents, 2)) == ["a1", "b1", "a2", "b2", "c1", "d1", "c2", "d2", "e1", "e2"]


def test_a_document_that_has_run_out_is_passed_over():
    documents = [document("a", 1), document("b", 4), document("c", 2)]
    assert list(interleave(documents, 3)) == ["a1", "b1", "c1", "b2", "c2", "b3", "b4"]


def test_a_group_of_one_is_the_text_in_its_order():
    documents = [document("a", 2), document("b", 3)]
    assert list(interleave(documents, 1)) == ["a1", "a2", "b1", "b2", "b3"]


def test_chunks_that_are_none_or_empty_are_kept():
    assert list(interleave([[None, ""], [None]], 2)) == [None, None, ""]


def test_no_document_gives_no_chunk():
    assert list(interleave([], 2)) == []
    assert list(interleave([[], ["b1"], []], 2)) == ["b1"]


@given(lengths=st.lists(st.integers(0, 7), max_size=12), group_size=st.integers(1, 5), size=st.integers(1, 6))
def test_any_documents(lengths, group_size, size):
    documents = [[(i, j) for j in range(length)] for i, length in enumerate(lengths)]
    order = list(interleave(documents, group_size))
    assert sorted(order) == [chunk for one in documents for chunk in one]  # each exactly once
    for i, one in enumerate(documents):
        assert [chunk for chunk in order if chunk[0] == i] == one
    assert order == sorted(order, key=lambda chunk: (chunk[0] // group_size, chunk[1], chunk[0]))
    found = list(batches(order, size))
    assert len(found) == len(order) // size
    assert [chunk for batch in found for chunk in batch] == order[: len(found) * size]
    assert all(len(batch) == size for batch in found)


def test_only_what_is_asked_for_is_read():
    endless = (document(f"d{i}-", 3) for i in itertools.count())
    stream = batches(interleave(endless, 2), 4)
    assert next(stream) == ["d0-1", "d1-1", "d0-2", "d1-2"]


def test_groups_have_a_document():
    with pytest.raises(ValueError, match="group_size must be at least 1, got 0"):
        list(interleave([["a"]], 0))
