"""Chunks by tokens: sentences as Unicode ends them, nothing lost but white space, and what a length cuts off is counted."""

import json
from types import SimpleNamespace

import pytest
from conftest import make_tokenizer
from corpus_specs import chunks_of
from hypothesis import given, settings
from hypothesis import strategies as st
from text_files import corpus, lines, rows_of, write

from revela.pretrained import load_tokenizer
from revela.study.chunking import Chunking
from revela.study.settings import Training
from revela.study.specification import Reading, chunk_spec
from revela.text import CorpusError
from revela.text.by_tokens import Cut, Reader, chunk, cut_off, is_unspaced, lengths, room, starts
from revela.text.chunks import write_chunks

CHINESE = "我喜欢读书。你呢？「好的！」他说。今天天气很好，我们去公园吧。"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたか頓と見当がつかぬ。"
THAI = "ภาษาไทยไม่มีช่องว่างระหว่างคำ"


def by_characters(text, most):
    """Each character is a token."""
    return chunk(text, range(len(text)), most)


def test_chinese_by_hand():
    """What closes a sentence belongs to it, and one that is too long is cut where a line may be broken: not before 吧。"""
    expected = ["我喜欢读书。你呢？「", "好的！」他说。", "今天天气很好，我们去", "公园吧。"]
    assert by_characters(CHINESE, 10) == expected
    assert by_characters("去公园吧。", 4) == ["去公园", "吧。"]
    assert by_characters(CHINESE, 100) == [CHINESE]


def test_japanese_by_hand():
    sentences = ["吾輩は猫である。", "名前はまだ無い。", "どこで生れたか頓と見当がつかぬ。"]
    assert by_characters(JAPANESE, 16) == [sentences[0] + sentences[1], sentences[2]]
    assert by_characters(JAPANESE, 24) == [sentences[0] + sentences[1], sentences[2]]
    assert by_characters(JAPANESE, 32) == [JAPANESE]


def test_mixed_text_by_hand():
    text = "Revela learns from text.  它不需要标签。\nIt needs no labels!"
    assert by_characters(text, 26) == ["Revela learns from text.", "它不需要标签。", "It needs no labels!"]
    assert by_characters(text, 34) == ["Revela learns from text.  它不需要标签。", "It needs no labels!"]


def test_thai_is_cut_between_words():
    assert by_characters(THAI, 8) == ["ภาษาไทย", "ไม่มี", "ช่องว่าง", "ระหว่าง", "คำ"]


def test_a_run_without_any_place_to_cut_is_cut_between_characters():
    assert by_characters("x" * 10 + ". ok.", 4) == ["xxxx", "xxxx", "xx.", "ok."]
    family = "👩‍👩‍👧"  # five code points, one character
    assert by_characters(family * 3, 6) == [family] * 3


def test_the_rest_of_a_long_sentence_is_followed_by_the_next():
    assert by_characters("一二三四五六七。八。", 6) == ["一二三四五六", "七。八。"]


TEXTS = st.text(st.sampled_from("ab.! \n\t\u3000我们去。？」ไทยม่カタひらé\u0301👩\u200d😀\0"), max_size=60)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS, most=st.integers(1, 12))
def test_nothing_is_lost_but_white_space(text, most):
    chunks = by_characters(text, most)
    assert "".join("".join(chunks).split()) == "".join(text.split())
    place = 0
    for one in chunks:
        assert one == one.strip() != ""
        place = text.index(one, place) + len(one)


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from("ab.! \n我们去。？ไทยカ"), max_size=60), most=st.integers(3, 12))
def test_chunks_have_as_many_tokens_as_fit(text, most):
    chunks = by_characters(text, most)
    assert all(len(one) <= most for one in chunks)


@pytest.mark.parametrize(
    "text, unspaced",
    [
        (CHINESE, True),
        (JAPANESE, True),
        (THAI, True),
        ("Revela learns from text. " * 20 + "作者：蔡", False),  # a name
        ("Revela learns from text. " * 20 + CHINESE, True),
        ("레벨라는 텍스트에서 배운다.", False),
        ("def f(x):\n    return x + 1", False),
        ("Die Straße ist naß. Это текст. هذا نص", False),
        ("", False),
        ("1234 。！", False),
    ],
)
def test_whether_words_are_a_measure(text, unspaced):
    assert is_unspaced([text]) is unspaced


