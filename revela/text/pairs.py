"""Contriever's pairs for training, from the batches that Revela trains on (App. C.1; Izacard et al., 2022).

The inverse cloze task and independent cropping take turns, so each makes half of the pairs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from revela.text import CorpusError
from revela.text.chunking import sentence_splitter
from revela.text.parquet import read_table, write_counts, write_table
from revela.text.progress import Progress, silent

if TYPE_CHECKING:
    from revela.study.specification import PairSpec

PAIRS = pa.schema(
    [
        ("query", pa.string()),
        ("passages", pa.list_(pa.string())),
        ("src", pa.string()),
        ("document", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class _Pair:
    query: str
    positive: str
    src: str
    document: str


def write_pairs(
    spec: PairSpec,
    batches: str | Path,
    punkt: str | Path,
    output: str | Path,
    *,
    progress: Progress = silent,
) -> dict:
    """Write `pairs.parquet` (query, B passages of which the first is the positive, src, documents of the passages).

    Inverse cloze: a sentence of a chunk is the query, and the rest of the chunk the positive. A chunk of one sentence
    gives a span instead. Independent cropping: query and positive are two spans, drawn independently, of the chunk
    together with the document's next one (or the one before) in the batch. The length of a span is a share of its text
    drawn from `crop_ratio`. The B - 1 negatives of a pair are positives of other pairs of the same kind, so that their
    form tells nothing, from other documents anywhere in the corpus.

    Every batch gives as many pairs as any other, or one more, drawn by the seed; each pair is of another chunk.

    Args:
        spec: The batch size B, the seed, the number of pairs (None: one for each batch), and the least and greatest
            length of a span as a share of the words of its text.
        batches: The corpus's batches.parquet of size B.
        punkt: Folder of Punkt's parameters.
        output: The parquet file; counts are written to the JSON file of the same name.
        progress: Makes the progress bar.

    Returns:
        The counts: pairs, those of each task, and those of each source.

    Raises:
        CorpusError: More pairs are wanted than there are chunks, or there are too few documents for B - 1 negatives.
    """
    batches, batch_size, seed = Path(batches), spec.batch_size, spec.seed
    available = pq.read_metadata(batches).num_rows
    wanted = available if spec.pairs is None else spec.pairs
    if wanted > available * batch_size:
        raise CorpusError(f"{wanted:,} pairs are wanted, {batches} gives {available * batch_size:,} at most")
    split_sentences = sentence_splitter(punkt)
    rounds, rest = divmod(wanted, available)
    once_more = set(np.random.default_rng(seed).choice(available, rest, replace=False).tolist())
    made: tuple[list[_Pair], list[_Pair]] = [], []  # by inverse cloze, by independent cropping
    for index, row in enumerate(read_table(batches)):
        rng = np.random.default_rng([seed, index])
        anchors = [place for place in rng.permutation(batch_size).tolist() if len(row["text"][place].split()) > 1]
        number = rounds + (index in once_more)
        if number > len(anchors):
            raise CorpusError(f"{batches}: row {index} has {len(anchors)} chunks of two words, {number} are wanted")
        for place in anchors[:number]:
            kind = (len(made[0]) + len(made[1])) % 2
            if kind == 0:
                query, positive = inverse_cloze(row["text"][place], split_sentences, spec.crop_ratio, rng)
            else:
                window = _window(row["text"], row["document"], place)
                query, positive = crop(window, spec.crop_ratio, rng), crop(window, spec.crop_ratio, rng)
            made[kind].append(_Pair(query, positive, row["src"], row["document"][place]))

    def rows() -> Iterator[tuple]:
        for index in progress(iterable=range(wanted), desc="pairs"):
            pool = made[index % 2]
            pair = pool[index // 2]
            rng = np.random.default_rng([seed, index, 1])
            passages = [pair, *_negatives(pair, pool, batch_size - 1, rng)]
            yield pair.query, [p.positive for p in passages], pair.src, [p.document for p in passages]

    write_table(output, PAIRS, rows(), lambda row: sum(map(len, row[1])))
    counts = {
        "batch_size": batch_size,
        "crop_ratio": list(spec.crop_ratio),
        "seed": seed,
        "pairs": wanted,
        "inverse_cloze": len(made[0]),
        "independent_cropping": len(made[1]),
        "sources": Counter(pair.src for pool in made for pair in pool),
    }
    return write_counts(output, counts)


def inverse_cloze(
    text: str, split_sentences: Callable[[str], list[str]], crop_ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[str, str]:
    """(a sentence of the text, the rest). A text of one sentence gives a span and the rest. Neither is empty."""
    sentences = split_sentences(text)
    if len(sentences) > 1:
        taken = int(rng.integers(len(sentences)))
        end = 0
        for sentence in sentences[: taken + 1]:
            start = text.index(sentence, end)
            end = start + len(sentence)
    else:
        start, end = _span(text, crop_ratio, rng)
    return text[start:end], f"{text[:start].rstrip()} {text[end:].lstrip()}".strip()


def crop(text: str, crop_ratio: tuple[float, float], rng: np.random.Generator) -> str:
    """A span of consecutive words of the text."""
    start, end = _span(text, crop_ratio, rng)
    return text[start:end]


def _span(text: str, crop_ratio: tuple[float, float], rng: np.random.Generator) -> tuple[int, int]:
    """(start, end) of some words of a text, at least one and not all of them."""
    words = [word.span() for word in re.finditer(r"\S+", text)]
    length = min(max(1, round(len(words) * rng.uniform(*crop_ratio))), len(words) - 1)
    first = int(rng.integers(len(words) - length + 1))
    return words[first][0], words[first + length - 1][1]


def _window(chunks: list[str], ids: list[str], place: int) -> str:
    """A chunk of a batch with the next chunk of its document in the batch, else with the one before, else alone."""
    same = [i for i, document in enumerate(ids) if document == ids[place]]
    at = same.index(place)
    first = max(0, min(at, len(same) - 2))
    return "\n".join(chunks[i] for i in same[first : first + 2])


def _negatives(pair: _Pair, pool: list[_Pair], number: int, rng: np.random.Generator) -> list[_Pair]:
    """Different pairs of the pool, drawn among those of other documents whose positive is another text."""
    chosen: dict[int, _Pair] = {}

    def suits(other: _Pair) -> bool:
        return other.document != pair.document and other.positive != pair.positive

    for index in rng.integers(len(pool), size=4 * number).tolist():
        if len(chosen) < number and suits(pool[index]):
            chosen[index] = pool[index]
    if len(chosen) < number:  # a small corpus: look at all of it
        left = [index for index, other in enumerate(pool) if index not in chosen and suits(other)]
        missing = number - len(chosen)
        if missing > len(left):
            raise CorpusError(
                f"{number} negatives from other documents are wanted, {len(chosen) + len(left)} exist "
                f"beside document {pair.document}"
            )
        chosen.update({index: pool[index] for index in rng.choice(left, missing, replace=False).tolist()})
    return list(chosen.values())
