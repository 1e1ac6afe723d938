"""Text that is encoded or searched: cut so that the retriever reads all of it, and what it does not read is said."""

import errno
from pathlib import Path

import pytest

from revela.command.passages import cut_off, is_unspaced, read_documents, read_passages
from revela.retriever import Retriever
from revela.text import CorpusError
from revela.text.resources import matching

CHINESE = "研究人员发现，检索模型可以从原始文本中学习。它不需要标注数据！这是怎么做到的？"


@pytest.fixture(scope="module")
def retriever(backbone):
    return Retriever.from_backbone(backbone, passage_prefix="passage: ", max_length=64)


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.txt").write_text("One two three. Four five.\n")
    return folder


def test_text_without_spaces_is_cut_by_what_the_retriever_reads(notes, retriever):
    (notes / "b.jsonl").write_text(f'{{"text": "{CHINESE * 3}"}}\n', encoding="utf-8")
    found = read_passages(notes, retriever=retriever)
    of_chinese = [text for name, text in found if "b.jsonl" in name]
    assert "".join(of_chinese) == CHINESE * 3 and len(of_chinese) > 8
    assert cut_off(retriever, [text for _, text in found], "passage") is None
    assert len(read_passages(notes)) == 2  # by words, it is one passage
    assert ("notes/a.txt#0", "One two three. Four five.") in read_passages(notes)


def test_what_is_not_read_is_one_line(retriever):
    """A letter that no merge joins is a token: 70 of them, the prefix's and EOS, of which 64 are read."""
    [length] = map(len, retriever.tokenizer(["passage: " + "~^" * 35])["input_ids"])
    said = cut_off(retriever, ["~^" * 35, "One."], "passage")
    [short] = map(len, retriever.tokenizer(["passage: One."])["input_ids"])
    share = 100 * (length + 1 - 64) / (length + short + 2)
    assert said == (
        f"1 of 2 texts (passage) have more than 64 tokens; what is beyond is not read: {share:.1f} % of all tokens"
    )
    assert cut_off(retriever, ["One."], "query") is None


def test_a_sample_of_all_files_decides(notes):
    assert not is_unspaced(matching(str(notes)), "text")
    (notes / "z.csv").write_text(f"text\n{CHINESE}\n", encoding="utf-8")
    assert is_unspaced(matching(str(notes)), "text")
    (notes / "broken.jsonl").write_text("{")
    with pytest.raises(CorpusError, match=r"notes/broken.jsonl:1: not JSON"):
        is_unspaced(matching(str(notes)), "text")


def test_files_without_text_are_refused_at_once(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.md").write_text(" \n")
    with pytest.raises(CorpusError, match=f"{tmp_path}: no text: 2 files that are empty or blank"):
        is_unspaced(matching(str(tmp_path)), "text")
    with pytest.raises(CorpusError, match="a.txt: no text: 1 files"):
        is_unspaced(matching(str(tmp_path / "a.txt")), "text")


def test_a_file_that_may_not_be_read_has_its_own_name(notes, monkeypatch):
    def denied(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(PermissionError) as error:
        list(read_documents(notes, ["a.txt"], "text", "notes"))
    assert error.value.filename == str(notes / "a.txt")
