"""Batches: hand-worked ones, draws by the seed, shares of sources, mixes and ready batches."""

import json

import pyarrow.parquet as pq
import pytest
from corpus_specs import batches_of
from text_files import corpus, lines, make_chunks, one_line, rows_of, write

import revela.text.parquet
from revela.study.settings import Corpus
from revela.text import CorpusError
from revela.text.batches import write_batches


def test_batches_by_hand(tmp_path):
    chunks = make_chunks(tmp_path / "chunks.parquet", {"a": [3, 2, 4], "b": [5]})
    counts = write_batches(batches_of(corpus(), 4), [chunks], tmp_path / "batches.parquet")
    assert rows_of(tmp_path / "batches.parquet") == [
        {"src": "a", "text": ["a 0.0", "a 1.0", "a 0.1", "a 1.1"], "document": ["a0", "a1", "a0", "a1"]},
        {"src": "a", "text": ["a 0.2", "a 2.0", "a 2.1", "a 2.2"], "document": ["a0", "a2", "a2", "a2"]},
        {"src": "b", "text": ["b 0.0", "b 0.1", "b 0.2", "b 0.3"], "document": ["b0", "b0", "b0", "b0"]},
    ]
    assert json.loads((tmp_path / "batches.json").read_text()) == counts
    assert counts == {
        "batch_size": 4,
        "group_size": 2,
        "take": "random",
        "seed": 0,
        "batches": 3,
        "chunks": 12,
        "words": 24,
        "words_of_chunk": {"2": 12},
        "documents": 4,
        "documents_of_batch": {"1": 1, "2": 2},
        "sources": {"a": 2, "b": 1},
        "parts": {"a": {"available": 2, "taken": 2}, "b": {"available": 1, "taken": 1}},
    }


def test_short_documents_are_left_out(tmp_path):
    chunks = make_chunks(tmp_path / "chunks.parquet", {"a": [3, 1, 2, 3]})
    spec = batches_of(corpus(sources=[{"dataset": "a"}], min_chunks=3), 6)
    write_batches(spec, [chunks], tmp_path / "batches.parquet")
    assert [row["document"] for row in rows_of(tmp_path / "batches.parquet")] == [["a0", "a3"] * 3]


def test_long_documents_give_their_first_chunks(tmp_path):
    """So each batch is of as many documents as a group, with as many chunks of each."""
    chunks = make_chunks(tmp_path / "chunks.parquet", {"a": [9, 1, 2, 3, 2, 7]})
    spec = batches_of(corpus(sources=[{"dataset": "a"}], min_chunks=2, max_chunks=2), 4)
    counts = write_batches(spec, [chunks], tmp_path / "batches.parquet")
    assert [row["text"] for row in rows_of(tmp_path / "batches.parquet")] == [
        ["a 0.0", "a 2.0", "a 0.1", "a 2.1"],
        ["a 3.0", "a 4.0", "a 3.1", "a 4.1"],
    ]
    assert counts["parts"] == {"a": {"available": 2, "taken": 2}} and counts["documents_of_batch"] == {"2": 2}


SIZES = {"a": [5] * 40, "b": [3] * 40}  # at B = 4: 50 batches and 30


def taken(tmp_path, seed=0, name="batches", **settings):
    chunks = tmp_path / "chunks.parquet"
    if not chunks.exists():
        make_chunks(chunks, SIZES)
    counts = write_batches(batches_of(corpus(**settings), 4, seed), [chunks], tmp_path / f"{name}.parquet")
    return counts, [tuple(row["text"]) for row in rows_of(tmp_path / f"{name}.parquet")]


def test_the_draw_follows_the_seed(tmp_path):
    everything = taken(tmp_path)[1]
    assert len(everything) == 80
    first, some = taken(tmp_path, batches=20)
    assert first["batches"] == len(set(some)) == 20
    assert some == [batch for batch in everything if batch in some]  # in the corpus's order
    assert some != everything[:20]
    assert first["sources"].keys() == {"a", "b"}
    assert taken(tmp_path, batches=20)[1] == some
    assert taken(tmp_path, batches=20, seed=1)[1] != some
    assert taken(tmp_path, batches=80, seed=1)[1] == everything


