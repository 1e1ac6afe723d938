"""Corpora apart from benchmarks, on documents whose shared words are counted by hand."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from revela.text.apart import runs_of_words, write_apart
from revela.text.chunks import CHUNKS

PASSAGE = "The oak, the elm and the ash stand by the river; in May their leaves are green."  # 17 words


def rows(documents):
    return [{"document": name, "src": src, "chunks": chunks} for name, src, chunks in documents]


def test_runs_of_words():
    words = "a b c d e f g h i j k l".split()  # noqa: SIM905
    assert list(runs_of_words(" ".join(words))) == []
    assert list(runs_of_words("A, b! " + " ".join(words[2:]) + " m")) == ["a b c d e f g h i j k l m"]
    assert len(list(runs_of_words(PASSAGE))) == 17 - 13 + 1


def test_documents_that_share_13_words_are_left_out(tmp_path):
    kept = [
        ("w/0", "wiki", ["Nothing of it."]),
        # 12 of its words, and 13 with another one among them
        ("w/1", "wiki", ["The oak, the elm and the ash stand by the river; in.", "A river."]),
        ("w/2", "wiki", ["The oak, the elm and the ash stand NOT by the river; in May their leaves are green."]),
        ("c/0", "code", ["def oak(): pass"]),
    ]
    left_out = [
        ("w/3", "wiki", ["Before. THE OAK the elm and the ash", "stand by the river (in May)."]),  # over two chunks
        ("c/1", "code", ["# and the ash stand by the river; in May their leaves are green"]),
        ("c/2", "code", ["return one if two else three + four - five * six / seven ** eight % nine // ten, eleven"]),
    ]
    order = [kept[0], left_out[0], kept[1], kept[2], left_out[1], kept[3], left_out[2]]
    pq.write_table(pa.Table.from_pylist(rows(order), CHUNKS), tmp_path / "chunks.parquet")
    benchmarks = {
        "beir/trees": [PASSAGE, "A river."],
        "coir/code": ["one if two else three four five six seven eight nine ten eleven", "def oak(): pass"],
    }
    report = write_apart(benchmarks, tmp_path / "chunks.parquet", tmp_path / "apart.parquet")
    assert pq.read_table(tmp_path / "apart.parquet").to_pylist() == rows(kept)
    assert json.loads((tmp_path / "apart.json").read_text()) == report
    assert report == {
        "words": 13,
        "texts": {"beir/trees": 2, "coir/code": 2},
        "compared": {"beir/trees": 1, "coir/code": 1},
        "kept": {"wiki": 3, "code": 1},
        "left_out": {"wiki": 1, "code": 2},
        "shared_with": {"beir/trees": 2, "coir/code": 1},
        "examples": [
            {
                "document": "w/3",
                "task": "beir/trees",
                "words": "the oak the elm and the ash stand by the river in may",
            },
            {
                "document": "c/1",
                "task": "beir/trees",
                "words": "and the ash stand by the river in may their leaves are green",
            },
            {
                "document": "c/2",
                "task": "coir/code",
                "words": "one if two else three four five six seven eight nine ten eleven",
            },
        ],
    }
