"""Raw datasets: a folder of files -> rows -> documents.

What a dataset's folder may hold, found by suffix in all its subfolders (hidden files apart, in the order of their
names), the first kind that is there being the one that is read:

- Parquet: a row is a row. As in HuggingFaceFW/fineweb-edu (`sample/10BT/*.parquet`, column `text`).
- JSON lines, `.jsonl` or `.jsonl.gz`: a line is a row. As in Tevatron/wikipedia-nq-corpus (`corpus.jsonl.gz`:
  docid, title, text; passages of 100 words, those of one article one after another under one title) and
  code-rag-bench/stackoverflow-posts (`stackoverflow_0000.jsonl` .. `_0009.jsonl`, 6.4 GB each: text).
- JSON, `.json` or `.json.gz`: one list of rows, or one row a line. As in code-rag-bench/online-tutorials
  (`online_tutorials.json`, 1 GB: title, text) and code-rag-bench/library-documentation (`library_docs.json`: doc_id,
  doc_content).
- CSV and TSV, with the names of the columns in the first line.
- Text files: a file is a row with the one column `text`.

So a README, a licence or a loading script beside tables is not taken for text. A source that is `mixed` reads all of
its files instead: tables by their suffix, and every other file as UTF-8 text.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from revela.errors import RevelaError
from revela.provenance import MANIFEST
from revela.study.study import Source

PROSE = ".txt .text .md .markdown .rst .adoc .org .tex .html .htm".split()  # noqa: SIM905 - as the docs list them
# Source code by its language; notebooks, which are JSON, styles and settings are not text to learn from.
CODE = """
.py .pyi .smk .js .mjs .cjs .jsx .ts .tsx .vue .svelte .java .kt .kts .scala .groovy .go .rs .rb .php .pl .pm .lua .r
.jl .c .h .cc .cpp .cxx .hh .hpp .hxx .cu .cuh .cs .fs .vb .swift .m .mm .dart .hs .ml .mli .ex .exs .erl .clj .lisp .el
.f .f90 .sql .sh .bash .zsh .ps1 .proto
""".split()  # noqa: SIM905
TEXT_SUFFIXES = (*PROSE, *CODE)
KINDS = {
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".jsonl.gz"),
    "json": (".json", ".json.gz"),
    "csv": (".csv", ".tsv"),
    "text": TEXT_SUFFIXES,
}
NOT_DATA = {MANIFEST, "dataset_info.json", "dataset_infos.json", "dataset_dict.json"}
BLOCK = 1 << 20

_SURROGATE = re.compile("[\ud800-\udfff]")


class CorpusError(RevelaError):
    """Text that is missing or unusable, or more of it wanted than there is. The message is one line."""


def rows(
    folder: str | Path, columns: list[str], *, mixed: bool = False, on_read: Callable[[int], Any] = lambda size: None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of every row in a dataset's folder, in order; `where` is file:number, or the file for a text file.

    A row holds the columns asked for. With `mixed` files of every kind are read, and a text file's one column has the
    name of the first column asked for. Raises CorpusError where the folder holds no rows at all, where a column is
    missing, or where a file cannot be read.
    """
    folder = Path(folder)
    for kind, path in find_files(folder, mixed):
        name = path.relative_to(folder).as_posix()
        if kind == "text":
            column = columns[0] if mixed else "text"
            _require(columns, [column], path)
            yield name, {column: _read_text(path)}
            on_read(path.stat().st_size)
        elif kind == "parquet":
            for number, row in enumerate(_parquet_rows(path, columns, on_read)):
                yield f"{name}:{number}", row
        else:
            values = _csv_rows(path, on_read) if kind == "csv" else json_values(path, on_read, lines=kind == "jsonl")
            for number, row in enumerate(values):
                if not isinstance(row, dict):
                    raise CorpusError(f"{path}: row {number} is a {type(row).__name__}, not an object with columns")
                _require(columns, list(row), path)
                yield f"{name}:{number}", {column: row[column] for column in columns}


def texts(folder: str | Path, column: str = "text") -> Iterator[str]:
    """The text of every row of a dataset's folder that has any; CorpusError for a file that cannot be read."""
    for where, row in rows(folder, [column]):
        if text := _string(row[column], column, Path(folder) / where):
            yield text


def documents(
    source: Source, folder: str | Path, on_read: Callable[[int], Any] = lambda size: None
) -> Iterator[tuple[str, str]]:
    """(id, text) of every document of a source, in order; the text of one without any is ''.

    The id is dataset/file:number of its (first) row. With `join_by`, neighbouring rows with the same value in that
    column form one document, their texts separated by a space: passages back into articles. `on_read` is told of
    the bytes of files as they are read. Raises CorpusError, which names the file and the row.
    """
    columns = [source.text] if source.join_by is None else [source.text, source.join_by]
    found = (
        (f"{source.dataset}/{where}", _string(row[source.text], source.text, Path(folder) / where), row)
        for where, row in rows(folder, columns, mixed=source.mixed, on_read=on_read)
    )
    if source.join_by is None:
        for name, text, _ in found:
            yield name, text
        return
    for _, group in itertools.groupby(found, lambda item: item[2][source.join_by] or item[0]):
        group = list(group)
        yield group[0][0], " ".join(text for _, text, _ in group if text)


