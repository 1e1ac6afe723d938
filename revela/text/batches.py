"""Chunks -> batches.parquet (section 4.1, App. B.4): of sources, of other corpora, or from ready batches."""

from __future__ import annotations

import functools
import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from revela.text import CorpusError, batching
from revela.text.documents import find_files
from revela.text.parquet import read_table, write_counts, write_table
from revela.text.progress import Progress, silent
from revela.text.rows import json_values

if TYPE_CHECKING:
    from revela.study.specification import BatchSpec

_STRINGS = pa.list_(pa.string())
BATCHES = pa.schema([("src", pa.string()), ("text", _STRINGS), ("document", _STRINGS)])

Batch = tuple[str, list[str], list[str]]  # source, B chunks, the ids of their documents
Item = TypeVar("Item")


@dataclass(frozen=True)
class _Part:
    """One origin of batches: its chunks and batches, how many of these are wanted (None: all), and all of them in order."""

    name: str
    chunks: int
    available: int
    wanted: int | None
    batches: Callable[[], Iterator[Batch]]


def write_batches(
    spec: BatchSpec,
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    progress: Progress = silent,
) -> dict:
    """Write a corpus's `batches.parquet` (a row for each batch of B chunks) and, beside it, `batches.json`.

    Documents with at least `min_chunks` chunks, the first `max_chunks` of each, are taken in groups of `group_size`, and
    the chunks of a group are interleaved. B consecutive chunks form a batch, which never holds chunks of two sources. Where fewer batches are
    wanted than exist, `take` says whether they are drawn by the seed or are the first ones. Either way they keep the
    order of the corpus.

    Args:
        spec: With `sources`, `mix` or `ready`.
        inputs: For `sources` the corpus's chunks.parquet. For `mix` the batches.parquet of each corpus in the order of
            the mix, of the same B. For `ready` the dataset's folder, whose rows are ``["chunk", ..]`` or
            ``{"src": .., "text": [..]}`` with a multiple of B chunks (trumancai/revela_training_corpus has 16).
        output: The parquet file; the JSON file has the same name.
        progress: Makes the progress bar.

    Returns:
        The counts: batches, chunks, words, documents, chunks by their number of words, batches by their number of
        documents and by their source, and how many batches each part of the corpus holds and gave. Ready batches do not
        name their documents, so the counts of documents are null for them.

    Raises:
        CorpusError: More batches are wanted than exist, or a ready row has another form or number of chunks.
    """
    batches, counts = chosen_batches(spec, inputs, progress)
    write_table(output, BATCHES, batches, lambda batch: sum(map(len, batch[1])))
    return write_counts(output, counts())


def chosen_batches(
    spec: BatchSpec, inputs: Sequence[str | Path], progress: Progress
) -> tuple[Iterator[Batch], Callable[[], dict]]:
    """The batches of a corpus, and a function that returns their counts once all of them have been taken.

    The arguments are those of `write_batches`. Raises CorpusError where it does.
    """
    if spec.ready:
        parts = [_ready(spec.ready, Path(inputs[0]), spec.batch_size)]
    elif spec.mix:
        parts = [
            _mixed(name, spec.mix[name], Path(path), spec.batch_size)
            for name, path in zip(spec.mix, inputs, strict=True)
        ]
    else:
        parts = _interleaved(spec, Path(inputs[0]))
    chosen, counts = _choose(parts, spec), BatchCounts()

    def batches() -> Iterator[Batch]:
        with progress(desc=f"batches of {spec.batch_size}", total=sum(map(len, chosen))) as bar:
            for part, indices in zip(parts, chosen, strict=True):
                for batch in _pick(part.batches(), indices):
                    counts.add(batch)
                    bar.update()
                    yield batch

    def result() -> dict:
        settings = {"batch_size": spec.batch_size, "group_size": spec.group_size}
        given = {part.name: {"available": part.available, "taken": len(some)} for part, some in zip(parts, chosen)}
        found = {**counts.result(documents=not spec.ready), "parts": given}
        return {**settings, "take": spec.take, "seed": spec.seed, **found}

    return batches(), result


class BatchCounts:
    """What batches hold, counted as they pass."""

    def __init__(self):
        self._counts = {"batches": 0, "chunks": 0, "words": 0}
        self._counts |= {"words_of_chunk": Counter(), "documents_of_batch": Counter(), "sources": Counter()}
        self._documents = array("Q")  # hashes of the ids in each batch: ids themselves would take gigabytes

    def add(self, batch: Batch) -> None:
        """Counts a batch."""
        src, text, ids = batch
        words, distinct, counts = [len(chunk.split()) for chunk in text], set(ids), self._counts
        counts["batches"] += 1
        counts["chunks"] += len(text)
        counts["words"] += sum(words)
        counts["words_of_chunk"].update(words)
        counts["documents_of_batch"][len(distinct)] += 1
        counts["sources"][src] += 1
        self._documents.extend(map(_hash, distinct))

    def result(self, *, documents: bool) -> dict:
        """The counts; those of documents are null where batches do not name them."""
        if not documents:
            return {**self._counts, "documents": None, "documents_of_batch": None}
        hashes = np.frombuffer(self._documents, np.uint64) if self._documents else np.empty(0)
        return {**self._counts, "documents": len(np.unique(hashes))}


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


# --- which batches are taken


