"""Rows of tables: JSON lines, JSON, CSV, TSV and parquet, all but parquet also gzipped (`.gz`).

Corpora and benchmarks are read with it. Everything streams: memory holds a block of the file and a few hundred rows.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from revela.text import CorpusError

# Every table that is read anywhere: format -> the suffixes of its files.
TABLES = {
    "jsonl": (".jsonl", ".jsonl.gz"),
    "json": (".json", ".json.gz"),
    "csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz"),
    "parquet": (".parquet",),
}
BLOCK = 1 << 20
PARQUET_ROWS = 512  # in memory at a time; a row may be a long document

Row = dict[str, Any]
OnRead = Callable[[float], Any]  # is told how many bytes of the file have been read since the last call


class RowError(CorpusError):
    """A table that cannot be read. The message is one line: the file, the line or row where there is one, the fault."""


def unheard(size: float) -> None:
    """The `on_read` of those who do not ask."""


def read_rows(
    path: str | Path, columns: Sequence[str] | None = None, *, strict: bool = True, on_read: OnRead = unheard
) -> Iterator[tuple[int, Row]]:
    """(number, row) of every row of a table, in order. The format follows from the suffix, in any case.

    The number counts from 1. It is the line of the file, or the last line of a row of several lines; in parquet and in
    a JSON list, which have no lines of their own, it is the row's place. A row of CSV or TSV that is too short lacks its
    last columns. Empty lines are passed over.

    Args:
        path: A file with a suffix of `TABLES`.
        columns: The columns that the caller needs; None: all. A parquet file is read in these alone if it has them
            all (a - in a name counts as _), and else in all of them, so that an error can name what is there. Rows of
            other formats are always whole. Whether a row has a column is for the caller to check.
        strict: Whether a quotation mark in the wrong place in CSV or TSV is an error. Otherwise the csv module makes
            the best of it.
        on_read: Is told how many bytes have been read.

    Raises:
        RowError: The file cannot be read, or a row is not a row.
    """
    path = Path(path)
    kind = _format(path)
    if kind == "parquet":
        yield from _parquet_rows(path, columns, on_read)
    elif kind == "csv":
        yield from _csv_rows(path, strict, on_read)
    else:
        for number, value in json_values(path, on_read=on_read):
            if not isinstance(value, dict):
                raise RowError(f"{path}:{number}: not a JSON object")
            yield number, value


def json_values(path: str | Path, *, on_read: OnRead = unheard) -> Iterator[tuple[int, Any]]:
    """(number, value) of every value in a .jsonl or .json file, of any type; numbered as `read_rows` does.

    A .json file holds one list, whose items are the values, or a value in each line. Raises RowError.
    """
    path = Path(path)
    if _format(path) == "jsonl" or _has_values_in_lines(path):
        yield from _json_lines(path, on_read)
    else:
        yield from _json_list(path, on_read)


def _format(path: Path) -> str:
    """A key of `TABLES`, for example csv of `rows.CSV.gz`."""
    for kind, suffixes in TABLES.items():
        if path.name.lower().endswith(suffixes):
            return kind
    raise RowError(f"{path}: not a table by its suffix; valid: {', '.join(itertools.chain(*TABLES.values()))}")


# --- JSON


def _json_lines(path: Path, on_read: OnRead) -> Iterator[tuple[int, Any]]:
    with _text(path, on_read) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    value = json.loads(line)
                except json.JSONDecodeError as error:
                    raise RowError(f"{path}:{number}: not JSON ({error.msg} at column {error.colno})") from None
                yield number, value


def _json_list(path: Path, on_read: OnRead) -> Iterator[tuple[int, Any]]:
    """The items of one list that may be larger than memory: a block of the file is parsed at a time."""
    decoder, separator = json.JSONDecoder(), re.compile(r"[\s,]*")
    with _text(path, on_read) as file:
        buffer = file.read(BLOCK).lstrip()
        if not buffer.startswith("["):
            raise RowError(f"{path}:1: not JSON (neither one list nor a value in each line)")
        position, number = 1, 1
        while True:
            position = separator.match(buffer, position).end()
            if buffer.startswith("]", position):
                if (buffer[position + 1 :] + file.read(BLOCK)).strip():
                    raise RowError(f"{path}:{number}: not JSON (something stands behind the list)")
                return
            try:
                value, position = decoder.raw_decode(buffer, position)
            except json.JSONDecodeError as error:
                more = file.read(max(BLOCK, len(buffer)))  # the item goes on in the next block
                if not more:
                    raise RowError(f"{path}:{number}: not JSON ({error.msg})") from None
                buffer, position = buffer[position:] + more, 0
                continue
            yield number, value
            number += 1


def _has_values_in_lines(path: Path) -> bool:
    """Whether a `.json` file holds a value in each line, and not one list over one or many lines."""
    with _text(path) as file:
        first, newline, rest = file.read(BLOCK).lstrip().partition("\n")
    if newline:
        try:
            json.loads(first)
        except json.JSONDecodeError:
            return False
    return first.startswith("{") or bool(rest.strip())


# --- CSV and TSV


def _csv_rows(path: Path, strict: bool, on_read: OnRead) -> Iterator[tuple[int, Row]]:
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]  # csv or tsv
    csv.field_size_limit(sys.maxsize)  # a cell may hold a whole document
    with _text(path, on_read) as file:
        rows = csv.reader(file, delimiter="\t" if kind == "tsv" else ",", strict=strict)
        try:
            header = next(rows, [])
            for row in rows:
                if row:
                    yield rows.line_num, dict(zip(header, row, strict=False))
        except csv.Error as error:
            raise RowError(f"{path}:{rows.line_num}: not {kind.upper()} ({error})") from None


# --- parquet


def _parquet_rows(path: Path, columns: Sequence[str] | None, on_read: OnRead) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa  # here, for it takes half a second that other formats do not need
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            bytes_per_row = path.stat().st_size / max(file.metadata.num_rows, 1)
            first = 1
            for batch in file.iter_batches(PARQUET_ROWS, columns=_selected(file.schema_arrow.names, columns)):
                yield from enumerate(batch.to_pylist(), start=first)
                first += len(batch)
                on_read(len(batch) * bytes_per_row)
    except (pa.ArrowException, OSError) as error:
        raise RowError(f"{path}: not readable as parquet ({_one_line(error)})") from None


def _selected(names: list[str], columns: Sequence[str] | None) -> list[str] | None:
    """The columns to read, among those that a parquet file has; None: all of them."""
    if columns is None:
        return None
    plain = {column.replace("-", "_") for column in columns}
    found = [name for name in names if name.replace("-", "_") in plain]
    return found if len(found) == len(plain) else None


# --- files


@contextmanager
def _text(path: Path, on_read: OnRead = unheard) -> Iterator[TextIO]:
    """A text file, gzipped or not, with or without a byte order mark; RowError where it is no text."""
    try:
        with _Counted(path) as raw:
            raw.on_read = on_read
            file = io.BufferedReader(raw, BLOCK)
            if path.suffix.lower() == ".gz":
                file = gzip.GzipFile(fileobj=file)
            yield io.TextIOWrapper(file, encoding="utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise RowError(f"{path}: not readable as text ({_one_line(error)})") from None


class _Counted(io.FileIO):
    """A file that tells how many bytes were read."""

    on_read: OnRead

    def readinto(self, buffer) -> int:
        size = super().readinto(buffer)
        self.on_read(size)
        return size


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
