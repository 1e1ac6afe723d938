"""Documents -> chunks.parquet (section 4.1).

Everything streams: memory holds a few documents for each worker and one row group of the output. The output is the same,
byte for byte, whatever the number of workers.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from revela.lookahead import lookahead
from revela.text import CorpusError, by_tokens
from revela.text.by_tokens import Cut, Reader
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
    punkt: str | Path | None,
    output: str | Path,
    *,
    tokenizer: str | Path | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> dict:
    """Write a corpus's `chunks.parquet` (a row for each document that has text) and, beside it, `chunks.json`.

    Args:
        spec: The sources, and the words or tokens in a chunk at most.
        folders: Dataset -> its folder.
        punkt: Folder of Punkt's parameters; None: chunks are cut by tokens.
        output: The parquet file; the JSON file has the same name.
        tokenizer: Folder of the backbone whose tokens count, if any do.
        workers: Processes. The output does not depend on it.
        progress: Makes the progress bar of a source.

    Returns:
        The counts: documents, empty ones (without text), chunks, words, documents by their number of chunks, and chunks
        by their number of words; for each source and in all. Where tokens count, also what the retriever's length cuts
        off, and the chunks that are left out as they have no token but special ones, with the first of their documents.

    Raises:
        CorpusError: A file cannot be read, or a source has no text.
    """
    cutter = _Cutter(spec, punkt, Reader(tokenizer, spec.reading) if tokenizer else None)
    counts = {source.dataset: _no_counts() for source in spec.sources}
    read_off, left_out = Cut(), _LeftOut()

    def chunked() -> Iterator[tuple[str, str, list[str]]]:
        nonlocal read_off, left_out
        for source in spec.sources:
            name, folder = source.dataset, folders[source.dataset]
            files = [path for _, path in find_files(Path(folder), source.mixed)]
            size = sum(path.stat().st_size for path in files)
            with progress(desc=f"reading {name}", total=size, unit="B", unit_scale=True) as bar:
                read = documents(source, folder, bar.update)
                jobs = by_size(read, lambda document: len(document[1]), JOB_CHARACTERS)
                for found, count, cut, without in _chunk_in_order(jobs, cutter, workers):
                    counts[name] = _add(counts[name], count)
                    read_off, left_out = read_off + cut, left_out + without
                    bar.set_postfix(words=f"{counts[name]['words']:,}", refresh=False)
                    yield from ((document, name, chunks) for document, chunks in found)
            if not counts[name]["documents"] and left_out.chunks:
                raise CorpusError(
                    f"{folder}: no text that {tokenizer} has a token for; the first document without one is "
                    f"{left_out.first}"
                )
            if not counts[name]["documents"]:
                empty = counts[name]["empty"]
                fault = f"column {source.text!r} is empty in all {empty} documents" if empty else "it has no documents"
                held_out = f" but those that are held out (hold_out: {source.hold_out})" if source.hold_out else ""
                raise CorpusError(f"{folder}: no text: {fault}{held_out}")

    write_table(output, CHUNKS, chunked(), lambda row: sum(map(len, row[2])))
    total = functools.reduce(_add, counts.values())
    how = {"max_tokens": spec.max_tokens} if spec.max_tokens else {"max_words": spec.max_words}
    if tokenizer:
        how |= {"tokens": asdict(read_off) | {"max_length": spec.reading.max_length}, "left_out": asdict(left_out)}
    return write_counts(output, {**how, **total, "sources": counts})


@dataclass(frozen=True)
class _LeftOut:
    """Chunks without a token that is no special one, and the first document that has one."""

    chunks: int = 0
    first: str | None = None

    def __add__(self, other: _LeftOut) -> _LeftOut:
        return _LeftOut(self.chunks + other.chunks, self.first or other.first)


def _no_counts() -> dict:
    numbers = dict.fromkeys(("documents", "empty", "chunks", "words"), 0)
    return {**numbers, "chunks_of_document": Counter(), "words_of_chunk": Counter()}


def _add(counts: dict, others: dict) -> dict:
    return {key: value + others[key] for key, value in counts.items()}


Job = list[tuple[str, str]]  # (id, text) of some documents
Chunked = tuple[list[tuple[str, list[str]]], dict, Cut, _LeftOut]  # (id, chunks) of those with text, and their counts


def _chunk_in_order(jobs: Iterable[Job], cutter: _Cutter, workers: int) -> Iterator[Chunked]:
    """The result of every job, in their order, with a few jobs for each worker in memory."""
    if workers == 1:
        yield from map(cutter, jobs)
        return
    # forked: a spawned process would run the script that called this a second time
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, _start_worker, (cutter,)) as pool:
        yield from lookahead(_chunk_job, jobs, depth=4 * workers, executor=pool)


_cutter: _Cutter  # of this process


def _start_worker(cutter: _Cutter) -> None:
    global _cutter
    _cutter = cutter
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a worker is a thread of the job


def _chunk_job(job: Job) -> Chunked:
    return _cutter(job)


@dataclass(frozen=True)
class _Cutter:
    """Cuts documents as a specification says, in the process that calls it."""

    spec: ChunkSpec
    punkt: str | Path | None
    reader: Reader | None

    @functools.cached_property
    def split_sentences(self) -> Callable[[str], list[str]]:
        return sentence_splitter(self.punkt)

    def chunks(self, text: str) -> list[str]:
        """The chunks of one document."""
        if self.spec.max_tokens:
            return by_tokens.chunk(text, by_tokens.starts(self.reader.tokenizer, text), self.spec.max_tokens)
        return chunk(text, self.split_sentences, self.spec.max_words)

    def __call__(self, job: Job) -> Chunked:
        """The result of a job."""
        found, counts, cut, left_out = [], _no_counts(), Cut(), _LeftOut()
        for name, text in job:
            chunks = self.chunks(text)
            if self.reader and chunks:
                kept, read = self.reader.read(chunks)
                cut += read
                if len(kept) < len(chunks):
                    left_out += _LeftOut(len(chunks) - len(kept), name)
                chunks = kept
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
        return found, counts, cut, left_out