def test_equal_draws_are_equal_files(tmp_path):
    taken(tmp_path, batches=20, seed=3, name="one")
    taken(tmp_path, batches=20, seed=3, name="two")
    for suffix in (".parquet", ".json"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_the_first_batches(tmp_path):
    everything = taken(tmp_path)[1]
    assert taken(tmp_path, batches=60, take="first")[1] == everything[:60]


def test_numbers_for_each_source(tmp_path):
    sources = [{"dataset": "a", "batches": 7}, {"dataset": "b", "batches": 9}]
    counts, _ = taken(tmp_path, sources=sources)
    assert counts["sources"] == {"a": 7, "b": 9}
    counts, _ = taken(tmp_path, sources=sources, batches=10)
    assert counts["batches"] == 10
    assert counts["parts"]["a"]["available"] == 50 and counts["parts"]["a"]["taken"] == counts["sources"]["a"] <= 7


def test_the_rest_comes_from_one_source(tmp_path):
    # as the paper's code corpus: all tutorials and documentation, the rest posts
    sources = [{"dataset": "a", "batches": "rest"}, {"dataset": "b"}]
    counts, _ = taken(tmp_path, sources=sources, batches=45, rest_at=4)
    assert counts["sources"] == {"a": 15, "b": 30}


def test_no_source_s_share_depends_on_the_batch_size(tmp_path):
    sources = [{"dataset": "a", "batches": "rest"}, {"dataset": "b"}]
    counts, _ = taken(tmp_path, sources=sources, batches=20, rest_at=8)  # the 120 chunks of b make 15 batches of 8
    assert counts["sources"] == {"a": 5, "b": 15}
    assert counts["parts"]["b"] == {"available": 30, "taken": 15}  # of 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batches": 81}, r"batches of 4 in all: 81 are wanted, 80 exist"),
        ({"sources": [{"dataset": "a", "batches": 1234}]}, r"a: batches of 4: 1,234 are wanted, 50 exist"),
        (
            {"sources": [{"dataset": "a", "batches": "rest"}, {"dataset": "b"}], "batches": 85, "rest_at": 4},
            r"a: batches of 4: 55 are wanted, 50 exist",
        ),
        (
            {"sources": [{"dataset": "a", "batches": "rest"}, {"dataset": "b"}], "batches": 29, "rest_at": 4},
            r"29 batches are wanted, but the sources beside a alone give 30 of 4",
        ),
        ({"min_chunks": 6}, r"a, b: too little text for one batch of 4"),
    ],
)
def test_more_than_there_is_is_one_line(tmp_path, settings, message):
    with pytest.raises(CorpusError, match=message) as error:
        taken(tmp_path, **settings)
    one_line(error)
    assert not (tmp_path / "batches.parquet").exists()


def test_sources_in_many_row_groups(tmp_path, monkeypatch):
    everything = taken(tmp_path)[1]
    monkeypatch.setattr(revela.text.parquet, "ROW_GROUP_CHARACTERS", 70)  # sources begin within a row group
    (tmp_path / "chunks.parquet").unlink()
    assert taken(tmp_path)[1] == everything
    assert pq.read_metadata(tmp_path / "chunks.parquet").num_row_groups > 10


