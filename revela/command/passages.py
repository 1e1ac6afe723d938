"""Text that is to be encoded or searched."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from revela.errors import RevelaError
from revela.study.settings import Chunking, TextSource
from revela.text import by_tokens
from revela.text.chunking import chunk, sentence_splitter
from revela.text.documents import CorpusError, documents, is_table
from revela.text.parquet import read_table
from revela.text.resources import Matched, build_punkt, matching

if TYPE_CHECKING:
    from revela.retriever import Retriever

FILES, CHARACTERS = 100, 10_000  # that are looked at to tell how a text is cut: of so many files, so much of each


class PassageError(RevelaError):
    """A file or a folder without text that could be read. The message is one line."""


def read_passages(
    place: str | Path, column: str = "text", *, retriever: Retriever | None = None
) -> list[tuple[str, str]]:
    """(id, text) of what a file or a folder holds.

    A folder's files are those that training would read. They are cut into chunks as for training, of at most 120 words,
    at sentences that Punkt learns from them; or, where no space stands between words, of as many tokens as `retriever`
    reads. A single file is taken piece by piece: a chunk of a corpus's
    `chunks.parquet`, the `column` of a row of any other table, or a line of any other file. Blank pieces are left out.

    Raises PassageError, CorpusError or ResourceError where there is no such place, or no text in it.
    """
    place = Path(place)
    if place.is_dir():
        found = _chunks(place, column, retriever)
    elif not place.is_file():
        raise PassageError(f"{place}: no such file or folder")
    elif place.suffix == ".parquet" and _has_chunks(place):
        found = [(f"{row['document']}#{n}", text) for row in read_table(place) for n, text in enumerate(row["chunks"])]
    elif is_table(place):
        read = read_documents(place.parent, [place.name], column, place.parent.resolve().name)
        found = [(name.partition("/")[2], text) for name, text in read if text]
    else:
        try:
            lines = place.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            fault = f"not UTF-8 text ({error.reason} at byte {error.start})"
            raise PassageError(f"{place}: {fault}; save it as UTF-8") from None
        found = [(f"{place.name}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise PassageError(f"{place}: holds no text")
    return found


def _has_chunks(path: Path) -> bool:
    try:
        return "chunks" in pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise PassageError(f"{path}: not a parquet file that can be read ({str(error).splitlines()[0]})") from None


def _chunks(folder: Path, column: str, retriever: Retriever | None) -> list[tuple[str, str]]:
    names = matching(str(folder)).names
    read = read_documents(folder, names, column, folder.resolve().name)
    found = [(name, text) for name, text in read if text]
    if not found:
        return []
    if retriever and retriever.tokenizer.is_fast and by_tokens.is_unspaced(text for _, text in found):
        most = by_tokens.room(retriever.max_length, retriever.query_prefix, retriever.passage_prefix)

        def cut(text: str) -> list[str]:
            return by_tokens.chunk(text, by_tokens.starts(retriever.tokenizer, text), most)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            build_punkt(Path(scratch, "punkt"), (text for _, text in found))
            split = sentence_splitter(Path(scratch, "punkt"))

        def cut(text: str) -> list[str]:
            return chunk(text, split, Chunking().max_words)

    return [(f"{name}#{n}", piece) for name, text in found for n, piece in enumerate(cut(text))]


def is_unspaced(found: Matched, column: str) -> bool:
    """Whether the text in some files is such that words are no measure (`revela.text.by_tokens`), by a sample of it.

    Raises CorpusError for a file that cannot be read, and where all files are read and hold no text.
    """
    step = max(1, len(found.names) // FILES)
    sample = []
    for name in found.names[::step]:
        left = CHARACTERS
        for _, text in read_documents(found.folder, [name], column, "sample"):
            sample.append(text[:left])
            left -= len(text)
            if left <= 0:
                break
    if step == 1 and not any(sample):
        place = found.folder / found.names[0] if len(found.names) == 1 else found.folder
        raise CorpusError(f"{place}: no text: {len(found.names)} files that are empty or blank")
    return by_tokens.is_unspaced(sample)


def cut_off(retriever: Retriever, texts: Sequence[str], kind: Literal["query", "passage"]) -> str | None:
    """A line on what the retriever does not read of some texts; None where it reads all."""
    prefix = retriever.query_prefix if kind == "query" else retriever.passage_prefix
    eos = retriever.pooling == "eos"
    lengths = by_tokens.lengths(retriever.tokenizer, [prefix + text for text in texts], eos=eos)
    lost = by_tokens.cut_off(lengths, retriever.max_length)
    if not lost.cut:
        return None
    return (
        f"{lost.cut} of {lost.texts} texts ({kind}) have more than {retriever.max_length} tokens; what is beyond is not "
        f"read: {100 * lost.share:.1f} % of all tokens"
    )


def read_documents(folder: Path, names: Iterable[str], column: str, dataset: str) -> Iterator[tuple[str, str]]:
    """(id, text) of the documents in some files of a folder, which are read where they are, as those of a dataset.

    Raises CorpusError for a file that cannot be read, or OSError.
    """
    with tempfile.TemporaryDirectory() as scratch:  # a dataset of these files alone, which is what `documents` reads
        for name in names:
            link = Path(scratch, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((folder / name).resolve())
        source = TextSource(dataset=dataset, text=column, mixed=True)
        try:
            yield from documents(source, scratch)
        except CorpusError as error:
            raise CorpusError(str(error).replace(scratch, str(folder))) from None
        except OSError as error:
            if error.filename:
                error.filename = str(error.filename).replace(scratch, str(folder))
            raise
