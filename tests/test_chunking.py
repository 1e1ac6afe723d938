"""Chunks: no word lost or added, order kept, at most so many words, complete sentences."""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revela.chunking import PUNKT_FILE, ChunkingError, chunk, sentence_splitter

SHARED = Path(os.environ.get("REVELA_SHARED", Path(__file__).parents[2] / "shared"))
WIKITEXT = SHARED / "data/wikitext/data/train-00000-of-00001.parquet"


def write_punkt(folder, abbreviations=()):
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "abbreviations": list(abbreviations),
        "collocations": [],
        "sentence_starters": [],
        "orthographic_context": {},
    }
    (folder / PUNKT_FILE).write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def split_sentences(tmp_path_factory):
    return sentence_splitter(write_punkt(tmp_path_factory.mktemp("punkt"), ["dr", "e.g"]))


def check(text, chunks, max_words):
    """The whole contract of `chunk`."""
    assert [word for one in chunks for word in one.split()] == text.split()
    assert all(0 < len(one.split()) <= max_words for one in chunks)
    position = 0
    for one in chunks:  # each is part of the text, in order
        position = text.index(one, position) + len(one)
        assert one == one.strip()


def test_sentences_are_packed_while_they_fit(split_sentences):
    text = "One two three. Four five. Six seven eight nine. Ten."
    assert chunk(text, split_sentences, 5) == ["One two three. Four five.", "Six seven eight nine. Ten."]
    assert chunk(text, split_sentences, 6) == ["One two three. Four five.", "Six seven eight nine. Ten."]
    assert chunk(text, split_sentences, 4) == ["One two three.", "Four five.", "Six seven eight nine.", "Ten."]
    assert chunk(text, split_sentences, 120) == [text]


def test_no_sentence_is_left_alone_that_would_have_fitted(split_sentences):
    text = " ".join(f"{'word ' * (1 + i * 7 % 9)}end{i}." for i in range(60))
    chunks = chunk(text, split_sentences, 20)
    check(text, chunks, 20)
    for one, following in pairwise(chunks):
        assert len(one.split()) + len(split_sentences(following)[0].split()) > 20
        assert one.endswith(".")


@pytest.mark.parametrize(("words", "sizes"), [(10, [10]), (11, [10, 1]), (20, [10, 10]), (37, [10, 10, 10, 7])])
def test_a_long_sentence_is_cut(split_sentences, words, sizes):
    text = " ".join(f"w{i}" for i in range(words))
    chunks = chunk(text, split_sentences, 10)
    check(text, chunks, 10)
    assert [len(one.split()) for one in chunks] == sizes


def test_the_rest_of_a_long_sentence_is_packed_with_the_next(split_sentences):
    text = " ".join(f"w{i}" for i in range(12)) + ". Next one."
    assert chunk(text, split_sentences, 10) == [" ".join(f"w{i}" for i in range(10)), "w10 w11. Next one."]


def test_whitespace_inside_a_chunk_is_the_text_s_own(split_sentences):
    text = "\n\ndef f(x):\n    return x\n\n\n# Done. \tReally.\n"
    assert chunk(text, split_sentences, 120) == ["def f(x):\n    return x\n\n\n# Done. \tReally."]


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_no_text_gives_no_chunk(split_sentences, text):
    assert chunk(text, split_sentences, 5) == []


def test_at_least_one_word(split_sentences):
    with pytest.raises(ValueError, match="max_words must be at least 1, got 0"):
        chunk("a b", split_sentences, 0)


def test_punkt_knows_its_abbreviations(split_sentences):
    assert split_sentences("Dr. Ada came. She left.") == ["Dr. Ada came.", "She left."]
    assert split_sentences("Many (e.g. Ada) came! Why? So.") == ["Many (e.g. Ada) came!", "Why?", "So."]


@pytest.mark.parametrize(
    "text", ["x = [0., 1.], 2", 'raise E("No. ".format(x)) or "Yes."', "a.) b?! )c.] d", "N.B.: x"]
)
def test_a_sentence_never_ends_inside_a_word(split_sentences, text):
    assert [word for sentence in split_sentences(text) for word in sentence.split()] == text.split()


WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
TEXTS = st.lists(
    st.one_of(
        WORDS, st.sampled_from([".", "!", "?", "...", '."', ".)", " ", "\n", "\x1c", "\u2003", "Dr.", "Ab", "1."])
    ),
    max_size=60,
).flatmap(lambda parts: st.sampled_from(["", " "]).map(lambda between: between.join(parts)))


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, max_words=st.integers(1, 9))
def test_any_text_keeps_its_words(split_sentences, text, max_words):
    check(text, chunk(text, split_sentences, max_words), max_words)


def test_real_articles_keep_their_words(split_sentences):
    if not WIKITEXT.exists():
        pytest.skip(f"{WIKITEXT} is not there (REVELA_SHARED names its folder)")
    import pyarrow.parquet as pq

    articles = pq.read_table(WIKITEXT)["text"].to_pylist()
    assert len(articles) == 122
    for text in articles:
        check(text, chunk(text, split_sentences, 120), 120)


def test_own_sources_keep_their_words(split_sentences):
    for path in sorted(Path(__file__).parents[1].glob("revela/*.py")):
        text = path.read_text(encoding="utf-8")
        check(text, chunk(text, split_sentences, 40), 40)


def test_missing_parameters_are_one_line(tmp_path):
    with pytest.raises(ChunkingError, match=r"punkt\.json: no such file; resources\.build_punkt makes it") as error:
        sentence_splitter(tmp_path)
    assert "\n" not in str(error.value)
