"""Corpora: the layouts of real datasets, documents, chunks and batches; the same for any number of workers."""

import gzip
import itertools
import json
import pydoc_data.topics

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_chunking import WIKITEXT, write_punkt

import revela.text.documents
from revela.paper.figures import corpus_figure
from revela.study.study import Corpus, Source
from revela.text import corpora
from revela.text.chunking import chunk, sentence_splitter
from revela.text.corpora import write_batches, write_chunks
from revela.text.documents import CorpusError, documents, find_files, texts
from revela.text.report import compare_group_sizes, write_report


@pytest.fixture
def punkt(tmp_path):
    return write_punkt(tmp_path / "punkt")


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


# --- layouts of datasets on the hub, and folders of a user


def wikipedia(folder):
    passages = [("Aaron", "He was a"), ("Aaron", "priest."), ("Achill", "An island."), ("Aaron", "Another one.")]
    passages = [{"docid": str(i), "title": title, "text": text} for i, (title, text) in enumerate(passages)]
    write(folder / "corpus.jsonl.gz", lines(*passages))
    write(folder / "wikipedia-nq-corpus.py", "import datasets")  # the repository has a loading script
    return Source(dataset="d", join_by="title"), {
        "d/corpus.jsonl.gz:0": "He was a priest.",
        "d/corpus.jsonl.gz:2": "An island.",
        "d/corpus.jsonl.gz:3": "Another one.",
    }


def stackoverflow(folder):
    write(folder / "README.md", "# Posts")
    write(folder / ".gitattributes", "*.jsonl lfs")
    write(folder / "stackoverflow_0000.jsonl", lines({"text": "Q: why?"}, {"text": " "}))
    write(folder / "stackoverflow_0001.jsonl", lines({"text": "A: so.\r\n\u2028Indeed."}))
    return Source(dataset="d"), {
        "d/stackoverflow_0000.jsonl:0": "Q: why?",
        "d/stackoverflow_0000.jsonl:1": "",
        "d/stackoverflow_0001.jsonl:0": "A: so.\r\n\u2028Indeed.",
    }


def online_tutorials(folder):
    write(folder / "README.md", "# Tutorials")
    rows = [{"title": "Loops", "text": "For each.\n[1, 2]"}, {"title": "None", "text": None}]
    write(folder / "online_tutorials.json", json.dumps(rows))
    return Source(dataset="d"), {"d/online_tutorials.json:0": "For each.\n[1, 2]", "d/online_tutorials.json:1": ""}


def library_documentation(folder):
    rows = [{"doc_id": "np.sum", "doc_content": "Sum."}, {"doc_id": "np.max", "doc_content": "Größe."}]
    write(folder / "library_docs.json", json.dumps(rows, indent=2, ensure_ascii=False))
    return Source(dataset="d", text="doc_content"), {"d/library_docs.json:0": "Sum.", "d/library_docs.json:1": "Größe."}


def json_with_a_row_in_each_line(folder):
    write(folder / "rows.json", "\ufeff" + lines({"text": "a"}, {"text": "b"}))
    return Source(dataset="d"), {"d/rows.json:0": "a", "d/rows.json:1": "b"}


def fineweb(folder):
    for part in range(2):
        rows = [{"text": f"page {part}", "id": "u", "score": 3.1}]
        write(folder / f"sample/10BT/00{part}_00000.parquet", rows)
    return Source(dataset="d"), {
        "d/sample/10BT/000_00000.parquet:0": "page 0",
        "d/sample/10BT/001_00000.parquet:0": "page 1",
    }


def own_files(folder):
    write(folder / "b.md", "# Title")
    write(folder / "a" / "x.py", "def f():\n    pass\n")
    write(folder / "a" / "NOTES.TXT", "notes")
    write(folder / ".git" / "x.txt", "hidden")
    write(folder / "picture.png", "not text")
    write(folder / "manifest.json", "{}")
    return Source(dataset="d"), {"d/a/NOTES.TXT": "notes", "d/a/x.py": "def f():\n    pass\n", "d/b.md": "# Title"}


