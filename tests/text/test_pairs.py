"""Contriever's pairs: what is removed and what remains, spans, negatives from other documents."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpus_specs import pairs_of
from test_chunking import write_punkt

from revela.study.settings import Corpus
from revela.text import CorpusError
from revela.text.batches import BATCHES
from revela.text.chunking import sentence_splitter
from revela.text.pairs import crop, inverse_cloze, write_pairs
from revela.text.parquet import write_table

RATIO = (0.05, 0.5)


@pytest.fixture(scope="module")
def punkt(tmp_path_factory):
    return write_punkt(tmp_path_factory.mktemp("punkt"))


@pytest.fixture
def split_sentences(punkt):
    return sentence_splitter(punkt)


def chunk_text(document, place):
    """Three sentences; every word names its document and its chunk."""
    return " ".join(" ".join(f"d{document}c{place}s{s}w{w}" for w in range(8)) + "." for s in range(3))


@pytest.fixture
def batches(tmp_path):
    """40 batches of 4: two chunks of one document and two of the next, 41 documents in all."""
    rows = []
    for i in range(40):
        ids, places = [i, i + 1, i, i + 1], [2, 0, 3, 1]
        rows.append(("a", [chunk_text(d, p) for d, p in zip(ids, places)], [f"a/{d}" for d in ids]))
    write_table(tmp_path / "batches.parquet", BATCHES, rows, lambda row: sum(map(len, row[1])))
    return tmp_path / "batches.parquet"


def make(batches, punkt, *, name="pairs", seed=0, pairs=None, batch_size=4):
    output = batches.parent / f"{name}.parquet"
    corpus = Corpus(sources=[{"dataset": "a"}], pairs=pairs, crop_ratio=RATIO)
    counts = write_pairs(pairs_of(corpus, batch_size, seed), batches, punkt, output)
    return counts, pq.read_table(output).to_pylist()


def test_a_sentence_and_the_rest(split_sentences):
    text = "Same again. One two.\n    Same again. Three!"
    seen = {inverse_cloze(text, split_sentences, RATIO, np.random.default_rng(seed)) for seed in range(40)}
    assert seen == {
        ("Same again.", "One two.\n    Same again. Three!"),
        ("One two.", "Same again. Same again. Three!"),
        ("Same again.", "Same again. One two. Three!"),
        ("Three!", "Same again. One two.\n    Same again."),
    }


def test_one_sentence_gives_a_span(split_sentences):
    text = "a b c d e f g h i j"
    for seed in range(40):
        query, rest = inverse_cloze(text, split_sentences, RATIO, np.random.default_rng(seed))
        before, after = text.split(query)
        assert 1 <= len(query.split()) <= 5
        assert rest.split() == before.split() + after.split() != []


@pytest.mark.parametrize(("words", "least", "most"), [(2, 1, 1), (10, 1, 5), (200, 10, 100)])
def test_a_span_is_a_share_of_its_text(words, least, most):
    text = "\n".join(f"w{i}" for i in range(words))
    spans = [crop(text, RATIO, np.random.default_rng(seed)) for seed in range(200)]
    assert all(span in text for span in spans)
    lengths = [len(span.split()) for span in spans]
    assert min(lengths) >= least and max(lengths) <= most
    assert min(lengths) <= 2 * least and max(lengths) >= 0.9 * most
    if words == 10:
        assert any(span.startswith("w0") for span in spans) and any(span.endswith(f"w{words - 1}") for span in spans)


def test_half_of_the_pairs_by_each_task(batches, punkt):
    counts, rows = make(batches, punkt)
    assert (counts["pairs"], counts["inverse_cloze"], counts["independent_cropping"]) == (40, 20, 20) and len(
        rows
    ) == 40
    assert json.loads((batches.parent / "pairs.json").read_text()) == counts
    for index, row in enumerate(rows):
        query, positive, document = row["query"], row["passages"][0], row["document"][0]
        number = document.removeprefix("a/")
        places = {word.split("s")[0] for text in (query, positive) for word in text.split()}
        assert places <= {f"d{number}c{place}" for place in range(4)}  # one document
        if index % 2 == 0:  # a sentence of a chunk, and its two others
            assert len(places) == 1
            chunk = chunk_text(number, int(places.pop()[-1]))
            assert sorted(query.split() + positive.split()) == sorted(chunk.split())
            assert len(query.split()) == 8
        else:  # spans of one or two chunks
            for span in (query, positive):
                assert 2 <= len(span.split()) <= 24
            assert len(places) <= 2


def test_negatives_are_other_documents_positives(batches, punkt):
    _, rows = make(batches, punkt, pairs=160)  # about two of each document by each task
    for index, row in enumerate(rows):
        assert len(row["passages"]) == len(row["document"]) == 4 and row["src"] == "a"
        assert row["document"][0] not in row["document"][1:]
        assert len(set(row["passages"])) == 4
        positives = {other["passages"][0]: other["document"][0] for other in rows[index % 2 :: 2]}
        assert all(positives[p] == d for p, d in zip(row["passages"], row["document"], strict=True))
    assert len({text for row in rows for text in row["passages"][1:]}) > 120  # from anywhere


def test_twins_of_the_positive_are_no_negatives(tmp_path, punkt):
    # eight documents that say the same, and four others
    texts = ["Same first. Same second."] * 8 + [f"Only {i}. Other {i}." for i in range(4)]
    rows = [("a", [texts[i], texts[i]], [f"a/{i}"] * 2) for i in range(12)]
    write_table(tmp_path / "batches.parquet", BATCHES, rows, len)
    _, found = make(tmp_path / "batches.parquet", punkt, batch_size=2, pairs=24)
    assert all(row["passages"][0] != row["passages"][1] for row in found)


def test_pairs_follow_the_seed(batches, punkt):
    make(batches, punkt, name="one")
    make(batches, punkt, name="two")
    assert (batches.parent / "one.parquet").read_bytes() == (batches.parent / "two.parquet").read_bytes()
    assert make(batches, punkt, seed=1)[1] != make(batches, punkt, name="one")[1]


def test_more_pairs_than_batches_take_other_chunks(batches, punkt):
    counts, rows = make(batches, punkt, pairs=150)
    assert counts["pairs"] == len(rows) == 150
    # 30 batches give all four of their chunks, ten give three
    assert counts["inverse_cloze"] == counts["independent_cropping"] == 75
    assert len({row["passages"][0] for row in rows[::2]}) == 75


def test_fewer_pairs_than_batches_come_from_all_over(batches, punkt):
    _, rows = make(batches, punkt, pairs=20)
    documents = [int(row["document"][0].removeprefix("a/")) for row in rows]
    assert len(rows) == 20 and len(set(documents)) > 12
    assert min(documents) < 10 and max(documents) > 30


def test_what_cannot_be_is_one_line(batches, tmp_path, punkt):
    with pytest.raises(CorpusError, match=r"161 pairs are wanted, .*batches\.parquet gives 160 at most") as error:
        make(batches, punkt, pairs=161)
    assert "\n" not in str(error.value)
    rows = [("a", ["One. Two.", "Three. Four."], ["a/0", "a/0"])]
    write_table(tmp_path / "small.parquet", BATCHES, rows, len)
    with pytest.raises(CorpusError, match=r"1 negatives from other documents are wanted, 0 exist beside document a/0"):
        make(tmp_path / "small.parquet", punkt, batch_size=2)
    rows = [("a", ["One.", "Two."], ["a/0", "a/1"])]
    write_table(tmp_path / "short.parquet", BATCHES, rows, len)
    with pytest.raises(CorpusError, match=r"short\.parquet: row 0 has 0 chunks of two words, 1 are wanted"):
        make(tmp_path / "short.parquet", punkt, batch_size=2)
    assert not (tmp_path / "pairs.parquet").exists()
