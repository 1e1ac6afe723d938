"""Raw datasets: a folder of files -> rows -> documents.

Files are found by suffix in all subfolders, in the order of their names; hidden ones do not count. A folder is read in
one kind of file, the first of these that it holds:

- Parquet: a row is a row. As in HuggingFaceFW/fineweb-edu (`sample/10BT/*.parquet`, column `text`).
- JSON lines, `.jsonl` or `.jsonl.gz`: a line is a row. As in Tevatron/wikipedia-nq-corpus (`corpus.jsonl.gz`:
  docid, title, text; passages of 100 words, those of one article one after another under one title) and
  code-rag-bench/stackoverflow-posts (`stackoverflow_0000.jsonl` .. `_0009.jsonl`, 6.4 GB each: text).
- JSON, `.json` or `.json.gz`: one list of rows, or one row a line. As in code-rag-bench/online-tutorials
  (`online_tutorials.json`, 1 GB: title, text) and code-rag-bench/library-documentation (`library_docs.json`: doc_id,
  doc_content).
- CSV and TSV, gzipped or not, with the names of the columns in the first line.
- Text files: a file is a row with the one column `text`.

So a README, a licence or a loading script beside tables does not become text. `datasets` is not asked for the files: it
refuses the first of these repositories for its script, and takes a folder of one's own for splits. A source that is
`mixed` reads all of its files: tables by their suffix, and every other file as UTF-8 text.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revela.text import CorpusError
from revela.text.rows import TABLES, OnRead, read_rows, unheard

if TYPE_CHECKING:
    from revela.study.corpora import TextSource

PROSE = ".txt .text .md .markdown .rst .adoc .org .tex .html .htm".split()  # noqa: SIM905 - as the docs list them
# Source code by its language; notebooks, which are JSON, styles and settings are not text to learn from.
CODE = """
.py .pyi .smk .js .mjs .cjs .jsx .ts .tsx .vue .svelte .java .kt .kts .scala .groovy .go .rs .rb .php .pl .pm .lua .r
.jl .c .h .cc .cpp .cxx .hh .hpp .hxx .cu .cuh .cs .fs .vb .swift .m .mm .dart .hs .ml .mli .ex .exs .erl .clj .lisp .el
.f .f90 .sql .sh .bash .zsh .ps1 .proto
""".split()  # noqa: SIM905
TEXT_SUFFIXES = (*PROSE, *CODE)
KINDS = {"parquet": TABLES["parquet"], **TABLES, "text": TEXT_SUFFIXES}  # in the order in which they are looked for
# The first is `provenance.MANIFEST`, spelled out so that corpora do not depend on the code of manifests.
NOT_DATA = {"manifest.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"}

_SURROGATE = re.compile("[\ud800-\udfff]")


def documents(source: TextSource, folder: str | Path, on_read: OnRead = unheard) -> Iterator[tuple[str, str]]:
    """(id, text) of every document of a source, in order. The text of a document without any is ''.

    The id is dataset/file:row, where rows count from 0; of a text file it is dataset/file. With `join_by`, neighbouring
    rows with the same value in that column form one document under the id of the first, their texts separated by a
    space: so passages become articles again. With `title`, the value of that column stands on a line above the text.
    With `hold_out`, the documents that `is_held_out` names are left out.

    Args:
        source: The dataset's name, its columns, and whether it is mixed.
        folder: The dataset's folder.
        on_read: Is told how many bytes of the files have been read.

    Raises:
        CorpusError: The folder holds no text, or a file cannot be read; names the file and the line.
    """
    for name, text in _documents(source, folder, on_read):
        if not (source.hold_out and is_held_out(name, source.hold_out)):
            yield name, text


def is_held_out(name: str, every: int) -> bool:
    """Whether a document is held out from training: every so many-th, by the SHA-256 of its name."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % every == 0


def _documents(source: TextSource, folder: str | Path, on_read: OnRead) -> Iterator[tuple[str, str]]:
    columns = list(dict.fromkeys(filter(None, (source.text, source.title, source.join_by))))
    found = (
        (f"{source.dataset}/{name}", _string(row[source.text], source.text, where), row, where)
        for name, where, row in _rows(Path(folder), columns, source.mixed, on_read)
    )
    if source.join_by is None:
        for name, text, row, where in found:
            yield name, _titled(source, row, text, where)
        return
    for _, group in itertools.groupby(found, lambda item: item[2][source.join_by] or item[0]):
        group = list(group)
        name, _, first, where = group[0]
        yield name, _titled(source, first, " ".join(text for _, text, *_ in group if text), where)


def _titled(source: TextSource, row: dict[str, Any], text: str, where: str) -> str:
    """A text below its title, if the source has titles and this row has one; an empty text stays empty."""
    title = _string(row[source.title], source.title, where).strip() if source.title else ""
    return f"{title}\n{text}" if title and text else text


def texts(folder: str | Path, column: str = "text") -> Iterator[str]:
    """The text of every row of a dataset's folder that has any. Raises CorpusError as `documents` does."""
    for _, where, row in _rows(Path(folder), [column], mixed=False, on_read=unheard):
        if text := _string(row[column], column, where):
            yield text


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
    """A key of `KINDS` by a file's suffix, in any case; None for a file that is neither text nor a table."""
    return next((kind for kind, suffixes in KINDS.items() if path.name.lower().endswith(suffixes)), None)


def is_table(path: Path) -> bool:
    """Whether a file holds rows with columns, by its suffix."""
    return kind_of(path) not in (None, "text")


def _rows(folder: Path, columns: list[str], mixed: bool, on_read: OnRead) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name, where, row) of every row in a folder, in order.

    The name is file:row with rows counted from 0, or the file for a text file; `where` is for errors. A row holds the
    columns asked for. In a mixed folder the one column of a text file has the name of the first column asked for.
    """
    for kind, path in find_files(folder, mixed):
        name = os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "replace")  # ids are text
        if kind == "text":
            column = columns[0] if mixed else "text"
            _require(columns, [column], str(path))
            yield name, str(path), {column: _read_text(path)}
            on_read(path.stat().st_size)
            continue
        for index, (number, row) in enumerate(read_rows(path, columns, on_read=on_read)):
            where = f"{path}:{number}"
            _require(columns, row, where)
            yield f"{name}:{index}", where, {column: row[column] for column in columns}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8, or leave it out by a pattern"
        ) from None


def _require(columns: list[str], present: Iterable[str], where: str) -> None:
    if missing := [column for column in columns if column not in present]:
        raise CorpusError(f"{where}: no column {missing[0]!r}; it has {', '.join(map(repr, present))}")


def _string(value: Any, column: str, where: str) -> str:
    """The value if it is text, with a missing or blank one as ''."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CorpusError(f"{where}: column {column!r} holds a {type(value).__name__}, not text")
    if not value.isascii() and _SURROGATE.search(value):  # half a character, which JSON can hold and files cannot
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value if not value.isspace() else ""
