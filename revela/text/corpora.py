"""Corpora: documents -> chunks.parquet -> batches.parquet (section 4.1, App. B.4).

Everything streams: memory holds a few documents for each worker and one row group of the output. Output is the same,
byte for byte, whatever the number of workers.
"""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import sys
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from revela.files import atomic_write
from revela.study.study import Corpus
from revela.text import batching
from revela.text.chunking import chunk, sentence_splitter
from revela.text.documents import CorpusError, documents, find_files, json_values

_STRINGS = pa.list_(pa.string())
CHUNKS = pa.schema([("document", pa.string()), ("src", pa.string()), ("chunks", _STRINGS)])
BATCHES = pa.schema([("src", pa.string()), ("text", _STRINGS), ("document", _STRINGS)])
ROW_GROUP_CHARACTERS = 16_000_000
JOB_CHARACTERS = 250_000  # of documents that a worker is given at a time

Item = TypeVar("Item")


# --- chunks


def write_chunks(
    corpus: Corpus,
    folders: Mapping[str, str | Path],
    punkt: str | Path,
    output: str | Path,
    *,
    max_words: int,
    workers: int = 1,
) -> dict:
    """Write a corpus's `chunks.parquet` (a row for each document that has text) and, beside it, `chunks.json`.

    Args:
        corpus: One with `sources`.
        folders: Dataset -> its folder.
        punkt: Folder of Punkt's parameters.
        output: The parquet file; its JSON has the same name.
        max_words: Words in a chunk at most.
        workers: Processes. The output does not depend on it.

    Returns:
        The counts: documents, empty (without text), chunks, words, and documents by their number of chunks and
        chunks by their number of words, for each source and in all.

    Raises:
        CorpusError: A file that cannot be read, or a source without text.
    """
    counts = {source.dataset: _no_counts() for source in corpus.sources}

    def chunked() -> Iterator[tuple[str, str, list[str]]]:
        for source in corpus.sources:
            name, folder = source.dataset, folders[source.dataset]
            files = [path for _, path in find_files(Path(folder), source.mixed)]
            size = sum(path.stat().st_size for path in files)
            with progress(desc=f"reading {name}", total=size, unit="B", unit_scale=True) as bar:
                read = documents(source, folder, bar.update)
                jobs = _by_size(read, lambda document: len(document[1]), JOB_CHARACTERS)
                for found, count in _chunk_in_order(jobs, punkt, max_words, workers):
                    counts[name] = _add(counts[name], count)
                    bar.set_postfix(words=f"{counts[name]['words']:,}", refresh=False)
                    yield from ((document, name, chunks) for document, chunks in found)
            if not counts[name]["documents"]:
                raise CorpusError(
                    f"{folder}: no text: column {source.text!r} is empty in all {counts[name]['empty']} documents"
                )

    write_table(output, CHUNKS, chunked(), lambda row: sum(map(len, row[2])))
    total = functools.reduce(_add, counts.values())
    return write_counts(output, {"max_words": max_words, **total, "sources": counts})


def _no_counts() -> dict:
    numbers = dict.fromkeys(("documents", "empty", "chunks", "words"), 0)
    return {**numbers, "chunks_of_document": Counter(), "words_of_chunk": Counter()}


def _add(counts: dict, others: dict) -> dict:
    return {key: value + others[key] for key, value in counts.items()}


Job = list[tuple[str, str]]  # (id, text) of some documents
Chunked = tuple[list[tuple[str, list[str]]], dict]  # (id, chunks) of those with text, and their counts


def _chunk_in_order(jobs: Iterable[Job], punkt: str | Path, max_words: int, workers: int) -> Iterator[Chunked]:
    """Every job done, in their order, with a few of them in memory for each worker."""
    if workers == 1:
        _start_worker(punkt, max_words)
        yield from map(_chunk_job, jobs)
        return
    # forked: a spawned process would run the script that called this a second time
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, _start_worker, (punkt, max_words)) as pool:
        pending: deque[Future[Chunked]] = deque()
        for job in jobs:
            pending.append(pool.submit(_chunk_job, job))
            if len(pending) > 4 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


_settings: tuple[Callable[[str], list[str]], int]  # of this process: the sentence splitter, words in a chunk at most


def _start_worker(punkt: str | Path, max_words: int) -> None:
    global _settings
    _settings = sentence_splitter(punkt), max_words


def _chunk_job(job: Job) -> Chunked:
    found, counts = [], _no_counts()
    for name, text in job:
        chunks = chunk(text, *_settings)
        if not chunks:
            counts["empty"] += 1
            continue
        words = [len(one.split()) for one in chunks]
        counts["documents"] += 1
        counts["chunks"] += len(chunks)
        counts["words"] += sum(words)
        counts["chunks_of_document"][len(chunks)] += 1
        counts["words_of_chunk"].update(words)
        found.append((name, chunks))
    return found, counts


# --- batches

Batch = tuple[str, list[str], list[str]]  # source, B chunks, the ids of their documents


