"""Text -> chunks: complete sentences packed up to a number of words (section 4.1)."""

from __future__ import annotations

from collections.abc import Callable


def chunk(text: str, split_sentences: Callable[[str], list[str]], max_words: int = 120) -> list[str]:
    """Split a text into chunks of at most `max_words` words, each of complete sentences.

    A sentence that is longer by itself is cut every `max_words` words. Words are what
    whitespace separates; none is lost or added and their order is kept. A chunk is part
    of the text as it stands: whitespace inside it (line breaks, indentation) is the text's own.

    Args:
        text: One document.
        split_sentences: Text -> its sentences in order, as `resources.sentence_splitter` returns.
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
    pieces = []
    rest = sentence.strip()
    while rest:
        words = rest.split(maxsplit=max_words)
        if len(words) <= max_words:
            pieces.append((rest, len(words)))
            break
        tail = words[-1]  # everything after the first max_words words, its whitespace untouched
        pieces.append((rest[: len(rest) - len(tail)].rstrip(), max_words))
        rest = tail
    return pieces
