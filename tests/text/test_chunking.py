"""Chunks: no word lost or added, order kept, at most so many words, complete sentences."""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nltk import redos
from nltk.tokenize.punkt import PunktSentenceTokenizer, PunktTrainer

from revela.text.chunking import PUNKT_FILE, ChunkingError, chunk, read_parameters, sentence_splitter

SHARED = Path(os.environ.get("REVELA_SHARED", Path(__file__).parents[3] / "shared"))
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


# --- the boundaries of NLTK


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """(our splitter, NLTK's tokenizer) with parameters of every kind: trained, and some by hand."""
    folder = tmp_path_factory.mktemp("trained")
    text = (
        "In approx. two hours Mr. Bell went to St. Ives. See fig. 3 or eq. 4. The end (cf. J. Bach). It was no. 7. " * 9
    )
    parameters = PunktTrainer(text).get_params()
    content = {
        "abbreviations": [*parameters.abbrev_types, "dr", "e.g", "x-ab"],
        "collocations": [*parameters.collocations, ("##number##", "series"), ("said", "ab")],
        "sentence_starters": [*parameters.sent_starters, "the", "ab"],
        "orthographic_context": {**parameters.ortho_context, "bach": 42, "ab": 2},
    }
    (folder / PUNKT_FILE).write_text(json.dumps(content))
    return sentence_splitter(folder), PunktSentenceTokenizer(read_parameters(folder))


def nltk_sentences(tokenizer, text):
    """Sentences by `span_tokenize`, without the boundaries inside a word."""
    starts = [start for start, _ in tokenizer.span_tokenize(text) if start and text[start - 1].isspace()]
    sentences = (text[start:end].strip() for start, end in pairwise([0, *starts, len(text)]))
    return [sentence for sentence in sentences if sentence]


PIECES = st.sampled_from(
    [".", "!", "?", "...", ". . .", '."', ".)", '")', "' ", "\u201d", "--", ",", ";", " ", " ", " ", "\n", "\t", "\x1c"]
    + [
        "\xa0",
        "\u2028",
        "Dr.",
        "J.",
        "e.g.",
        "x-ab.",
        "1.",
        "3.14",
        "Ab",
        "ab",
        "The",
        "said",
        "Bach",
        "series",
        "\u00e9t\u00e9",
    ]
)


@settings(max_examples=200, deadline=None)
@given(pieces=st.lists(st.one_of(PIECES, PIECES, WORDS), max_size=40))
@example(pieces=["Ab", ".", '"', " ", "\n", "The"])
@example(pieces=[" ", ".", " ", "J.", " ", "Bach", ".", "' ", "--", "The"])
@example(pieces=["said", ".", "\n", "\x1c"])
@example(pieces=["ab", ".", "\xa0", ".", " ", ".", " ", "Ab"])
def test_the_boundaries_are_nltk_s(trained, pieces):
    (split, tokenizer), text = trained, "".join(pieces)
    assert split(text) == split(text) == nltk_sentences(tokenizer, text)


def test_the_boundaries_of_real_articles_are_nltk_s(trained):
    if not WIKITEXT.exists():
        pytest.skip(f"{WIKITEXT} is not there (REVELA_SHARED names its folder)")
    import pyarrow.parquet as pq

    split, tokenizer = trained
    for text in pq.read_table(WIKITEXT)["text"].to_pylist()[::6]:
        assert split(text) == nltk_sentences(tokenizer, text)


def test_a_text_of_any_length(split_sentences, monkeypatch):
    """NLTK's patterns stop after a time that begins with a text."""
    monkeypatch.setattr(redos, "DEFAULT_TIMEOUT", 1e-3)
    words = [f"word{i}. Word" for i in range(3000)]
    tokenizer = PunktSentenceTokenizer()
    with pytest.raises(TimeoutError):
        list(tokenizer.span_tokenize(" ".join(words)))
    assert len(split_sentences(" ".join(words))) == 3001


def test_real_articles_keep_their_words(split_sentences):
    if not WIKITEXT.exists():
        pytest.skip(f"{WIKITEXT} is not there (REVELA_SHARED names its folder)")
    import pyarrow.parquet as pq

    articles = pq.read_table(WIKITEXT)["text"].to_pylist()
    assert len(articles) == 122
    for text in articles:
        check(text, chunk(text, split_sentences, 120), 120)


def test_own_sources_keep_their_words(split_sentences):
    for path in sorted(Path(__file__).parents[2].glob("revela/**/*.py")):
        text = path.read_text(encoding="utf-8")
        check(text, chunk(text, split_sentences, 40), 40)


def test_missing_parameters_are_one_line(tmp_path):
    with pytest.raises(ChunkingError, match=r"punkt\.json: no such file; resources\.build_punkt makes it") as error:
        sentence_splitter(tmp_path)
    assert "\n" not in str(error.value)
