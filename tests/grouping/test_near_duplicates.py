"""Near-duplicates on texts made by hand, and against the Jaccard similarity itself."""

import random

import numpy as np

from revela.grouping.near_duplicates import _shingles, near_duplicates


def words(seed, count=60):
    draw = random.Random(seed)
    return [f"w{draw.randrange(5000)}" for _ in range(count)]


def test_labels():
    one, other = words(1), words(2)
    changed = one[:-1] + ["else"]  # one shingle of 56 differs
    half = one[:30] + words(3)[30:]
    texts = [one, other, changed, half, one, [word.upper() for word in other]]
    labels = near_duplicates((" ".join(text) for text in texts), 0.8, seed=1)
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 0, 3, 0, 1]


def test_punctuation_does_not_count_where_there_are_words():
    labels = near_duplicates(["a b", "a, b.", "a c", "{ }", "{ }", "[ ]", "", " "], 0.8, seed=1)
    assert labels.tolist() == [0, 0, 2, 3, 3, 5, 6, 6]


def test_a_chain_is_one_kind():
    first = words(1, 100)
    chain = [first]
    for step in range(1, 12):  # each differs from the one before it in a word at the edge
        chain.append(chain[-1][1:] + [f"new{step}"])
    labels = near_duplicates((" ".join(text) for text in chain), 0.85, seed=1)
    assert set(labels) == {0}
    apart = near_duplicates([" ".join(chain[0]), " ".join(chain[-1])], 0.85, seed=1)
    assert apart.tolist() == [0, 1]


def test_against_jaccard():
    """Pairs well above the threshold have one label, pairs well below it have two."""
    draw, texts = random.Random(5), []
    for kind in range(60):
        base = words(100 + kind, 80)
        changed = list(base)
        for place in draw.sample(range(80), kind % 12):
            changed[place] = "new"
        texts += [" ".join(base), " ".join(changed)]
    labels = near_duplicates(texts, 0.7, seed=2)
    for first, second in zip(texts[::2], texts[1::2], strict=True):
        a, b = set(_shingles(first)), set(_shingles(second))
        jaccard, same = len(a & b) / len(a | b), labels[texts.index(first)] == labels[texts.index(second)]
        if abs(jaccard - 0.7) > 0.15:
            assert same == (jaccard > 0.7), jaccard
    assert len({*labels.tolist()}) >= 60  # kinds stay apart


def test_shingles():
    assert list(_shingles("One two, three four five. SIX")) == [b"one two three four five", b"two three four five six"]
    assert list(_shingles("One two")) == [b"one two"]


def test_a_text_that_is_there_often_costs_little_and_the_seed_decides():
    texts = ["the same licence of each file " * 5] * 3000 + [" ".join(words(seed)) for seed in range(20)]
    labels = near_duplicates(texts, 0.8, seed=1)
    assert labels.tolist() == [0] * 3000 + list(range(3000, 3020))
    np.testing.assert_array_equal(labels, near_duplicates(iter(texts), 0.8, seed=1))
    assert near_duplicates([], 0.8, seed=1).shape == (0,)
