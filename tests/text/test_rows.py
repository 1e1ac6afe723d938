"""Rows of tables in every format, with their lines, and what cannot be read."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import revela.text.rows
from revela.text.rows import RowError, json_values, read_rows

ROWS = [{"id": "a", "text": 'one "quoted"'}, {"id": "b", "text": "two\nlines, ü"}, {"id": "c", "text": ""}]


def table(delimiter):
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", "text"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue()


CONTENTS = {
    "jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "json": json.dumps(ROWS, indent=1),
    "csv": table(","),
    "tsv": table("\t"),
}
NUMBERS = {"jsonl": [1, 2, 3], "json": [1, 2, 3], "csv": [2, 4, 5], "tsv": [2, 4, 5]}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_rows_of_a_text_format(tmp_path, kind, mark, packed):
    content = (mark + CONTENTS[kind]).encode()
    path = tmp_path / (f"rows.{kind}.gz" if packed else f"rows.{kind.upper()}")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert list(read_rows(path)) == list(zip(NUMBERS[kind], ROWS, strict=True))


def test_rows_of_parquet_in_the_columns_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(revela.text.rows, "PARQUET_ROWS", 2)
    rows = [{"query-id": row["id"], **row} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert list(read_rows(tmp_path / "rows.parquet")) == list(enumerate(rows, start=1))
    [(number, row), *_] = read_rows(tmp_path / "rows.parquet", ["text", "query_id"])
    assert (number, row) == (1, {"query-id": "a", "text": rows[0]["text"]})
    [(_, row), *_] = read_rows(tmp_path / "rows.parquet", ["text", "title"])  # one is missing, so all are read
    assert list(row) == ["query-id", "id", "text"]


def test_empty_lines_are_passed_over_and_short_rows_lack_columns(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"id": 1}\n  \n{"id": 2}\n\n')
    assert list(read_rows(tmp_path / "a.jsonl")) == [(2, {"id": 1}), (4, {"id": 2})]
    (tmp_path / "a.tsv").write_text("id\ttext\n\n1\n2\ttwo\tmore\n")
    assert list(read_rows(tmp_path / "a.tsv")) == [(3, {"id": "1"}), (4, {"id": "2", "text": "two"})]


def test_misplaced_quotation_marks(tmp_path):
    """Some ids of FEVER begin with one; beir reads them as the csv module does."""
    (tmp_path / "a.tsv").write_text('id\n"Heroes"_(song)\nsay_"it"\n')
    assert [row["id"] for _, row in read_rows(tmp_path / "a.tsv", strict=False)] == ["Heroes_(song)", 'say_"it"']
    with pytest.raises(RowError, match=r"a\.tsv:2: not TSV \("):
        list(read_rows(tmp_path / "a.tsv"))
    (tmp_path / "b.csv").write_text('id,text\n1,"two\nthree')
    with pytest.raises(RowError, match=r"b\.csv:3: not CSV \(unexpected end of data\)"):
        list(read_rows(tmp_path / "b.csv"))


def test_values_of_any_type(tmp_path):
    for name, content in {"a.jsonl": '["x"]\n3\n', "a.json": '[["x"], 3]'}.items():
        (tmp_path / name).write_text(content)
        assert list(json_values(tmp_path / name)) == [(1, ["x"]), (2, 3)]
        with pytest.raises(RowError, match=rf"{name}:1: not a JSON object"):
            list(read_rows(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"id": 1}\n\n{"id": }\n', r"a\.jsonl:3: not JSON \(Expecting value at column 8\)"),
        ("a.json", b'[{"id": 1}, {"id": }]', r"a\.json:2: not JSON \(Expecting value\)"),
        ("a.jsonl", b'{"id": "\xff"}\n', r"a\.jsonl: not readable as text \(.*invalid start byte"),
        ("a.jsonl.gz", b"plain", r"a\.jsonl\.gz: not readable as text \(Not a gzipped file"),
        ("a.parquet", b"plain", r"a\.parquet: not readable as parquet \("),
        ("a.xlsx", b"", r"a\.xlsx: not a table by its suffix; valid: \.jsonl, "),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RowError, match=message) as error:
        list(read_rows(tmp_path / name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_no_such_file_is_one_line(tmp_path, name):
    with pytest.raises(RowError, match=rf"{name}: not readable as .*No such file"):
        list(read_rows(tmp_path / name))
