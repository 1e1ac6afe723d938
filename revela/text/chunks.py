"""Documents -> chunks.parquet (section 4.1).

Everything streams: memory holds a few documents for each worker and one row group of the output. The output is the same,
byte for byte, whatever the number of workers.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from revela.lookahead import lookahead
from revela.text import CorpusError
from revela.text.chunking import chunk, sentence_splitter
from revela.text.documents import documents, find_files
from revela.text.parquet import by_size, write_counts, write_table
from revela.text.progress import Progress, silent

if TYPE_CHECKING:
    from revela.study.specification import ChunkSpec

CHUNKS = pa.schema([("document", pa.string()), ("src", pa.string()), ("chunks", pa.list_(pa.string()))])
JOB_CHARACTERS = 250_000  # of documents that a worker is given at a time


def write_chunks(
    spec: ChunkSpec,
    folders: Mapping[str, str | Path],
    punkt: str | Path,
    output: str | Path,
    *,
    workers: int = 1,
    progress: Progress = silent,
) -> dict:
    """Write a corpus's `chunks.parquet` (a row for each document that has text) and, beside it, `chunks.json`.

    Args:
        spec: The sources, and the words in a chunk at most.
        folders: Dataset -> its folder.
        punkt: Folder of Punkt's parameters.
        output: The parquet file; the JSON file has the same name.
        workers: Processes. The output does not depend on it.
        progress: Makes the progress bar of a source.

    Returns:
        The counts: documents, empty ones (without text), chunks, words, documents by their number of chunks, and chunks
        by their number of words; for each source and in all.

    Raises:
        CorpusError: A file cannot be read, or a source has no text.
    """
    counts = {source.dataset: _no_counts() for source in spec.sources}

    def chunked() -> Iterator[tuple[str, str, list[str]]]:
        for source in spec.sources:
            name, folder = source.dataset, folders[source.dataset]
            files = [path for _, path in find_files(Path(folder), source.mixed)]
            size = sum(path.stat().st_size for path in files)
            with progress(desc=f"reading {name}", total=size, unit="B", unit_scale=True) as bar:
                read = documents(source, folder, bar.update)
                jobs = by_size(read, lambda document: len(document[1]), JOB_CHARACTERS)
                for found, count in _chunk_in_order(jobs, punkt, spec.max_words, workers):
                    counts[name] = _add(counts[name], count)
                    bar.set_postfix(words=f"{counts[name]['words']:,}", refresh=False)
                    yield from ((document, name, chunks) for document, chunks in found)
            if not counts[name]["documents"]:
                raise CorpusError(
                    f"{folder}: no text: column {source.text!r} is empty in all {counts[name]['empty']} documents"
                )

    write_table(output, CHUNKS, chunked(), lambda row: sum(map(len, row[2])))
    total = functools.reduce(_add, counts.values())
    return write_counts(output, {"max_words": spec.max_words, **total, "sources": counts})


def _no_counts() -> dict:
    numbers = dict.fromkeys(("documents", "empty", "chunks", "words"), 0)
    return {**numbers, "chunks_of_document": Counter(), "words_of_chunk": Counter()}


def _add(counts: dict, others: dict) -> dict:
    return {key: value + others[key] for key, value in counts.items()}


Job = list[tuple[str, str]]  # (id, text) of some documents
Chunked = tuple[list[tuple[str, list[str]]], dict]  # (id, chunks) of those with text, and their counts


def _chunk_in_order(jobs: Iterable[Job], punkt: str | Path, max_words: int, workers: int) -> Iterator[Chunked]:
    """The result of every job, in their order, with a few jobs for each worker in memory."""
    if workers == 1:
        _start_worker(punkt, max_words)
        yield from map(_chunk_job, jobs)
        return
    # forked: a spawned process would run the script that called this a second time
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, _start_worker, (punkt, max_words)) as pool:
        yield from lookahead(_chunk_job, jobs, depth=4 * workers, executor=pool)


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