LAYOUTS = [
    wikipedia,
    stackoverflow,
    online_tutorials,
    library_documentation,
    json_with_a_row_in_each_line,
    fineweb,
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
    monkeypatch.setattr(revela.text.documents, "BLOCK", block)
    rows = [{"text": f'row {i} "quoted", ]}} \\ {"long " * i}'} for i in range(20)]
    for number, text in enumerate(
        [json.dumps(rows), json.dumps(rows, indent=1), "\n[\n" + json.dumps(rows)[1:] + "\n"]
    ):
        write(tmp_path / f"{number}/rows.json", text)
        assert list(texts(tmp_path / str(number))) == [row["text"] for row in rows]


def test_rows_without_the_joining_value_stay_alone(tmp_path):
    write(tmp_path / "a.jsonl", lines(*({"title": t, "text": x} for t, x in [("", "a"), ("", "b"), (None, "c")])))
    assert [text for _, text in documents(Source(dataset="d", join_by="title"), tmp_path)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"data: no such folder"),
        ({"a.png": "x", "b.bin": "y"}, r"data: no text in this folder \(2 files, none of \.parquet, \.jsonl, .*\.txt"),
        ({"a.jsonl": lines({"body": "x"})}, r"a\.jsonl: no column 'text'; it has 'body'"),
        ({"a.parquet": [{"body": "x", "id": 1}]}, r"a\.parquet: no column 'text'; it has 'body', 'id'"),
        ({"a.jsonl": lines({"text": "x"}, ["y"])}, r"a\.jsonl: row 1 is a list, not an object with columns"),
        ({"a.jsonl": lines({"text": "x"}, {"text": 3})}, r"a\.jsonl:1: column 'text' holds a int, not text"),
        ({"a.jsonl": lines({"text": "x"}) + '{"text": "cut'}, r"a\.jsonl: row 1 is not JSON that can be read"),
        ({"a.json": '[{"text": "x"}, {"text": "cut'}, r"a\.json: row 1 is not JSON that can be read"),
        ({"a.json": '{"text":\n "x"}'}, r"a\.json: row 0 is not JSON .*neither one list nor a value in each line"),
        ({"a.jsonl.gz": b"\x1f\x8b\x08\x00rubbish"}, r"a\.jsonl\.gz: row 0 is not JSON that can be read"),
        ({"a.jsonl.gz": gzip.compress(b'{"text": "x"}\n' * 9)[:-9]}, r"a\.jsonl\.gz: row \d is not JSON that can be"),
        ({"a.jsonl.gz": b"plain"}, r"a\.jsonl\.gz: row 0 is not JSON that can be read"),
        ({"a.parquet": b"rubbish, but long enough"}, r"a\.parquet: not a parquet file that can be read"),
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
        list(documents(Source(dataset="d"), tmp_path / "data"))
    one_line(error)


def test_a_text_file_has_one_column(tmp_path):
    write(tmp_path / "a.txt", "x")
    with pytest.raises(CorpusError, match=r"a\.txt: no column 'doc_content'; it has 'text'"):
        list(documents(Source(dataset="d", text="doc_content"), tmp_path))


# --- chunks


@pytest.fixture
def data(tmp_path):
    """Two datasets: 30 documents of 0 to 9 sentences of 4 words, and 12 of 5."""
    for name, lengths in {"a": [i % 10 for i in range(30)], "b": [5] * 12}.items():
        rows = [
            {"text": " ".join(f"{name}{i} sentence number {j}." for j in range(length))}
            for i, length in enumerate(lengths)
        ]
        write(tmp_path / name / "rows.jsonl", lines(*rows))
    return {"a": tmp_path / "a", "b": tmp_path / "b"}


def corpus(**settings):
    return Corpus(**{"sources": [{"dataset": "a"}, {"dataset": "b"}], **settings})


def test_chunks_and_counts(tmp_path, data, punkt):
    counts = write_chunks(corpus(), data, punkt, tmp_path / "out" / "chunks.parquet", max_words=8)
    rows = rows_of(tmp_path / "out" / "chunks.parquet")
    split_sentences = sentence_splitter(punkt)
    assert rows == [
        {"document": f"{name}/rows.jsonl:{i}", "src": name, "chunks": chunk(text["text"], split_sentences, 8)}
        for name in "ab"
        for i, text in enumerate(map(json.loads, (data[name] / "rows.jsonl").read_text().splitlines()))
        if text["text"]
    ]
    assert json.loads((tmp_path / "out" / "chunks.json").read_text()) == counts
    # 3 x (1 + .. + 9) sentences in pairs, and 12 x 5
    assert counts["sources"]["a"]["words"] == 3 * 45 * 4
    assert counts["sources"]["a"]["chunks"] == 3 * (1 + 1 + 2 + 2 + 3 + 3 + 4 + 4 + 5)
    assert counts["sources"]["a"]["empty"] == 3
    assert counts["sources"]["b"]["chunks_of_document"] == {"3": 12}
    assert counts["sources"]["b"]["words_of_chunk"] == {"4": 12, "8": 24}
    assert {key: counts[key] for key in ("max_words", "documents", "empty", "chunks", "words")} == {
        "max_words": 8,
        "documents": 39,
        "empty": 3,
        "chunks": 75 + 36,
        "words": 540 + 240,
    }


def test_chunks_are_the_same_for_any_number_of_workers(tmp_path, data, punkt, monkeypatch):
    monkeypatch.setattr(corpora, "JOB_CHARACTERS", 200)  # many jobs
    monkeypatch.setattr(corpora, "ROW_GROUP_CHARACTERS", 500)
    for workers in (1, 2, 3):
        write_chunks(corpus(), data, punkt, tmp_path / f"{workers}/chunks.parquet", max_words=8, workers=workers)
    assert pq.read_metadata(tmp_path / "1/chunks.parquet").num_row_groups > 5
    for workers in (2, 3):
        for name in ("chunks.parquet", "chunks.json"):
            assert (tmp_path / f"{workers}" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_few_documents_are_in_memory(punkt, workers):
    asked = itertools.count()
    jobs = ([(str(next(asked)), "One two. Three.")] for _ in itertools.count())
    stream = corpora._chunk_in_order(jobs, punkt, 8, workers)
    assert [found[0][0] for found, _ in itertools.islice(stream, 20)] == [str(i) for i in range(20)]
    stream.close()
    assert next(asked) <= 20 + 4 * workers + 1


@pytest.mark.parametrize("workers", [1, 2])
def test_what_fails_leaves_nothing(tmp_path, data, punkt, workers):
    write(data["b"] / "rows.jsonl", lines({"text": "Good."}) + "{broken")
    with pytest.raises(CorpusError, match="row 1 is not JSON"):
        write_chunks(corpus(), data, punkt, tmp_path / "out" / "chunks.parquet", max_words=8, workers=workers)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_without_text_is_one_line(tmp_path, data, punkt):
    write(data["b"] / "rows.jsonl", lines({"text": ""}, {"text": " \n"}, {"text": None}))
    with pytest.raises(CorpusError, match=r"b: no text: column 'text' is empty in all 3 documents") as error:
        write_chunks(corpus(), data, punkt, tmp_path / "out" / "chunks.parquet", max_words=8)
    one_line(error)


def wikitext(folder):
    """122 articles of Wikipedia."""
    if not WIKITEXT.exists():
        pytest.skip(f"{WIKITEXT} is not there (REVELA_SHARED names its folder)")
    return Source(dataset="d", join_by="title"), WIKITEXT.parents[1], pq.read_table(WIKITEXT)["text"].to_pylist()


def python_documentation(folder):
    """What `help()` knows of the language."""
    pages = list(pydoc_data.topics.topics.values())
    write(folder / "topics.jsonl", lines(*({"text": page} for page in pages)))
    return Source(dataset="d"), folder, pages


@pytest.mark.parametrize("real", [wikitext, python_documentation], ids=lambda real: real.__name__)
def test_real_text_loses_no_word(tmp_path, punkt, real):
    source, folder, texts_ = real(tmp_path / "data")
    for workers in (1, 2):
        output = tmp_path / f"{workers}" / "chunks.parquet"
        one = Corpus(sources=[source])
        counts = write_chunks(one, {"d": folder}, punkt, output, max_words=120, workers=workers)
    for name in ("chunks.parquet", "chunks.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    rows = rows_of(tmp_path / "1/chunks.parquet")
    assert words(chunk for row in rows for chunk in row["chunks"]) == words(texts_)
    assert max(map(int, counts["words_of_chunk"])) <= 120
    assert 80 < counts["words"] / counts["chunks"] < 120


# --- batches


def make_chunks(path, sizes):
    """chunks.parquet of documents with so many chunks: source -> sizes. Chunk j of document i of s is 's i.j'."""
    rows = [
        (f"{src}{i}", src, [f"{src} {i}.{j}" for j in range(size)])
        for src, lengths in sizes.items()
        for i, size in enumerate(lengths)
    ]
    corpora.write_table(path, corpora.CHUNKS, rows, lambda row: sum(map(len, row[2])))
    return path


def test_batches_by_hand(tmp_path):
    chunks = make_chunks(tmp_path / "chunks.parquet", {"a": [3, 2, 4], "b": [5]})
    counts = write_batches(corpus(), [chunks], tmp_path / "batches.parquet", batch_size=4, seed=0)
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
    settings = corpus(sources=[{"dataset": "a"}], min_chunks=3)
    write_batches(settings, [chunks], tmp_path / "batches.parquet", batch_size=6, seed=0)
    assert [row["document"] for row in rows_of(tmp_path / "batches.parquet")] == [["a0", "a3"] * 3]


SIZES = {"a": [5] * 40, "b": [3] * 40}  # at B = 4: 50 batches and 30


def taken(tmp_path, seed=0, name="batches", **settings):
    chunks = tmp_path / "chunks.parquet"
    if not chunks.exists():
        make_chunks(chunks, SIZES)
    counts = write_batches(corpus(**settings), [chunks], tmp_path / f"{name}.parquet", batch_size=4, seed=seed)
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
    counts, _ = taken(tmp_path, sources=sources, batches=45)
    assert counts["sources"] == {"a": 15, "b": 30}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batches": 81}, r"batches of 4 in all: 81 are wanted, 80 exist"),
        ({"sources": [{"dataset": "a", "batches": 1234}]}, r"a: batches of 4: 1,234 are wanted, 50 exist"),
        (
            {"sources": [{"dataset": "a", "batches": "rest"}, {"dataset": "b"}], "batches": 85},
            r"a: batches of 4: 55 are wanted, 50 exist",
        ),
        (
            {"sources": [{"dataset": "a", "batches": "rest"}, {"dataset": "b"}], "batches": 29},
            r"29 batches of 4 are wanted, but the sources beside a alone give 30",
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
    monkeypatch.setattr(corpora, "ROW_GROUP_CHARACTERS", 70)  # sources begin within a row group
    (tmp_path / "chunks.parquet").unlink()
    assert taken(tmp_path)[1] == everything
    assert pq.read_metadata(tmp_path / "chunks.parquet").num_row_groups > 10


def test_a_mix_of_corpora(tmp_path):
    for name, src in {"wiki": "a", "code": "b"}.items():
        chunks = make_chunks(tmp_path / name / "chunks.parquet", {src: SIZES[src]})
        one = corpus(sources=[{"dataset": src}])
        write_batches(one, [chunks], tmp_path / name / "batches.parquet", batch_size=4, seed=0)
    inputs = [tmp_path / name / "batches.parquet" for name in ("wiki", "code")]
    mixed = Corpus(mix={"wiki": 10, "code": 12})
    counts = write_batches(mixed, inputs, tmp_path / "mixed.parquet", batch_size=4, seed=0)
    assert counts["sources"] == {"a": 10, "b": 12}
    assert counts["parts"] == {"wiki": {"available": 50, "taken": 10}, "code": {"available": 30, "taken": 12}}
    rows = rows_of(tmp_path / "mixed.parquet")
    assert all(row in rows_of(inputs[0]) for row in rows[:10]) and all(row in rows_of(inputs[1]) for row in rows[10:])
    with pytest.raises(CorpusError, match="code: batches of 4: 31 are wanted, 30 exist"):
        write_batches(Corpus(mix={"wiki": 1, "code": 31}), inputs, tmp_path / "x.parquet", batch_size=4, seed=0)


def test_released_batches(tmp_path):
    write(tmp_path / "data" / "README.md", "# Batches")
    rows = [[f"w{i} {j}" for j in range(4)] for i in range(2)]
    write(tmp_path / "data" / "train.jsonl", lines(rows[0], {"src": "stackoverflow", "text": rows[1]}))
    released = Corpus(released="ready")
    counts = write_batches(released, [tmp_path / "data"], tmp_path / "b4.parquet", batch_size=4, seed=0)
    found = rows_of(tmp_path / "b4.parquet")
    assert [(row["src"], row["text"]) for row in found] == [("ready", rows[0]), ("stackoverflow", rows[1])]
    assert len({name for row in found for name in row["document"]}) == 8
    assert counts["sources"] == {"ready": 1, "stackoverflow": 1}
    assert counts["documents"] is None and counts["documents_of_batch"] is None
    # cut into smaller ones
    write_batches(released, [tmp_path / "data"], tmp_path / "b2.parquet", batch_size=2, seed=0)
    assert [row["text"] for row in rows_of(tmp_path / "b2.parquet")] == [
        rows[0][:2],
        rows[0][2:],
        rows[1][:2],
        rows[1][2:],
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["a", "b", "c"], r"train\.jsonl: row 1 has 3 chunks, not a multiple of 2"),
        ([], r"row 1 has 0 chunks, not a multiple of 2"),
        ({"text": ["a", "b"]}, r'row 1 is neither \["chunk", \.\.\] nor \{"src": \.\., "text": \[\.\.\]\}'),
        (["a", 3], r"row 1 is neither"),
        ("a", r"row 1 is neither"),
    ],
)
def test_released_rows_of_another_form_are_one_line(tmp_path, row, message):
    write(tmp_path / "data" / "train.jsonl", lines(["a", "b"], row))
    with pytest.raises(CorpusError, match=message) as error:
        write_batches(Corpus(released="ready"), [tmp_path / "data"], tmp_path / "b.parquet", batch_size=2, seed=0)
    one_line(error)


def test_a_corpus_is_rebuilt_or_released(tmp_path):
    chunks = make_chunks(tmp_path / "chunks.parquet", {"a": [4, 4]})
    write(tmp_path / "data" / "train.jsonl", lines(*([f"w{i} {j}" for j in range(4)] for i in range(3))))
    both = {"sources": [{"dataset": "a", "batches": "rest"}], "released": "ready", "batches": 2}
    write_batches(Corpus(**both), [chunks], tmp_path / "b.parquet", batch_size=4, seed=0)
    assert {row["src"] for row in rows_of(tmp_path / "b.parquet")} == {"a"}
    other = Corpus(**both, source="released", take="first")
    counts = write_batches(other, [tmp_path / "data"], tmp_path / "b.parquet", batch_size=4, seed=0)
    assert [row["text"][0] for row in rows_of(tmp_path / "b.parquet")] == ["w0 0", "w1 0"]
    assert counts["parts"] == {"ready": {"available": 3, "taken": 2}} and counts["group_size"] is None
    with pytest.raises(ValueError, match="source: released needs the key released"):
        Corpus(sources=[{"dataset": "a"}], source="released")
    with pytest.raises(ValueError, match="group_size: ready batches have their groups"):
        Corpus(**both, source="released", group_size=4)


def test_group_sizes_side_by_side(tmp_path):
    chunks = make_chunks(tmp_path / "chunks.parquet", {"a": [6, 2, 1, 3, 4, 9]})
    settings = corpus(sources=[{"dataset": "a"}], batches=3, take="first", min_chunks=2, documents=4)
    counts = compare_group_sizes(settings, chunks, tmp_path / "groups.json", batch_size=4, seed=0)
    assert json.loads((tmp_path / "groups.json").read_text()) == counts
    assert counts["stated"] == {"documents": 4, "batches": 3}
    assert counts["batches_of_stated"] == (6 + 2 + 3 + 4) // 4
    found = {size: (group["documents"], group["documents_of_batch"]) for size, group in counts["group_size"].items()}
    # one by one: aaaa aabb dddE; by twos: abab aaaa dEdE; by fours: abdE abdE adEa
    assert found == {
        "1": (4, {"1": 1, "2": 2}),
        "2": (4, {"1": 1, "2": 2}),
        "4": (4, {"3": 1, "4": 2}),
    }
    one = write_batches(settings, [chunks], tmp_path / "batches.parquet", batch_size=4, seed=0)
    assert one == counts["group_size"]["2"]


def test_a_report_and_its_figure(tmp_path):
    chunks = make_chunks(tmp_path / "chunks.parquet", {"a": [6, 2, 1, 3, 4, 9]})
    chunk_counts = {
        "documents": 6,
        "chunks": 25,
        "chunks_of_document": {"6": 1, "2": 1, "1": 1, "3": 1, "4": 1, "9": 1},
    }
    corpora.write_counts(chunks, chunk_counts)
    one = corpus(sources=[{"dataset": "a"}], documents=4)
    written = {
        size: write_batches(one, [chunks], tmp_path / f"{size}.parquet", batch_size=size, seed=0) for size in (4, 2)
    }
    groups = compare_group_sizes(one, chunks, tmp_path / "groups.json", batch_size=4, seed=0)
    files = [tmp_path / "4.json", tmp_path / "2.json"]
    whole = write_report(tmp_path / "chunks.json", files, tmp_path / "groups.json", tmp_path / "report.json")
    assert whole == {"chunks": chunk_counts, "batches": {"4": written[4], "2": written[2]}, "group_sizes": groups}
    assert json.loads((tmp_path / "report.json").read_text()) == whole
    ready = write_report(None, files, None, tmp_path / "report.json")
    assert ready["chunks"] is ready["group_sizes"] is None
    for name, report in {"whole": whole, "ready": ready}.items():
        corpus_figure(report, [tmp_path / f"{name}.png", tmp_path / f"{name}.pdf"])
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "whole.png").stat().st_size > (tmp_path / "ready.png").stat().st_size > 10_000


def test_half_a_character_is_no_text(tmp_path, punkt):
    """JSON can escape one half of a surrogate pair; a parquet file cannot hold it."""
    write(tmp_path / "d" / "rows.jsonl", '{"text": "Cut \\ud83d here. Whole \\ud83d\\ude00."}\n')
    one = Corpus(sources=[{"dataset": "d"}])
    write_chunks(one, {"d": tmp_path / "d"}, punkt, tmp_path / "chunks.parquet", max_words=8)
    assert rows_of(tmp_path / "chunks.parquet")[0]["chunks"] == ["Cut \ufffd here. Whole \U0001f600."]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_progress_is_told_of_every_byte(tmp_path, layout):
    source, _ = layout(tmp_path / "data")
    read = []
    list(documents(source, tmp_path / "data", read.append))
    files = [path for _, path in find_files(tmp_path / "data")]
    assert sum(read) == pytest.approx(sum(path.stat().st_size for path in files))


def test_the_whole_way_from_text_to_batches(tmp_path, data, punkt):
    write_chunks(corpus(), data, punkt, tmp_path / "chunks.parquet", max_words=8, workers=2)
    counts = write_batches(corpus(), [tmp_path / "chunks.parquet"], tmp_path / "batches.parquet", batch_size=4, seed=0)
    chunks = {row["document"]: row["chunks"] for row in rows_of(tmp_path / "chunks.parquet")}
    seen = {}
    for row in rows_of(tmp_path / "batches.parquet"):
        for text, document in zip(row["text"], row["document"], strict=True):
            assert document.startswith(row["src"] + "/")
            seen.setdefault(document, []).append(text)
    # every chunk once and in order, but for the last few of a source that fill no batch
    assert all(chunks[document][: len(found)] == found for document, found in seen.items())
    assert sum(map(len, seen.values())) == counts["chunks"] == 75 // 4 * 4 + 36
