"""Text that is to be encoded or searched."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from revela.errors import RevelaError
from revela.study.corpora import TextSource
from revela.study.settings import Chunking
from revela.text import by_tokens
from revela.text.chunking import chunk, sentence_splitter
from revela.text.documents import CorpusError, documents, is_table, kind_of
from revela.text.parquet import read_table
from revela.text.resources import Matched, build_punkt, matching

if TYPE_CHECKING:
    from revela.retriever import Retriever

FILES, CHARACTERS = 100, 10_000  # that are looked at to tell how a text is cut: of so many files, so much of each


class PassageError(RevelaError):
    """A file or a folder without text that could be read. The message is one line."""


@dataclass(frozen=True)
class Passage:
    """A text with its id, and where it begins: a line of a file, or a row of a table, both counted from 1."""

    id: str
    text: str
    file: str | None = None
    line: int | None = None
    row: int | None = None

    @property
    def place(self) -> str:
        """Where it begins, as editors and terminals take it, or its id where no file is known."""
        if self.file is None:
            return self.id
        return f"{self.file}, row {self.row}" if self.row else f"{self.file}:{self.line}"


def read_passages(
    place: str | Path, column: str = "text", *, retriever: Retriever | None = None
) -> list[tuple[str, str]]:
    """(id, text) of what a file or a folder holds, as `find_passages` finds it. Raises the same errors."""
    return [(one.id, one.text) for one in find_passages(place, column, retriever=retriever)]


def find_passages(place: str | Path, column: str = "text", *, retriever: Retriever | None = None) -> list[Passage]:
    """What a file or a folder holds.

    A folder's files are those that training would read. They are cut into chunks as for training, of at most 120 words,
    at sentences that Punkt learns from them; or, where no space stands between words, of as many tokens as `retriever`
    reads. A single file is taken piece by piece: a chunk of a corpus's
    `chunks.parquet`, whose files are not known, the `column` of a row of any other table, or a line of any other file.
    Blank pieces are left out.

    Raises PassageError, CorpusError or ResourceError where there is no such place, or no text in it.
    """
    place = Path(place)
    if place.is_dir():
        found = list(_chunks(place, column, retriever))
    elif not place.is_file():
        raise PassageError(f"{place}: no such file or folder")
    elif place.suffix == ".parquet" and _has_chunks(place):
        rows = read_table(place)
        found = [Passage(f"{row['document']}#{n}", text) for row in rows for n, text in enumerate(row["chunks"])]
    elif is_table(place):
        read = read_documents(place.parent, [place.name], column, place.parent.resolve().name)
        found = [Passage(name.partition("/")[2], text, str(place), row=_row(name)) for name, text in read if text]
    else:
        try:
            lines = place.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            fault = f"not UTF-8 text ({error.reason} at byte {error.start})"
            raise PassageError(f"{place}: {fault}; save it as UTF-8") from None
        numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        found = [Passage(f"{place.name}:{number}", line, str(place), number) for number, line in numbered]
    if not found:
        raise PassageError(f"{place}: holds no text")
    return found


def _has_chunks(path: Path) -> bool:
    try:
        return "chunks" in pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise PassageError(f"{path}: not a parquet file that can be read ({str(error).splitlines()[0]})") from None


def _chunks(folder: Path, column: str, retriever: Retriever | None) -> Iterator[Passage]:
    read = read_documents(folder, matching(str(folder)).names, column, folder.resolve().name)
    found = [(name, text) for name, text in read if text]
    if not found:
        return
    cut = _cutter([text for _, text in found], retriever)
    for name, text in found:
        path, line, before, end = name.partition("/")[2], 1, 0, 0
        of_table = kind_of(Path(path)) is None  # file:row
        file = str(folder / (path.rpartition(":")[0] if of_table else path))
        for number, piece in enumerate(cut(text)):
            start = text.index(piece, end)  # a chunk is a part of the text as it stands
            line += text.count("\n", before, start)
            before, end = start, start + len(piece)
            yield Passage(f"{name}#{number}", piece, file, *((None, _row(name)) if of_table else (line,)))


def _cutter(texts: list[str], retriever: Retriever | None) -> Callable[[str], list[str]]:
    """A function that cuts these texts: by words, or by the retriever's tokens where words are no measure."""
    if retriever and retriever.tokenizer.is_fast and by_tokens.is_unspaced(texts):
        tokenizer = retriever.tokenizer
        most = by_tokens.room(retriever.max_length, retriever.query_prefix, retriever.passage_prefix)
        return lambda text: by_tokens.chunk(text, by_tokens.starts(tokenizer, text), most)
    with tempfile.TemporaryDirectory() as scratch:
        build_punkt(Path(scratch, "punkt"), texts)
        split = sentence_splitter(Path(scratch, "punkt"))
    return lambda text: chunk(text, split, Chunking().max_words)


def _row(name: str) -> int:
    """The row of a table's document, from 1."""
    return int(name.rpartition(":")[2]) + 1


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
