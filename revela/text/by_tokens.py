"""Text -> chunks by a model's tokens, at sentences as Unicode ends them (UAX #29), and what a length cuts off of them.

It is for text without spaces between words, where a number of words limits nothing: Chinese, Japanese, Thai and others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from revela.study.specification import Reading

LOCALE = "und"  # of no language: the rules of the standard, with ICU's dictionaries for words
# Scripts in which no space stands between words.
UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}&&\p{L}]", regex.VERSION1
)
LETTER = regex.compile(r"\p{L}")
MUCH = 0.02  # share of letters without spaces between words from which a text is cut by tokens: they hold ten times as much


def chunk(text: str, starts: Sequence[int], most: int) -> list[str]:
    """Split a text into chunks of at most `most` tokens, of complete sentences where they fit.

    A longer sentence is cut where a line may be broken (after a word, or between two signs of Chinese), and a longer run
    without such a place between characters. No character is lost but white space around chunks, and their order is kept.

    Args:
        text: One document.
        starts: Where each token begins, ascending.
        most: Tokens in a chunk at most; one character may have more.

    >>> chunk("我喜欢读书。你呢？今天天气很好。", range(16), most=9)
    ['我喜欢读书。你呢？', '今天天气很好。']
    """
    ends = [0, *_ends(text, 0, len(text), starts, most)]
    return [one for begin, end in pairwise(ends) if (one := text[begin:end].strip())]


def _ends(text: str, begin: int, end: int, starts: Sequence[int], most: int, fineness: int = 0) -> Iterator[int]:
    """Where the chunks of text[begin:end] end, which begin with it: after sentences, or finer parts of those too long."""
    from icu4py.breakers import CharacterBreaker, LineBreaker, SentenceBreaker

    breakers = (SentenceBreaker, LineBreaker, CharacterBreaker)[fineness:]
    opened = stop = begin
    for part in breakers[0](text[begin:end], LOCALE):
        last, stop = stop, stop + len(part)
        if len(breakers) > 1 and _tokens(starts, last, stop) > most:
            if last > opened:
                yield last
            *ends, _ = _ends(text, last, stop, starts, most, fineness + 1)
            yield from ends
            opened = ends[-1] if ends else last  # the rest may be followed by what comes next
        elif _tokens(starts, opened, stop) > most and last > opened:
            yield last
            opened = last
    if end > opened:
        yield end


def _tokens(starts: Sequence[int], begin: int, end: int) -> int:
    return bisect_left(starts, end) - bisect_left(starts, begin)


def is_unspaced(texts: Iterable[str]) -> bool:
    """Whether so many of the letters stand in scripts without spaces between words that words are no measure."""
    letters = unspaced = 0
    for text in texts:
        letters += len(LETTER.findall(text))
        unspaced += len(UNSPACED.findall(text))
    return unspaced > MUCH * letters


# --- what a model reads of its texts


@dataclass(frozen=True)
class Cut:
    """What a length cuts off some texts: how many there are and how many are cut, their tokens and those lost."""

    texts: int = 0
    cut: int = 0
    tokens: int = 0
    lost: int = 0

    def __add__(self, other: Cut) -> Cut:
        return Cut(*(getattr(self, name) + getattr(other, name) for name in ("texts", "cut", "tokens", "lost")))

    @property
    def share(self) -> float:
        """Of the tokens that are lost."""
        return self.lost / max(1, self.tokens)


def cut_off(lengths: Iterable[int], most: int) -> Cut:
    """What is cut off texts of so many tokens each.

    >>> cut_off([3, 7, 10], 6)
    Cut(texts=3, cut=2, tokens=20, lost=5)
    """
    lost = [(length, max(0, length - most)) for length in lengths]
    return Cut(len(lost), sum(less > 0 for _, less in lost), sum(n for n, _ in lost), sum(less for _, less in lost))


def lengths(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, eos: bool) -> list[int]:
    """Tokens of each text, special ones included. eos: EOS is put at the end where the tokenizer does not."""
    rows = tokenizer(list(texts), truncation=False, return_attention_mask=False, verbose=False)["input_ids"]
    return [len(row) + (eos and row[-1:] != [tokenizer.eos_token_id]) for row in rows]


def starts(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Where each token of a text begins, ascending."""
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return sorted(start for start, _ in read["offset_mapping"])


def room(max_length: int, *prefixes: str) -> int:
    """Tokens that `max_length` leaves to a chunk beside BOS, EOS and the longest prefix, at least.

    >>> room(157, "query: ", "passage: ")
    146
    """
    return max(8, max_length - max(len(prefix.encode()) for prefix in prefixes) - 2)


class Reader:
    """How a retriever reads chunks: with the tokenizer of a folder, behind its prefix, cut at its length.

    Raises PretrainedError for a folder without a tokenizer, or with one that does not tell where tokens begin.
    """

    def __init__(self, folder: str | Path, reading: Reading):
        from revela.pretrained import PretrainedError, load_tokenizer

        self.reading, self.tokenizer = reading, load_tokenizer(folder)
        if not self.tokenizer.is_fast:
            raise PretrainedError(
                f"{folder}: its tokenizer does not tell where tokens begin; set chunking.tokenizer to null, or to "
                "another backbone"
            )

    def read(self, chunks: Sequence[str]) -> tuple[list[str], Cut]:
        """The chunks of which some token is no special one, and what the length cuts off them."""
        prefix = self.reading.prefix
        options = {"truncation": False, "return_offsets_mapping": True, "verbose": False}
        read = self.tokenizer([prefix + chunk for chunk in chunks], **options)
        special, eos = set(self.tokenizer.all_special_ids), self.tokenizer.eos_token_id
        kept, tokens = [], []
        for one, ids, offsets in zip(chunks, read["input_ids"], read["offset_mapping"], strict=True):
            if any(number not in special and end > len(prefix) for number, (_, end) in zip(ids, offsets)):
                kept.append(one)
                tokens.append(len(ids) + (eos is not None and ids[-1] != eos))
        return kept, cut_off(tokens, self.reading.max_length)
