"""Text that is to be encoded or searched."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from revela.errors import RevelaError
from revela.study.settings import Chunking, TextSource
from revela.text.chunking import chunk, sentence_splitter
from revela.text.documents import CorpusError, documents, is_table
from revela.text.parquet import read_table
from revela.text.resources import build_punkt, matching


class PassageError(RevelaError):
    """A file or a folder without text that could be read. The message is one line."""


def read_passages(place: str | Path, column: str = "text") -> list[tuple[str, str]]:
    """(id, text) of what a file or a folder holds.

    A folder's files are those that training would read. They are cut into chunks as for training, of at most 120 words,
    at sentences that Punkt learns from them. A single file is taken piece by piece: a chunk of a corpus's
    `chunks.parquet`, the `column` of a row of any other table, or a line of any other file. Blank pieces are left out.

    Raises PassageError, CorpusError or ResourceError where there is no such place, or no text in it.
    """
    place = Path(place)
    if place.is_dir():
        found = _chunks(place, column)
    elif not place.is_file():
        raise PassageError(f"{place}: no such file or folder")
    elif place.suffix == ".parquet" and _has_chunks(place):
        found = [(f"{row['document']}#{n}", text) for row in read_table(place) for n, text in enumerate(row["chunks"])]
    elif is_table(place):
        found = [(name.partition("/")[2], text) for name, text in _documents(place.parent, [place.name], column)]
    else:
        try:
            lines = place.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise PassageError(f"{place}: not UTF-8 text ({error.reason} at byte {error.start})") from None
        found = [(f"{place.name}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise PassageError(f"{place}: holds no text")
    return found


def _has_chunks(path: Path) -> bool:
    try:
        return "chunks" in pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise PassageError(f"{path}: not a parquet file that can be read ({str(error).splitlines()[0]})") from None


def _chunks(folder: Path, column: str) -> list[tuple[str, str]]:
    found = _documents(folder, matching(str(folder)).names, column)
    if not found:
        return []
    with tempfile.TemporaryDirectory() as scratch:
        build_punkt(Path(scratch, "punkt"), (text for _, text in found))
        split = sentence_splitter(Path(scratch, "punkt"))
    words = Chunking().max_words
    return [(f"{name}#{n}", piece) for name, text in found for n, piece in enumerate(chunk(text, split, words))]


def _documents(folder: Path, names: Iterable[str], column: str) -> list[tuple[str, str]]:
    """(id, text) of the documents in some files of a folder, which are read where they are."""
    with tempfile.TemporaryDirectory() as scratch:  # a dataset of these files alone, which is what `documents` reads
        for name in names:
            link = Path(scratch, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((folder / name).resolve())
        source = TextSource(dataset=folder.resolve().name, text=column, mixed=True)
        try:
            return [(name, text) for name, text in documents(source, scratch) if text]
        except CorpusError as error:
            raise CorpusError(str(error).replace(scratch, str(folder))) from None
