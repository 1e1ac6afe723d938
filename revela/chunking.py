"""Text -> chunks: complete sentences packed up to a number of words (section 4.1)."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

PUNKT_FILE = "punkt.json"


class ChunkingError(Exception):
    """Punkt's parameters are missing. The message is one line."""


def chunk(text: str, split_sentences: Callable[[str], list[str]], max_words: int = 120) -> list[str]:
    """Split a text into chunks of at most `max_words` words, each of complete sentences.

    A sentence that is longer by itself is cut every `max_words` words. Words are what
    whitespace separates; none is lost or added and their order is kept. A chunk is part
    of the text as it stands: whitespace inside it (line breaks, indentation) is the text's own.

    Args:
        text: One document.
        split_sentences: Text -> its sentences in order, as `sentence_splitter` returns.
        max_words: Words in a chunk at most (120 in the paper).

    >>> chunk("One two. Three four five. Six.", lambda text: ["One two.", "Three four five.", "Six."], max_words=4)
    ['One two.', 'Three four five. Six.']
    """
    if max_words < 1:
        raise ValueError(f"max_words must be at least 1, got {max_words}")
    chunks: list[str] = []
    start = end = position = 0  # the open chunk is text[start:end]
    words = 0
    for sentence in split_sentences(text):
        for piece, piece_words in _pieces(sentence, max_words):
            begin = text.index(piece, position)
            position = begin + len(piece)
            if words and words + piece_words > max_words:
                chunks.append(text[start:end])
                words = 0
            if not words:
                start = begin
            end = position
            words += piece_words
    if words:
        chunks.append(text[start:end])
    return chunks


def _pieces(sentence: str, max_words: int) -> list[tuple[str, int]]:
    """The sentence without outer whitespace and its number of words, cut where it has more than `max_words`."""
    sentence = sentence.strip()
    words = len(sentence.split(maxsplit=max_words))
    if words <= max_words:
        return [(sentence, words)] if words else []
    spans = [word.span() for word in re.finditer(r"\S+", sentence)]
    groups = [spans[first : first + max_words] for first in range(0, len(spans), max_words)]
    return [(sentence[group[0][0] : group[-1][1]], len(group)) for group in groups]


def sentence_splitter(folder: str | Path) -> Callable[[str], list[str]]:
    """Text -> its sentences in order, by Punkt's parameters in a folder that `resources.build_punkt` made.

    Every word is in exactly one sentence: a boundary that Punkt sees inside a word, as between ``1.`` and ``],``
    in ``[0., 1.],``, is none. Sentences are without outer whitespace; the whitespace inside them is the text's own.
    """
    path = Path(folder) / PUNKT_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ChunkingError(f"{path}: no such file; resources.build_punkt makes it") from None
    parameters = PunktParameters()
    parameters.abbrev_types = set(content["abbreviations"])
    parameters.collocations = set(map(tuple, content["collocations"]))
    parameters.sent_starters = set(content["sentence_starters"])
    parameters.ortho_context = defaultdict(int, content["orthographic_context"])
    tokenizer = PunktSentenceTokenizer(parameters)

    def split_sentences(text: str) -> list[str]:
        starts = [start for start, _ in tokenizer.span_tokenize(text) if start and text[start - 1].isspace()]
        sentences = (text[start:end].strip() for start, end in pairwise([0, *starts, len(text)]))
        return [sentence for sentence in sentences if sentence]

    return split_sentences