def _choose(parts: list[_Part], spec: BatchSpec) -> list[np.ndarray]:
    """The sorted indices of the batches that are taken of each part."""
    chosen = []
    for index, part in enumerate(parts):
        rng = np.random.default_rng([spec.seed, index])
        chosen.append(_draw(part.available, part.wanted, spec.take, rng, f"{part.name}: batches of {spec.batch_size}"))
    ends = np.cumsum([len(indices) for indices in chosen])
    if not ends[-1]:
        names = ", ".join(part.name for part in parts)
        most = max(part.chunks for part in parts)
        smaller = f", or {most} chunks in a batch at most" if most > 2 else ""  # of two, each has no choice
        raise CorpusError(
            f"{names}: too little text for one batch of {spec.batch_size}: it makes {most} chunks; valid: more text{smaller}"
        )
    rng = np.random.default_rng([spec.seed, len(parts)])
    overall = _draw(int(ends[-1]), spec.batches, spec.take, rng, f"batches of {spec.batch_size} in all")
    shares = np.split(overall, np.searchsorted(overall, ends[:-1]))
    starts = [0, *ends[:-1].tolist()]
    return [indices[share - start] for indices, share, start in zip(chosen, shares, starts)]


def _draw(available: int, wanted: int | None, take: str, rng: np.random.Generator, what: str) -> np.ndarray:
    if wanted is None:
        wanted = available
    if wanted > available:
        raise CorpusError(f"{what}: {wanted:,} are wanted, {available:,} exist")
    if take == "first" or wanted == available:
        return np.arange(wanted)
    return np.sort(rng.choice(available, wanted, replace=False))


def _pick(items: Iterable[Item], indices: np.ndarray) -> Iterator[Item]:
    """The items at sorted indices. Nothing beyond the last one is read."""
    wanted = iter(indices.tolist())
    following = next(wanted, None)
    for index, item in enumerate(items):
        if following is None:
            return
        if index == following:
            yield item
            following = next(wanted, None)


# --- where batches come from


def _interleaved(spec: BatchSpec, path: Path) -> list[_Part]:
    """The sources of a corpus, from its chunks.parquet."""
    chunks: Counter[str] = Counter()
    row_groups: defaultdict[str, list[int]] = defaultdict(list)
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=["src", "chunks"])
            lengths = pc.list_value_length(table["chunks"])
            for src in pc.unique(table["src"]).to_pylist():
                of_source = pc.filter(lengths, pc.equal(table["src"], src))
                of_source = pc.filter(of_source, pc.greater_equal(of_source, spec.min_chunks))
                if spec.max_chunks:
                    of_source = pc.min_element_wise(of_source, spec.max_chunks)
                chunks[src] += pc.sum(of_source).as_py() or 0
                row_groups[src].append(number)

    def batches_of(dataset: str) -> Iterator[Batch]:
        documents = (
            [(chunk, row["document"]) for chunk in row["chunks"][: spec.max_chunks]]
            for row in read_table(path, row_groups[dataset])
            if row["src"] == dataset and len(row["chunks"]) >= spec.min_chunks
        )
        for batch in batching.batches(batching.interleave(documents, spec.group_size), spec.batch_size):
            yield dataset, [chunk for chunk, _ in batch], [document for _, document in batch]

    return [
        _Part(
            dataset,
            chunks[dataset],
            chunks[dataset] // spec.batch_size,
            wanted,
            functools.partial(batches_of, dataset),
        )
        for dataset, wanted in _wanted(spec, chunks).items()
    ]


def _wanted(spec: BatchSpec, chunks: Counter[str]) -> dict[str, int | None]:
    """How many batches each source is to give; None: all. `chunks` counts the chunks of each.

    Where one source gives the rest, the others give as many batches at each batch size as they have at `rest_at`, so
    that no source's share depends on the batch size.
    """
    rest = next((dataset for dataset, wanted in spec.sources.items() if wanted == "rest"), None)
    if rest is None:
        return spec.sources
    wanted = {
        dataset: chunks[dataset] // spec.rest_at if number is None else number
        for dataset, number in spec.sources.items()
        if dataset != rest
    }
    others = sum(wanted.values())
    if others > spec.batches:
        raise CorpusError(
            f"{spec.batches:,} batches are wanted, but the sources beside {rest} alone give {others:,} of {spec.rest_at}"
        )
    return {dataset: wanted.get(dataset, spec.batches - others) for dataset in spec.sources}


def _mixed(name: str, wanted: int, path: Path, batch_size: int) -> _Part:
    def batches() -> Iterator[Batch]:
        for row in read_table(path):
            yield row["src"], row["text"], row["document"]

    available = pq.read_metadata(path).num_rows
    return _Part(name, available * batch_size, available, wanted, batches)


def _ready(dataset: str, folder: Path, batch_size: int) -> _Part:
    """Ready batches, cut into batches of B. Their documents are unknown, so each chunk has an id of its own."""

    def batches() -> Iterator[Batch]:
        for kind, path in find_files(folder):
            if kind not in ("jsonl", "json"):
                raise CorpusError(f"{folder}: ready batches are JSON lines, but these are {kind} files")
            name = path.relative_to(folder).as_posix()
            for index, (number, row) in enumerate(json_values(path)):
                src, text = (row.get("src"), row.get("text")) if isinstance(row, dict) else (dataset, row)
                if not isinstance(src, str) or not isinstance(text, list) or not all(type(t) is str for t in text):
                    raise CorpusError(f'{path}:{number}: neither ["chunk", ..] nor {{"src": .., "text": [..]}}')
                if not text or len(text) % batch_size:
                    raise CorpusError(f"{path}:{number}: {len(text)} chunks, not a multiple of {batch_size}")
                ids = [f"{dataset}/{name}:{index}:{place}" for place in range(len(text))]
                for start in range(0, len(text), batch_size):
                    yield src, text[start : start + batch_size], ids[start : start + batch_size]

    available = sum(1 for _ in batches())
    return _Part(dataset, available * batch_size, available, None, batches)
