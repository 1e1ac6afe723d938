"""Documents: the layouts of datasets on the hub, folders of a user, and what cannot be read."""

import gzip
import json
import os

import pytest
from text_files import lines, one_line, write

import revela.text.rows
from revela.provenance import MANIFEST
from revela.study.settings import TextSource
from revela.text import CorpusError
from revela.text.documents import NOT_DATA, documents, find_files, texts


def wikipedia(folder):
    passages = [("Aaron", "He was a"), ("Aaron", "priest."), ("Achill", "An island."), ("Aaron", "Another one.")]
    passages = [{"docid": str(i), "title": title, "text": text} for i, (title, text) in enumerate(passages)]
    write(folder / "corpus.jsonl.gz", lines(*passages))
    write(folder / "wikipedia-nq-corpus.py", "import datasets")  # the repository has a loading script
    return TextSource(dataset="d", join_by="title"), {
        "d/corpus.jsonl.gz:0": "He was a priest.",
        "d/corpus.jsonl.gz:2": "An island.",
        "d/corpus.jsonl.gz:3": "Another one.",
    }


def stackoverflow(folder):
    write(folder / "README.md", "# Posts")
    write(folder / ".gitattributes", "*.jsonl lfs")
    write(folder / "stackoverflow_0000.jsonl", lines({"text": "Q: why?"}, {"text": " "}))
    write(folder / "stackoverflow_0001.jsonl", lines({"text": "A: so.\r\n\u2028Indeed."}))
    return TextSource(dataset="d"), {
        "d/stackoverflow_0000.jsonl:0": "Q: why?",
        "d/stackoverflow_0000.jsonl:1": "",
        "d/stackoverflow_0001.jsonl:0": "A: so.\r\n\u2028Indeed.",
    }


def online_tutorials(folder):
    write(folder / "README.md", "# Tutorials")
    rows = [{"title": "Loops", "text": "For each.\n[1, 2]"}, {"title": "None", "text": None}]
    write(folder / "online_tutorials.json", json.dumps(rows))
    return TextSource(dataset="d"), {"d/online_tutorials.json:0": "For each.\n[1, 2]", "d/online_tutorials.json:1": ""}


def library_documentation(folder):
    rows = [{"doc_id": "np.sum", "doc_content": "Sum."}, {"doc_id": "np.max", "doc_content": "Größe."}]
    write(folder / "library_docs.json", json.dumps(rows, indent=2, ensure_ascii=False))
    return TextSource(dataset="d", text="doc_content"), {
        "d/library_docs.json:0": "Sum.",
        "d/library_docs.json:1": "Größe.",
    }


def json_with_a_row_in_each_line(folder):
    write(folder / "rows.json", "\ufeff" + lines({"text": "a"}, {"text": "b"}))
    return TextSource(dataset="d"), {"d/rows.json:0": "a", "d/rows.json:1": "b"}


def fineweb(folder):
    for part in range(2):
        rows = [{"text": f"page {part}", "id": "u", "score": 3.1}]
        write(folder / f"sample/10BT/00{part}_00000.parquet", rows)
    return TextSource(dataset="d"), {
        "d/sample/10BT/000_00000.parquet:0": "page 0",
        "d/sample/10BT/001_00000.parquet:0": "page 1",
    }


def tables_of_own_files(folder):
    write(folder / "a.csv", "text,n\none,1\n")
    write(folder / "b.csv.gz", "text,n\ntwo,2\n")
    write(folder / "c.TSV", "text\tn\nthree\t3\n")
    write(folder / "d.tsv.gz", "text\tn\nfour\t4\n")
    write(folder / "README.md", "no table")
    rows = {"d/a.csv:0": "one", "d/b.csv.gz:0": "two", "d/c.TSV:0": "three", "d/d.tsv.gz:0": "four"}
    return TextSource(dataset="d"), rows


def own_files(folder):
    write(folder / "b.md", "# Title")
    write(folder / "a" / "x.py", "def f():\n    pass\n")
    write(folder / "a" / "NOTES.TXT", "notes")
    write(folder / ".git" / "x.txt", "hidden")
    write(folder / "picture.png", "not text")
    write(folder / "manifest.json", "{}")
    return TextSource(dataset="d"), {"d/a/NOTES.TXT": "notes", "d/a/x.py": "def f():\n    pass\n", "d/b.md": "# Title"}