# --- what a model reads


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A byte-level tokenizer: a sign of Chinese has three tokens, which begin where the sign does."""
    place = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(place)
    return place


def test_tokens_of_a_text(folder):
    tokenizer = load_tokenizer(folder)
    assert starts(tokenizer, "我。") == [0, 0, 0, 1, 1, 1]
    assert lengths(tokenizer, ["我。", "我。</s>", ""], eos=True) == [7, 7, 1]
    assert lengths(tokenizer, ["我。"], eos=False) == [6]
    assert cut_off([7, 5, 4], 5) == Cut(texts=3, cut=1, tokens=16, lost=2) and cut_off([], 5).share == 0
    assert room(157, "query: ", "passage: ") == 157 - 9 - 2
    assert all(
        length <= 157 for length in lengths(tokenizer, ["passage: " + "。" * (room(157, "passage: ") // 3)], eos=True)
    )


def test_what_a_retriever_reads(folder):
    reader = Reader(folder, Reading(prefix="我", max_length=8))
    kept, cut = reader.read(["。。", "</s>", "</s> <s>", "ok</s>", "。"])
    assert kept == ["。。", "</s> <s>", "ok</s>", "。"]  # the blank of </s> <s> is a token
    assert cut == Cut(texts=4, cut=1, tokens=10 + 7 + 6 + 7, lost=2)  # with the prefix's three, and EOS
    assert reader.read(["</s>"]) == ([], Cut())


def spec(**changes):
    config = SimpleNamespace(
        corpora={"mine": corpus(sources=[{"dataset": "a"}])},
        chunking=Chunking(**{"tokenizer": "tiny", "max_tokens": 40} | changes),
        training=Training(),
    )
    return chunk_spec(SimpleNamespace(config=config), "mine")


def test_chinese_paragraphs_lose_next_to_nothing(tmp_path, folder):
    """61 paragraphs were one chunk of 120 "words", of which the retriever kept a small part."""
    paragraph = "研究人员发现，检索模型可以从原始文本中学习。它不需要标注数据！这是怎么做到的？答案在于语言模型。"
    texts = [f"第{n}段。" + paragraph for n in range(61)]
    write(tmp_path / "a/rows.jsonl", lines({"text": "\n".join(texts)}))
    options = {"tokenizer": folder, "workers": 2}
    counts = write_chunks(spec(max_tokens=140), {"a": tmp_path / "a"}, None, tmp_path / "chunks.parquet", **options)
    [row] = rows_of(tmp_path / "chunks.parquet")
    assert "".join("".join(row["chunks"]).split()) == "".join(texts)
    assert all(one.endswith(("。", "！", "？")) for one in row["chunks"])
    tokens = counts["tokens"]
    assert tokens["lost"] == 0 and tokens["max_length"] == 157 and tokens["texts"] == len(row["chunks"]) > 60
    assert counts["max_tokens"] == 140 and "max_words" not in counts


def test_chunks_without_a_token_are_left_out_and_counted(tmp_path, folder):
    texts = ["One two.", "</s>", "Three.", "</s></s>"]
    write(tmp_path / "a/rows.jsonl", lines(*({"text": text} for text in texts)))
    folders = {"a": tmp_path / "a"}
    counts = write_chunks(spec(), folders, None, tmp_path / "chunks.parquet", tokenizer=folder)
    assert [row["chunks"] for row in rows_of(tmp_path / "chunks.parquet")] == [["One two."], ["Three."]]
    assert counts["left_out"] == {"chunks": 2, "first": "a/rows.jsonl:1"}
    assert counts["documents"] == 2 and counts["empty"] == 2

    write(tmp_path / "a/rows.jsonl", lines({"text": "</s>"}))
    with pytest.raises(CorpusError, match="no text that .* has a token for; the first document without one is a/rows"):
        write_chunks(spec(), folders, None, tmp_path / "none.parquet", tokenizer=folder)


def test_without_a_tokenizer_nothing_of_tokens_is_written(tmp_path):
    """The paper's counts are what they were."""
    assert chunks_of(corpus(), 8).model_dump(exclude_none=True).keys() == {"sources", "max_words"}
    assert json.loads(spec(tokenizer="tiny", max_tokens=None).model_dump_json())["reading"] == {
        "prefix": "passage: ",
        "max_length": 157,
    }