@dataclass(frozen=True)
class _Part:
    """One origin of batches: how many it holds, how many of them are wanted (None: all), and all of them in order."""

    name: str
    available: int
    wanted: int | None
    batches: Callable[[], Iterator[Batch]]


def write_batches(
    corpus: Corpus, inputs: Sequence[str | Path], output: str | Path, *, batch_size: int, seed: int
) -> dict:
    """Write a corpus's `batches.parquet` (a row for each batch of B chunks) and, beside it, `batches.json`.

    Documents with at least `min_chunks` chunks are taken in groups of `group_size` and their chunks interleaved;
    consecutive B chunks form a batch, which never holds chunks of two sources. Where fewer batches are wanted than
    exist they are drawn by the seed, or are the first ones (`take`); either way they keep the corpus's order.

    Args:
        corpus: With `sources` or `mix`, or `ready`.
        inputs: For `sources` the corpus's chunks.parquet; for `mix` the batches.parquet of each corpus in its order, of
            the same B; for `ready` the dataset's folder, whose rows are ``["chunk", ..]`` or ``{"src": ..,
            "text": [..]}`` with a multiple of B chunks (as trumancai/revela_training_corpus, which has 16).
        output: The parquet file; its JSON has the same name.
        batch_size: B.
        seed: Of the draw.

    Returns:
        The counts: batches, chunks, words, documents, chunks by their number of words, batches by their number of
        documents and by their source, and how many batches each part of the corpus holds and gave. What concerns
        documents is null for released batches, which do not name theirs.

    Raises:
        CorpusError: More batches are wanted than exist, or a released row has another number of chunks.
    """
    batches, counts = chosen_batches(corpus, inputs, batch_size, seed)
    write_table(output, BATCHES, batches, lambda batch: sum(map(len, batch[1])))
    return write_counts(output, counts())


def chosen_batches(
    corpus: Corpus, inputs: Sequence[str | Path], batch_size: int, seed: int
) -> tuple[Iterator[Batch], Callable[[], dict]]:
    """The batches of a corpus, and what gives their counts once all of them have been taken.

    Raises CorpusError where there are too few.
    """
    if corpus.ready:
        parts = [_released(corpus.ready, Path(inputs[0]), batch_size)]
    elif corpus.mix:
        parts = [_mixed(name, corpus.mix[name], Path(path)) for name, path in zip(corpus.mix, inputs, strict=True)]
    else:
        parts = _interleaved(corpus, Path(inputs[0]), batch_size)
    chosen = _choose(parts, corpus, batch_size, seed)
    counts = {"batches": 0, "chunks": 0, "words": 0}
    counts |= {"words_of_chunk": Counter(), "documents_of_batch": Counter(), "sources": Counter()}
    documents = array("Q")  # hashes of the ids in each batch: ids themselves would take gigabytes

    def batches() -> Iterator[Batch]:
        with progress(desc=f"batches of {batch_size}", total=sum(map(len, chosen))) as bar:
            for part, indices in zip(parts, chosen, strict=True):
                for batch in _pick(part.batches(), indices):
                    src, text, ids = batch
                    words, distinct = [len(chunk.split()) for chunk in text], set(ids)
                    counts["batches"] += 1
                    counts["chunks"] += len(text)
                    counts["words"] += sum(words)
                    counts["words_of_chunk"].update(words)
                    counts["documents_of_batch"][len(distinct)] += 1
                    counts["sources"][src] += 1
                    documents.extend(map(_hash, distinct))
                    bar.update()
                    yield batch

    def result() -> dict:
        known = not corpus.ready
        settings = {"batch_size": batch_size, "group_size": corpus.group_size if known else None}
        given = {part.name: {"available": part.available, "taken": len(some)} for part, some in zip(parts, chosen)}
        number = len(np.unique(np.frombuffer(documents, np.uint64))) if documents else 0
        found = {**counts, "documents": number, "parts": given}
        if not known:
            found |= {"documents": None, "documents_of_batch": None}
        return {**settings, "take": corpus.take, "seed": seed, **found}

    return batches(), result


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


def _choose(parts: list[_Part], corpus: Corpus, batch_size: int, seed: int) -> list[np.ndarray]:
    """The sorted indices of the batches that are taken of each part."""
    wanted = [part.wanted for part in parts]
    for index, source in enumerate([] if corpus.ready else corpus.sources):
        if source.batches == "rest":
            others = sum(p.available if w is None else w for i, (p, w) in enumerate(zip(parts, wanted)) if i != index)
            if others > corpus.batches:
                raise CorpusError(
                    f"{corpus.batches:,} batches of {batch_size} are wanted, but the sources beside "
                    f"{source.dataset} alone give {others:,}"
                )
            wanted[index] = corpus.batches - others
    chosen = []
    for index, (part, number) in enumerate(zip(parts, wanted)):
        rng = np.random.default_rng([seed, index])
        chosen.append(_draw(part.available, number, corpus.take, rng, f"{part.name}: batches of {batch_size}"))
    ends = np.cumsum([len(indices) for indices in chosen])
    if not ends[-1]:
        raise CorpusError(f"{', '.join(part.name for part in parts)}: too little text for one batch of {batch_size}")
    rng = np.random.default_rng([seed, len(parts)])
    overall = _draw(int(ends[-1]), corpus.batches, corpus.take, rng, f"batches of {batch_size} in all")
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
    """The items at sorted indices; what follows the last is not read."""
    wanted = iter(indices.tolist())
    following = next(wanted, None)
    for index, item in enumerate(items):
        if following is None:
            return
        if index == following:
            yield item
            following = next(wanted, None)


