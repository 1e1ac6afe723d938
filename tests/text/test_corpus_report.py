"""What a corpus came out as: its report, and other numbers of documents in a group."""

import json

from corpus_specs import batches_of, group_sizes_of
from text_files import corpus, make_chunks

from revela.text.batches import write_batches
from revela.text.parquet import write_counts
from revela.text.report import compare_group_sizes, write_report


def test_group_sizes_side_by_side(tmp_path):
    chunks = make_chunks(tmp_path / "chunks.parquet", {"a": [6, 2, 1, 3, 4, 9]})
    settings = corpus(sources=[{"dataset": "a"}], batches=3, take="first", min_chunks=2, documents=4)
    counts = compare_group_sizes(group_sizes_of(settings, 4), chunks, tmp_path / "groups.json")
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
    one = write_batches(batches_of(settings, 4), [chunks], tmp_path / "batches.parquet")
    assert one == counts["group_size"]["2"]


CHUNK_COUNTS = {
    "documents": 6,
    "chunks": 25,
    "chunks_of_document": {"6": 1, "2": 1, "1": 1, "3": 1, "4": 1, "9": 1},
}


def make_report(folder, output):
    """(the report of a corpus with batches of 4 and 2, the counts of these batches, and by group size)."""
    chunks = make_chunks(folder / "chunks.parquet", {"a": [6, 2, 1, 3, 4, 9]})
    write_counts(chunks, CHUNK_COUNTS)
    one = corpus(sources=[{"dataset": "a"}], documents=4)
    written = {size: write_batches(batches_of(one, size), [chunks], folder / f"{size}.parquet") for size in (4, 2)}
    groups = compare_group_sizes(group_sizes_of(one, 4), chunks, folder / "groups.json")
    files = [folder / "4.json", folder / "2.json"]
    return write_report(folder / "chunks.json", files, folder / "groups.json", output), written, groups


def test_a_report(tmp_path):
    whole, written, groups = make_report(tmp_path, tmp_path / "report.json")
    assert whole == {"chunks": CHUNK_COUNTS, "batches": {"4": written[4], "2": written[2]}, "group_sizes": groups}
    assert json.loads((tmp_path / "report.json").read_text()) == whole
    ready = write_report(None, [tmp_path / "4.json"], None, tmp_path / "report.json")
    assert ready["chunks"] is ready["group_sizes"] is None


def test_the_figure_of_a_report(tmp_path):
    from revela.paper.figure_corpus import corpus_figure

    whole, _, _ = make_report(tmp_path, tmp_path / "report.json")
    ready = whole | {"chunks": None, "group_sizes": None}
    for name, report in {"whole": whole, "ready": ready}.items():
        corpus_figure(report, [tmp_path / f"{name}.png", tmp_path / f"{name}.pdf"])
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "whole.png").stat().st_size > (tmp_path / "ready.png").stat().st_size > 10_000
