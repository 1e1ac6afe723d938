"""Text that is to be encoded or searched."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from revela.errors import RevelaError
from revela.study.corpora import TextSource
from revela.study.settings import Chunking
from revela.text.chunking import chunk, sentence_splitter
from revela.text.documents import CorpusError, documents, is_table, kind_of
from revela.text.parquet import read_table
from revela.text.resources import build_punkt, matching


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


def read_passages(place: str | Path, column: str = "text") -> list[tuple[str, str]]:
    """(id, text) of what a file or a folder holds, as `find_passages` finds it. Raises the same errors."""
    return [(one.id, one.text) for one in find_passages(place, column)]


def find_passages(place: str | Path, column: str = "text") -> list[Passage]:
    """What a file or a folder holds.

    A folder's files are those that training would read. They are cut into chunks as for training, of at most 120 words,
    at sentences that Punkt learns from them. A single file is taken piece by piece: a chunk of a corpus's
    `chunks.parquet`, whose files are not known, the `column` of a row of any other table, or a line of any other file.
    Blank pieces are left out.

    Raises PassageError, CorpusError or ResourceError where there is no such place, or no text in it.
    """
    place = Path(place)
    if place.is_dir():
        found = list(_chunks(place, column))
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
            raise PassageError(f"{place}: not UTF-8 text ({error.reason} at byte {error.start})") from None
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


def _chunks(folder: Path, column: str) -> Iterator[Passage]:
    read = read_documents(folder, matching(str(folder)).names, column, folder.resolve().name)
    found = [(name, text) for name, text in read if text]
    if not found:
        return
    with tempfile.TemporaryDirectory() as scratch:
        build_punkt(Path(scratch, "punkt"), (text for _, text in found))
        split = sentence_splitter(Path(scratch, "punkt"))
    for name, text in found:
        path, line, before, end = name.partition("/")[2], 1, 0, 0
        of_table = kind_of(Path(path)) is None  # file:row
        file = str(folder / (path.rpartition(":")[0] if of_table else path))
        for number, piece in enumerate(chunk(text, split, Chunking().max_words)):
            start = text.index(piece, end)  # a chunk is a part of the text as it stands
            line += text.count("\n", before, start)
            before, end = start, start + len(piece)
            yield Passage(f"{name}#{number}", piece, file, *((None, _row(name)) if of_table else (line,)))


def _row(name: str) -> int:
    """The row of a table's document, from 1."""
    return int(name.rpartition(":")[2]) + 1


def read_documents(folder: Path, names: Iterable[str], column: str, dataset: str) -> Iterator[tuple[str, str]]:
    """(id, text) of the documents in some files of a folder, which are read where they are, as those of a dataset.

    Raises CorpusError for a file that cannot be read.
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