def _interleaved(corpus: Corpus, path: Path, batch_size: int) -> list[_Part]:
    """The sources of a corpus, from its chunks.parquet."""
    chunks: Counter[str] = Counter()
    row_groups: defaultdict[str, list[int]] = defaultdict(list)
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=["src", "chunks"])
            lengths = pc.list_value_length(table["chunks"])
            for src in pc.unique(table["src"]).to_pylist():
                of_source = pc.filter(lengths, pc.equal(table["src"], src))
                chunks[src] += pc.sum(pc.filter(of_source, pc.greater_equal(of_source, corpus.min_chunks))).as_py() or 0
                row_groups[src].append(number)

    def batches_of(dataset: str) -> Iterator[Batch]:
        documents = (
            [(chunk, row["document"]) for chunk in row["chunks"]]
            for row in read_table(path, row_groups[dataset])
            if row["src"] == dataset and len(row["chunks"]) >= corpus.min_chunks
        )
        for batch in batching.batches(batching.interleave(documents, corpus.group_size), batch_size):
            yield dataset, [chunk for chunk, _ in batch], [document for _, document in batch]

    return [
        _Part(
            source.dataset,
            chunks[source.dataset] // batch_size,
            None if source.batches == "rest" else source.batches,
            functools.partial(batches_of, source.dataset),
        )
        for source in corpus.sources
    ]


def _mixed(name: str, wanted: int, path: Path) -> _Part:
    def batches() -> Iterator[Batch]:
        for row in read_table(path):
            yield row["src"], row["text"], row["document"]

    return _Part(name, pq.read_metadata(path).num_rows, wanted, batches)


def _released(dataset: str, folder: Path, batch_size: int) -> _Part:
    """Ready batches, cut into batches of B. Their documents are unknown, so each chunk has an id of its own."""

    def batches() -> Iterator[Batch]:
        for kind, path in find_files(folder):
            if kind not in ("jsonl", "json"):
                raise CorpusError(f"{folder}: released batches are JSON lines, found {kind} files")
            name = path.relative_to(folder).as_posix()
            for number, row in enumerate(json_values(path, lines=kind == "jsonl")):
                src, text = (row.get("src"), row.get("text")) if isinstance(row, dict) else (dataset, row)
                if not isinstance(src, str) or not isinstance(text, list) or not all(type(t) is str for t in text):
                    raise CorpusError(f'{path}: row {number} is neither ["chunk", ..] nor {{"src": .., "text": [..]}}')
                if not text or len(text) % batch_size:
                    raise CorpusError(f"{path}: row {number} has {len(text)} chunks, not a multiple of {batch_size}")
                ids = [f"{dataset}/{name}:{number}:{place}" for place in range(len(text))]
                for start in range(0, len(text), batch_size):
                    yield src, text[start : start + batch_size], ids[start : start + batch_size]

    return _Part(dataset, sum(1 for _ in batches()), None, batches)


def progress(**options: Any) -> tqdm:
    """A bar: on a terminal it moves, in a job's log it is written once a minute."""
    return tqdm(**options, mininterval=0.1 if sys.stderr.isatty() else 60.0)


# --- tables on disk


def write_table(path: str | Path, schema: pa.Schema, rows: Iterable[tuple], size: Callable[[tuple], int]) -> None:
    """Write rows to a parquet file, atomically; a row group ends where its rows' sizes reach about 16 million."""
    with atomic_write(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for group in _by_size(rows, size, ROW_GROUP_CHARACTERS):
            columns = [pa.array(column, field.type) for column, field in zip(zip(*group, strict=True), schema)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=len(group))


def write_counts(table: str | Path, counts: dict) -> dict:
    """Write the counts of a table to the JSON file of its name, atomically, and return them as JSON has them."""
    text = json.dumps(_plain(counts), indent=1)
    with atomic_write(Path(table).with_suffix(".json")) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return json.loads(text)


def _plain(value: Any) -> Any:
    """Counters in the order of their keys, which JSON makes strings."""
    if isinstance(value, Counter):
        value = dict(sorted(value.items()))
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def read_table(path: Path, row_groups: list[int] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, or of some of its row groups, a few hundred in memory at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256, row_groups=row_groups):
            yield from batch.to_pylist()


def _by_size(items: Iterable[Item], size: Callable[[Item], int], limit: int) -> Iterator[list[Item]]:
    """Consecutive items in lists that end where their sizes reach the limit."""
    group, total = [], 0
    for item in items:
        group.append(item)
        total += size(item) + 1  # so that items of no size end too
        if total >= limit:
            yield group
            group, total = [], 0
    if group:
        yield group
