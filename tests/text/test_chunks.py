"""Documents in chunks: no word lost, the same for any number of workers, and counted."""

import itertools
import json
import pydoc_data.topics

import pyarrow.parquet as pq
import pytest
from corpus_specs import batches_of, chunks_of
from test_chunking import WIKITEXT, write_punkt
from text_files import corpus, lines, one_line, rows_of, words, write, write_data

import revela.text.chunks
import revela.text.parquet
from revela.study.settings import Corpus, TextSource
from revela.text import CorpusError
from revela.text.batches import write_batches
from revela.text.chunking import chunk, sentence_splitter
from revela.text.chunks import write_chunks


@pytest.fixture
def punkt(tmp_path):
    return write_punkt(tmp_path / "punkt")


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path)


def test_chunks_and_counts(tmp_path, data, punkt):
    counts = write_chunks(chunks_of(corpus(), 8), data, punkt, tmp_path / "out" / "chunks.parquet")
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
    monkeypatch.setattr(revela.text.chunks, "JOB_CHARACTERS", 200)  # many jobs
    monkeypatch.setattr(revela.text.parquet, "ROW_GROUP_CHARACTERS", 500)
    for workers in (1, 2, 3):
        write_chunks(chunks_of(corpus(), 8), data, punkt, tmp_path / f"{workers}/chunks.parquet", workers=workers)
    assert pq.read_metadata(tmp_path / "1/chunks.parquet").num_row_groups > 5
    for workers in (2, 3):
        for name in ("chunks.parquet", "chunks.json"):
            assert (tmp_path / f"{workers}" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_few_documents_are_in_memory(punkt, workers):
    asked = itertools.count()
    jobs = ([(str(next(asked)), "One two. Three.")] for _ in itertools.count())
    cutter = revela.text.chunks._Cutter(chunks_of(corpus(), 8), punkt, None)
    stream = revela.text.chunks._chunk_in_order(jobs, cutter, workers)
    assert [found[0][0] for found, *_ in itertools.islice(stream, 20)] == [str(i) for i in range(20)]
    stream.close()
    assert next(asked) <= 20 + 4 * workers + 1


@pytest.mark.parametrize("workers", [1, 2])
def test_what_fails_leaves_nothing(tmp_path, data, punkt, workers):
    write(data["b"] / "rows.jsonl", lines({"text": "Good."}) + "{broken")
    with pytest.raises(CorpusError, match=r"rows\.jsonl:2: not JSON"):
        write_chunks(chunks_of(corpus(), 8), data, punkt, tmp_path / "out" / "chunks.parquet", workers=workers)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_without_text_is_one_line(tmp_path, data, punkt):
    write(data["b"] / "rows.jsonl", lines({"text": ""}, {"text": " \n"}, {"text": None}))
    with pytest.raises(CorpusError, match=r"b: no text: column 'text' is empty in all 3 documents") as error:
        write_chunks(chunks_of(corpus(), 8), data, punkt, tmp_path / "out" / "chunks.parquet")
    one_line(error)


def wikitext(folder):
    """122 articles of Wikipedia."""
    if not WIKITEXT.exists():
        pytest.skip(f"{WIKITEXT} is not there (REVELA_SHARED names its folder)")
    return TextSource(dataset="d", join_by="title"), WIKITEXT.parents[1], pq.read_table(WIKITEXT)["text"].to_pylist()


def python_documentation(folder):
    """What `help()` knows of the language."""
    pages = list(pydoc_data.topics.topics.values())
    write(folder / "topics.jsonl", lines(*({"text": page} for page in pages)))
    return TextSource(dataset="d"), folder, pages


@pytest.mark.parametrize("real", [wikitext, python_documentation], ids=lambda real: real.__name__)
def test_real_text_loses_no_word(tmp_path, punkt, real):
    source, folder, texts_ = real(tmp_path / "data")
    for workers in (1, 2):
        output = tmp_path / f"{workers}" / "chunks.parquet"
        counts = write_chunks(chunks_of(Corpus(sources=[source]), 120), {"d": folder}, punkt, output, workers=workers)
    for name in ("chunks.parquet", "chunks.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    rows = rows_of(tmp_path / "1/chunks.parquet")
    assert words(chunk for row in rows for chunk in row["chunks"]) == words(texts_)
    assert max(map(int, counts["words_of_chunk"])) <= 120
    assert 80 < counts["words"] / counts["chunks"] < 120


def test_half_a_character_is_no_text(tmp_path, punkt):
    """JSON can escape one half of a surrogate pair; a parquet file cannot hold it."""
    write(tmp_path / "d" / "rows.jsonl", '{"text": "Cut \\ud83d here. Whole \\ud83d\\ude00."}\n')
    spec = chunks_of(Corpus(sources=[{"dataset": "d"}]), 8)
    write_chunks(spec, {"d": tmp_path / "d"}, punkt, tmp_path / "chunks.parquet")
    assert rows_of(tmp_path / "chunks.parquet")[0]["chunks"] == ["Cut \ufffd here. Whole \U0001f600."]


def test_the_whole_way_from_text_to_batches(tmp_path, data, punkt):
    write_chunks(chunks_of(corpus(), 8), data, punkt, tmp_path / "chunks.parquet", workers=2)
    counts = write_batches(batches_of(corpus(), 4), [tmp_path / "chunks.parquet"], tmp_path / "batches.parquet")
    chunks = {row["document"]: row["chunks"] for row in rows_of(tmp_path / "chunks.parquet")}
    seen = {}
    for row in rows_of(tmp_path / "batches.parquet"):
        for text, document in zip(row["text"], row["document"], strict=True):
            assert document.startswith(row["src"] + "/")
            seen.setdefault(document, []).append(text)
    # every chunk once and in order, but for the last few of a source that fill no batch
    assert all(chunks[document][: len(found)] == found for document, found in seen.items())
    assert sum(map(len, seen.values())) == counts["chunks"] == 75 // 4 * 4 + 36