LAYOUTS = [
    wikipedia,
    stackoverflow,
    online_tutorials,
    library_documentation,
    json_with_a_row_in_each_line,
    fineweb,
    tables_of_own_files,
    own_files,
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_documents_of_a_layout(tmp_path, layout):
    source, expected = layout(tmp_path / "data")
    found = list(documents(source, tmp_path / "data"))
    assert found == list(expected.items())
    if source.join_by is None:
        assert list(texts(tmp_path / "data", source.text)) == [text for text in expected.values() if text]


@pytest.mark.parametrize("block", [3, 7, 64])
def test_a_json_list_is_read_in_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr(revela.text.rows, "BLOCK", block)
    rows = [{"text": f'row {i} "quoted", ]}} \\ {"long " * i}'} for i in range(20)]
    for number, text in enumerate(
        [json.dumps(rows), json.dumps(rows, indent=1), "\n[\n" + json.dumps(rows)[1:] + "\n"]
    ):
        write(tmp_path / f"{number}/rows.json", text)
        assert list(texts(tmp_path / str(number))) == [row["text"] for row in rows]


def test_nothing_stands_behind_a_json_list(tmp_path):
    rows = json.dumps([{"text": "one"}, {"text": "two"}], indent=1)
    write(tmp_path / "rows.json", rows + "\n" + rows)  # as `cat a.json b.json` makes it
    with pytest.raises(CorpusError, match=r"rows\.json:3: not JSON \(something stands behind the list\)"):
        list(texts(tmp_path))


def test_a_file_name_of_another_encoding(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.md")).write_text("A text.")
    assert list(documents(TextSource(dataset="d", text="text"), tmp_path)) == [("d/caf\ufffd.md", "A text.")]


def test_a_title_that_is_no_text_is_found_in_its_file(tmp_path):
    write(tmp_path / "a.jsonl", '{"title": "one", "text": "x"}\n{"title": 3, "text": "y"}\n')
    with pytest.raises(CorpusError, match=r"a\.jsonl:2: column 'title' holds a int"):
        list(documents(TextSource(dataset="d", text="text", title="title"), tmp_path))


def test_titles_stand_above_their_texts(tmp_path):
    """On a line of their own; once above an article; not above nothing."""
    rows = [("How to sort", "Call sorted."), ("", "No title."), ("Empty", " "), (None, "None.")]
    write(tmp_path / "t.json", json.dumps([{"title": title, "text": text} for title, text in rows]))
    found = dict(documents(TextSource(dataset="d", title="title"), tmp_path))
    assert list(found.values()) == ["How to sort\nCall sorted.", "No title.", "", "None."]
    assert list(dict(documents(TextSource(dataset="d"), tmp_path)).values()) == [rows[0][1], rows[1][1], "", rows[3][1]]

    wikipedia(tmp_path / "w")
    joined = TextSource(dataset="d", join_by="title", title="title")
    assert dict(documents(joined, tmp_path / "w"))["d/corpus.jsonl.gz:0"] == "Aaron\nHe was a priest."
    with pytest.raises(CorpusError, match="no column 'name'"):
        dict(documents(TextSource(dataset="d", title="name"), tmp_path))


def test_rows_without_the_joining_value_stay_alone(tmp_path):
    write(tmp_path / "a.jsonl", lines(*({"title": t, "text": x} for t, x in [("", "a"), ("", "b"), (None, "c")])))
    assert [text for _, text in documents(TextSource(dataset="d", join_by="title"), tmp_path)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"data: no such folder"),
        ({"a.png": "x", "b.bin": "y"}, r"data: no text in this folder \(2 files, none of \.parquet, \.jsonl, .*\.txt"),
        ({"a.jsonl": lines({"body": "x"})}, r"a\.jsonl:1: no column 'text'; it has 'body'"),
        ({"a.parquet": [{"body": "x", "id": 1}]}, r"a\.parquet:1: no column 'text'; it has 'body', 'id'"),
        ({"a.jsonl": lines({"text": "x"}, ["y"])}, r"a\.jsonl:2: not a JSON object"),
        ({"a.jsonl": lines({"text": "x"}, {"text": 3})}, r"a\.jsonl:2: column 'text' holds a int, not text"),
        (
            {"a.jsonl": lines({"text": "x"}) + '{"text": "cut'},
            r"a\.jsonl:2: not JSON \(Unterminated string starting at at column 10\)",
        ),
        ({"a.json": '[{"text": "x"}, {"text": "cut'}, r"a\.json:2: not JSON \("),
        ({"a.json": '{"text":\n "x"}'}, r"a\.json:1: not JSON \(neither one list nor a value in each line\)"),
        ({"a.jsonl.gz": b"\x1f\x8b\x08\x00rubbish"}, r"a\.jsonl\.gz: not readable as text \("),
        (
            {"a.jsonl.gz": gzip.compress(b'{"text": "x"}\n' * 9)[:-9]},
            r"a\.jsonl\.gz: not readable as text \(Compressed file ended",
        ),
        ({"a.jsonl.gz": b"plain"}, r"a\.jsonl\.gz: not readable as text \("),
        ({"a.parquet": b"rubbish, but long enough"}, r"a\.parquet: not readable as parquet \("),
        ({"a.txt": b"gr\xfc\xdfe"}, r"a\.txt: not UTF-8 text \(invalid start byte at byte 2\)"),
    ],
)
def test_text_that_cannot_be_read_is_one_line(tmp_path, files, message):
    for name, content in files.items():
        if isinstance(content, bytes):
            (tmp_path / "data").mkdir(exist_ok=True)
            (tmp_path / "data" / name).write_bytes(content)
        else:
            write(tmp_path / "data" / name, content)
    with pytest.raises(CorpusError, match=message) as error:
        list(documents(TextSource(dataset="d"), tmp_path / "data"))
    one_line(error)


def test_a_text_file_has_one_column(tmp_path):
    write(tmp_path / "a.txt", "x")
    with pytest.raises(CorpusError, match=r"a\.txt: no column 'doc_content'; it has 'text'"):
        list(documents(TextSource(dataset="d", text="doc_content"), tmp_path))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_progress_is_told_of_every_byte(tmp_path, layout):
    source, _ = layout(tmp_path / "data")
    read = []
    list(documents(source, tmp_path / "data", read.append))
    files = [path for _, path in find_files(tmp_path / "data")]
    assert sum(read) == pytest.approx(sum(path.stat().st_size for path in files))


def test_manifests_are_no_text():
    assert MANIFEST in NOT_DATA
