"""Folders of text and tables of chunks for the tests of corpora."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq

from revela.study.settings import Corpus
from revela.text.chunks import CHUNKS
from revela.text.parquet import write_table


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    else:
        path.write_text(content, encoding="utf-8")


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def rows_of(path):
    return pq.read_table(path).to_pylist()


def words(texts):
    return [word for text in texts for word in text.split()]


def one_line(error):
    assert "\n" not in str(error.value)


def corpus(**settings):
    return Corpus(**{"sources": [{"dataset": "a"}, {"dataset": "b"}], **settings})


def write_data(folder):
    """Two datasets: 30 documents of 0 to 9 sentences of 4 words, and 12 of 5. Returns dataset -> folder."""
    for name, lengths in {"a": [i % 10 for i in range(30)], "b": [5] * 12}.items():
        rows = [
            {"text": " ".join(f"{name}{i} sentence number {j}." for j in range(length))}
            for i, length in enumerate(lengths)
        ]
        write(folder / name / "rows.jsonl", lines(*rows))
    return {"a": folder / "a", "b": folder / "b"}


def make_chunks(path, sizes):
    """chunks.parquet of documents with so many chunks: source -> sizes. Chunk j of document i of s is 's i.j'."""
    rows = [
        (f"{src}{i}", src, [f"{src} {i}.{j}" for j in range(size)])
        for src, lengths in sizes.items()
        for i, size in enumerate(lengths)
    ]
    write_table(path, CHUNKS, rows, lambda row: sum(map(len, row[2])))
    return path