def test_a_mix_of_corpora(tmp_path):
    for name, src in {"wiki": "a", "code": "b"}.items():
        chunks = make_chunks(tmp_path / name / "chunks.parquet", {src: SIZES[src]})
        spec = batches_of(corpus(sources=[{"dataset": src}]), 4)
        write_batches(spec, [chunks], tmp_path / name / "batches.parquet")
    inputs = [tmp_path / name / "batches.parquet" for name in ("wiki", "code")]
    mixed = batches_of(Corpus(mix={"wiki": 10, "code": 12}), 4)
    counts = write_batches(mixed, inputs, tmp_path / "mixed.parquet")
    assert counts["sources"] == {"a": 10, "b": 12}
    assert counts["parts"] == {"wiki": {"available": 50, "taken": 10}, "code": {"available": 30, "taken": 12}}
    rows = rows_of(tmp_path / "mixed.parquet")
    assert all(row in rows_of(inputs[0]) for row in rows[:10]) and all(row in rows_of(inputs[1]) for row in rows[10:])
    with pytest.raises(CorpusError, match="code: batches of 4: 31 are wanted, 30 exist"):
        write_batches(batches_of(Corpus(mix={"wiki": 1, "code": 31}), 4), inputs, tmp_path / "x.parquet")


def test_released_batches(tmp_path):
    write(tmp_path / "data" / "README.md", "# Batches")
    rows = [[f"w{i} {j}" for j in range(4)] for i in range(2)]
    write(tmp_path / "data" / "train.jsonl", lines(rows[0], {"src": "stackoverflow", "text": rows[1]}))
    released = Corpus(released="ready")
    counts = write_batches(batches_of(released, 4), [tmp_path / "data"], tmp_path / "b4.parquet")
    found = rows_of(tmp_path / "b4.parquet")
    assert [(row["src"], row["text"]) for row in found] == [("ready", rows[0]), ("stackoverflow", rows[1])]
    assert len({name for row in found for name in row["document"]}) == 8
    assert counts["sources"] == {"ready": 1, "stackoverflow": 1}
    assert counts["documents"] is None and counts["documents_of_batch"] is None
    # cut into smaller ones
    write_batches(batches_of(released, 2), [tmp_path / "data"], tmp_path / "b2.parquet")
    assert [row["text"] for row in rows_of(tmp_path / "b2.parquet")] == [
        rows[0][:2],
        rows[0][2:],
        rows[1][:2],
        rows[1][2:],
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["a", "b", "c"], r"train\.jsonl:2: 3 chunks, not a multiple of 2"),
        ([], r"train\.jsonl:2: 0 chunks, not a multiple of 2"),
        ({"text": ["a", "b"]}, r'train\.jsonl:2: neither \["chunk", \.\.\] nor \{"src": \.\., "text": \[\.\.\]\}'),
        (["a", 3], r"train\.jsonl:2: neither"),
        ("a", r"train\.jsonl:2: neither"),
    ],
)
def test_released_rows_of_another_form_are_one_line(tmp_path, row, message):
    write(tmp_path / "data" / "train.jsonl", lines(["a", "b"], row))
    with pytest.raises(CorpusError, match=message) as error:
        write_batches(batches_of(Corpus(released="ready"), 2), [tmp_path / "data"], tmp_path / "b.parquet")
    one_line(error)


def test_a_corpus_is_rebuilt_or_released(tmp_path):
    chunks = make_chunks(tmp_path / "chunks.parquet", {"a": [4, 4]})
    write(tmp_path / "data" / "train.jsonl", lines(*([f"w{i} {j}" for j in range(4)] for i in range(3))))
    both = {"sources": [{"dataset": "a", "batches": "rest"}], "released": "ready", "batches": 2}
    write_batches(batches_of(Corpus(**both), 4), [chunks], tmp_path / "b.parquet")
    assert {row["src"] for row in rows_of(tmp_path / "b.parquet")} == {"a"}
    other = Corpus(**both, source="released", take="first")
    counts = write_batches(batches_of(other, 4), [tmp_path / "data"], tmp_path / "b.parquet")
    assert [row["text"][0] for row in rows_of(tmp_path / "b.parquet")] == ["w0 0", "w1 0"]
    assert counts["parts"] == {"ready": {"available": 3, "taken": 2}} and counts["group_size"] is None
    with pytest.raises(ValueError, match="source: released needs the key released"):
        Corpus(sources=[{"dataset": "a"}], source="released")
    with pytest.raises(ValueError, match="group_size: ready batches have their groups"):
        Corpus(**both, source="released", group_size=4)