def find_files(folder: Path, mixed: bool = False) -> list[tuple[str, Path]]:
    """(kind, file) of the files that are read: those of one kind, or all. CorpusError where there are none."""
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder")
    visible = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in NOT_DATA
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    found = [(kind_of(path) or ("text" if mixed else None), path) for path in visible]
    for kinds in [set(KINDS)] if mixed else [{kind} for kind in KINDS]:
        if read := [(kind, path) for kind, path in found if kind in kinds]:
            return read
    valid = ", ".join(suffix for suffixes in KINDS.values() for suffix in suffixes)
    raise CorpusError(f"{folder}: no text in this folder ({len(visible)} files, none of {valid})")


def kind_of(path: Path) -> str | None:
    """A key of `KINDS` by a file's suffix in any case; None where text or rows are not expected."""
    return next((kind for kind, suffixes in KINDS.items() if path.name.lower().endswith(suffixes)), None)


def is_table(path: Path) -> bool:
    """Whether a file holds rows with columns, by its suffix."""
    return kind_of(path) not in (None, "text")


def _parquet_rows(path: Path, columns: list[str], on_read: Callable[[int], Any]) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            _require(columns, file.schema_arrow.names, path)
            bytes_per_row = path.stat().st_size / max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(batch_size=512, columns=columns):
                yield from batch.to_pylist()
                on_read(len(batch) * bytes_per_row)
    except pa.ArrowInvalid as error:
        raise CorpusError(f"{path}: not a parquet file that can be read ({str(error).splitlines()[0]})") from None


def json_values(path: Path, on_read: Callable[[int], Any] = lambda size: None, *, lines: bool) -> Iterator[Any]:
    """The values of a file of JSON lines, or the items of one JSON list (a block of the file in memory at a time).

    `on_read` is told of bytes as they are read. Raises CorpusError for what is not JSON, with the number of the row.
    """
    read = 0
    try:
        if not lines:
            with _open(path) as file:
                lines = _is_lines(file.read(BLOCK))
        with _open(path, on_read) as file:
            for value in map(json.loads, filter(str.strip, file)) if lines else _json_list(file):
                yield value
                read += 1
    except (json.JSONDecodeError, UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(f"{path}: row {read} is not JSON that can be read ({error})") from None


def _csv_rows(path: Path, on_read: Callable[[int], Any]) -> Iterator[dict[str, str | None]]:
    csv.field_size_limit(sys.maxsize)
    read = 0
    try:
        with _open(path, on_read) as file:
            for row in csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True):
                yield row
                read += 1
    except (csv.Error, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: row {read} is not CSV that can be read ({error})") from None


def _is_lines(head: str) -> bool:
    """Whether a `.json` file that begins so holds a value in each line, and not one list over one or many lines."""
    first, newline, rest = head.lstrip().partition("\n")
    if newline:
        try:
            json.loads(first)
        except json.JSONDecodeError:
            return False
    return first.startswith("{") or bool(rest.strip())


def _json_list(file: TextIO) -> Iterator[Any]:
    decoder, space = json.JSONDecoder(), re.compile(r"[\s,]*")
    buffer = file.read(BLOCK).lstrip()
    if not buffer.startswith("["):
        raise json.JSONDecodeError("neither one list nor a value in each line", buffer[:20], 0)
    position = 1
    while True:
        position = space.match(buffer, position).end()
        if buffer.startswith("]", position):
            return
        try:
            value, position = decoder.raw_decode(buffer, position)
        except json.JSONDecodeError:
            more = file.read(max(BLOCK, len(buffer)))  # the item goes on in the next block
            if not more:
                raise
            buffer, position = buffer[position:] + more, 0
            continue
        yield value


class _Counted(io.FileIO):
    """A file that tells how many bytes were read."""

    on_read: Callable[[int], Any]

    def readinto(self, buffer) -> int:
        size = super().readinto(buffer)
        self.on_read(size)
        return size


def _open(path: Path, on_read: Callable[[int], Any] = lambda size: None) -> TextIO:
    raw = _Counted(path)
    raw.on_read = on_read
    file = io.BufferedReader(raw, BLOCK)
    if path.suffix == ".gz":
        file = gzip.GzipFile(fileobj=file)
    return io.TextIOWrapper(file, encoding="utf-8-sig")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def _require(columns: list[str], present: list[str], path: Path) -> None:
    if missing := [column for column in columns if column not in present]:
        raise CorpusError(f"{path}: no column {missing[0]!r}; it has {', '.join(map(repr, present))}")


def _string(value: Any, column: str, where: Path) -> str:
    """The value if it is text, with a missing or blank one as ''."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CorpusError(f"{where}: column {column!r} holds a {type(value).__name__}, not text")
    if not value.isascii() and _SURROGATE.search(value):  # half a character, which JSON can hold and files cannot
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value if not value.isspace() else ""
