"""Text -> chunks: complete sentences packed up to a number of words (section 4.1)."""

from __future__ import annotations

import functools
import json
import re
import string
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import regex
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

from revela.errors import RevelaError

PUNKT_FILE = "punkt.json"
REMEMBERED = 1 << 16  # words and contexts whose decision a splitter remembers
LONGEST_REMEMBERED = 100  # characters of one of them


class ChunkingError(RevelaError):
    """Punkt's parameters are missing. The message is one line."""


def chunk(text: str, split_sentences: Callable[[str], list[str]], max_words: int = 120) -> list[str]:
    """Split a text into chunks of at most `max_words` words, each of complete sentences.

    A longer sentence is cut every `max_words` words. Words are separated by whitespace; none is lost or added, and
    their order is kept. A chunk is a part of the text as it stands, with the line breaks and indentation of the text.

    Args:
        text: One document.
        split_sentences: Returns the sentences of a text in order, as the function of `sentence_splitter` does.
        max_words: Words in a chunk at most (120 in the paper).

    Raises:
        ValueError: `max_words` is below 1.

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
    """A function that returns the sentences of a text in order, by Punkt's parameters in a folder.

    The folder is one that `resources.build_punkt` made; ChunkingError is raised where it has no parameters. Every word is
    in exactly one sentence: boundaries that Punkt sees inside a word, as between ``1.`` and ``],`` in ``[0., 1.],``, do
    not count. Sentences have no outer whitespace, and keep the whitespace inside them.
    """
    punkt = _Punkt(read_parameters(folder))

    def split_sentences(text: str) -> list[str]:
        sentences = (text[start:end].strip() for start, end in pairwise([0, *punkt.sentence_starts(text), len(text)]))
        return [sentence for sentence in sentences if sentence]

    return split_sentences


def read_parameters(folder: str | Path) -> PunktParameters:
    """Punkt's parameters in a folder that `resources.build_punkt` made. Raises ChunkingError where there are none."""
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
    return parameters


class _Punkt(PunktSentenceTokenizer):
    """NLTK's boundaries, found several times as fast: Punkt is asked only where it matters, and its answers are cached.

    A text may have any length, whereas NLTK's own patterns give up after five seconds.
    """

    def __init__(self, parameters: PunktParameters):
        super().__init__(parameters)
        possible_end, closing = self._lang_vars.period_context_re(), self._lang_vars.re_boundary_realignment
        self._possible_end = regex.compile(possible_end.pattern, possible_end.flags)
        self._closing = regex.compile(closing.pattern, closing.flags)
        self._before_collocation = {first for first, _ in parameters.collocations}
        self._always_ends = functools.lru_cache(REMEMBERED)(self._word_always_ends)
        self._ends = functools.lru_cache(REMEMBERED)(self.text_contains_sentbreak)

    def sentence_starts(self, text: str) -> list[int]:
        """Where sentences begin after whitespace, in order: the starts of `span_tokenize` that are not inside a word."""
        starts = []
        for word_start, match in self._last_in_words(text):
            # As in `_realign_boundaries`, what closes a sentence, such as `)` in `(One.) Two.`, belongs to it.
            following = match.start("next_tok")
            start = match.end() if following < 0 else following
            if closing := self._closing.match(text, start):
                start = closing.end()
            if text[start - 1].isspace() and self._is_end(text, word_start, match, following):
                starts.append(start)
        return starts

    def _last_in_words(self, text: str) -> Iterator[tuple[int, regex.Match]]:
        """`_match_potential_end_contexts`: the last possible end in each word, and where the word starts."""
        last, last_start, word_start = None, 0, 0
        for match in self._possible_end.finditer(text):
            start = match.start()
            space = max(text.rfind(" ", last_start, start), last_start)
            if not text[space:start].isprintable():  # perhaps other whitespace
                space = max(space, *(text.rfind(character, space, start) for character in string.whitespace))
            following_word = space + 1 if space > last_start else word_start
            if last and last_start <= following_word:
                yield word_start, last
            last, last_start, word_start = match, start, following_word
        if last:
            yield word_start, last

    def _is_end(self, text: str, word_start: int, match: regex.Match, following: int) -> bool:
        """Whether Punkt ends a sentence at a possible end."""
        word = text[word_start : match.end()]
        context = word + match["after_tok"]
        if len(context) > LONGEST_REMEMBERED:
            return self.text_contains_sentbreak(context)
        # If the only whitespace is between the word and what follows, the tokens of the two can be taken apart.
        apart = following >= 0 and word.isprintable() and " " not in word and not text[following].isspace()
        return (apart and self._always_ends(word)) or self._ends(context)

    def _word_always_ends(self, word: str) -> bool:
        """Whether a sentence ends after a word, whatever the next word is."""
        plain = word[:-1].lower()
        if len(plain) > 1 and plain.isascii() and plain.isalpha():
            return plain not in self._params.abbrev_types and plain not in self._before_collocation
        *_, last = self._annotate_first_pass(self._tokenize_words(word))
        # the cases in which `_second_pass_annotation` may take the break back
        uncertain = last.is_initial or last.type_no_period in {"##number##", *self._before_collocation}
        return bool(last.sentbreak) and not (last.period_final and uncertain)
