"""Retrieval tasks in the layouts of CoIR, BEIR and BRIGHT, all read as (corpus, queries, qrels, excluded).

Files are read as the benchmarks' own harnesses read them (coir-eval's `load_data_from_hf`, beir's `GenericDataLoader`;
tests compare the results), but not through them. Both hold a corpus as a dict of dicts, importing coir-eval loads
sentence-transformers (12 s and 550 MB before a BM25 job can begin), and its loader turns an error into a task that is
silently missing. Here a corpus is streamed, and an error names the file and the line. Which files make a split is
decided as `datasets` decides it (`splits`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from revela.evaluation.splits import BenchmarkError, needed_files, split_files
from revela.text.rows import RowError, read_rows

if TYPE_CHECKING:
    from revela.study.sheets import Task

Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One corpus with its queries. Most tasks have one part; CodeSearchNet has six, one for each language."""

    name: str
    corpus: Corpus
    queries: dict[str, str]  # id -> text, sorted by id; those that have judgements
    qrels: dict[str, dict[str, int]]  # query id -> document id -> relevance, in the order of `queries`
    excluded: dict[str, frozenset[str]]  # query id -> ids that may not be retrieved for it (BRIGHT)
    instruction: str = ""  # what is asked for, for systems that read an instruction
    prefix: str = ""  # distinguishes this part's queries from those of the task's other parts

    def key(self, query: str) -> str:
        """The query's name in the run file of the task."""
        return self.prefix + query

    def texts(self) -> Iterator[str]:
        """Each different text of its documents, then its queries."""
        yield from self.corpus.unique_texts()
        yield from self.queries.values()


class Corpus:
    """The documents of a task, streamed from their files. Memory holds ids and the numbers of texts, but no text."""

    def __init__(self, files: list[Path], *, id: str = "_id", text: str = "text", title: str | None = "title"):
        self.files, self._id, self._text, self._title = files, id, text, title
        self._repeated: frozenset[int] = frozenset()  # places of rows that repeat an earlier one; `index` finds them

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(id, text) of every document, in the order of the files."""
        for place, (_, row) in enumerate(self._rows()):
            if place in self._repeated:
                continue
            text = row[self._text] or ""
            yield str(row[self._id]), f"{row.get(self._title) or ''} {text}".strip() if self._title else text

    def __len__(self) -> int:
        return len(self.index.ids)

    @cached_property
    def index(self) -> Index:
        """Ids, their order, and which documents have the same text. Reads the corpus once.

        A document that stands twice, with the same text, counts once, as in the dicts of other harnesses. Raises
        BenchmarkError if the corpus is empty, or an id has two texts.
        """
        blocks, ids, digests, together = [], [], bytearray(), hashlib.blake2b(digest_size=16)
        for id, text in self:
            ids.append(id)
            digests += hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            together.update(f"{len(id)} {id}".encode("utf-8", "surrogatepass") + digests[-16:])
            if len(ids) == 4096:  # as Python's strings they would take several times the memory
                blocks.append(np.array(ids, np.dtypes.StringDType()))
                ids.clear()
        ids = np.concatenate([*blocks, np.array(ids, np.dtypes.StringDType())])
        if not len(ids):
            raise BenchmarkError(f"{self.files[0]}: the corpus is empty")
        texts, order = np.frombuffer(digests, "S16"), np.argsort(ids, stable=True)
        twice = np.flatnonzero(ids[order[1:]] == ids[order[:-1]])
        differ = twice[texts[order[twice + 1]] != texts[order[twice]]]
        if len(differ):
            id = ids[order[differ[0]]]
            first, second, *_ = (where for where, row in self._rows() if str(row[self._id]) == id)
            raise BenchmarkError(f"{second}: document {id!r} stands twice, first in {first}")
        if len(twice):
            repeated = order[twice + 1]
            self._repeated = frozenset(repeated.tolist())
            ids, texts = np.delete(ids, repeated), np.delete(texts, repeated)
            order = np.argsort(ids, stable=True)
        rank = np.empty(len(ids), np.int64)
        rank[order] = np.arange(len(ids))
        _, first, text = np.unique(texts, return_index=True, return_inverse=True)
        return Index(ids, rank, np.argsort(np.argsort(first))[text], together.hexdigest())

    def unique_texts(self) -> Iterator[str]:
        """Each different text once, in the order of their numbers in `index.text`."""
        seen = 0
        for (_, text), number in zip(self, self.index.text, strict=True):
            if number == seen:
                seen += 1
                yield text

    def _rows(self) -> Iterator[tuple[str, Row]]:
        return _rows(self.files, [self._id, self._text], [self._title] if self._title else [])


@dataclass(frozen=True)
class Index:
    """All about a corpus of n documents but its texts."""

    ids: np.ndarray  # [n] as numpy's strings, which take no more memory than their UTF-8
    rank: np.ndarray  # [n] place of each id in the ascending order of all ids (by code points, as trec_eval compares)
    text: np.ndarray  # [n] number of each document's text, in order of first appearance; equal texts share a number
    digest: str  # hash of all ids and texts

    @property
    def unique_texts(self) -> int:
        """The number of different texts."""
        return int(self.text.max()) + 1


def load_task(
    task: Task, folder: str | Path, *, document_text: Literal["title+text", "text"] = "title+text"
) -> list[Part]:
    """Read a task of a benchmark and check it.

    For each part (a task without `parts` is one part of its own name) the folder holds:

    coir
        ``{part}-queries-corpus/`` with the splits ``corpus`` and ``queries``, and ``{part}-qrels/`` with
        the task's split: the repositories CoIR-Retrieval/... of the hub, side by side.
    beir
        ``{part}/corpus.jsonl``, ``{part}/queries.jsonl``, ``{part}/qrels/{split}.tsv``, as in BEIR's zip files, or
        what the card calls ``corpus``, ``queries`` and ``default``, as in mteb's repositories. ``corpus`` and
        ``queries`` may be folders of parquet files, and the qrels may be in ``{part}-qrels/``, or a split among the
        part's own files. Without ``{part}/`` the folder itself is the part.
    bright
        ``documents/`` and ``examples/``, each with a split named as the part.

    Where the folder has a card (README.md) that lists the split, the files are those that it names. Elsewhere a split
    is a file ``{split}.jsonl``, ``.jsonl.gz``, ``.parquet`` or ``.tsv``, or the hub's numbered shards
    ``{split}-00000-of-00003.parquet``, with a hash after them or without, in the folder or in its ``data/``. It may also
    be a folder ``{split}/`` of such files of any name.

    Args:
        task: A row of benchmarks.tsv.
        folder: The dataset's folder.
        document_text: ``title+text`` makes ``(title + " " + text).strip()`` of a document; ``text`` leaves titles out.

    Raises:
        BenchmarkError: A missing file, a broken line, a duplicate id, a judgement of an unknown query or document.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BenchmarkError(f"{folder}: no such folder (dataset {task.dataset!r} of task {task.key})")
    names = task.part_names
    title = "title" if document_text == "title+text" else None
    parts = [_LAYOUTS[task.layout](name, folder, task, title) for name in names]
    prefixes = [f"{name}/" for name in names] if len(names) > 1 else [""]
    return [
        replace(part, instruction=task.instruction, prefix=prefix) for part, prefix in zip(parts, prefixes, strict=True)
    ]


# --- the three layouts

QRELS = ("default", "qrels")  # the config of judgements in mteb's repositories


def _coir(name: str, folder: Path, task: Task, title: str | None) -> Part:
    data, judgements = folder / f"{name}-queries-corpus", folder / f"{name}-qrels"
    corpus = Corpus(needed_files(data, "corpus"), title=title)
    return _judged(name, corpus, needed_files(data, "queries"), needed_files(judgements, task.split), task)


def _beir(name: str, folder: Path, task: Task, title: str | None) -> Part:
    base = folder / name if (folder / name).is_dir() else folder
    corpus = Corpus(needed_files(base, "corpus", ["corpus"]), title=title)
    queries = needed_files(base, "queries", ["queries", "query"])
    beside = folder / f"{name}-qrels"
    for place in ((base, task.split, QRELS, "qrels"), (beside, task.split), (base, task.split)):
        if qrels := split_files(*place):
            return _judged(name, corpus, queries, qrels, task)
    return _judged(name, corpus, queries, needed_files(base / "qrels", task.split), task)


def _bright(name: str, folder: Path, task: Task, title: str | None) -> Part:
    corpus = Corpus(needed_files(folder, name, ["documents"], "documents"), id="id", text="content", title=None)
    rows, texts, qrels, excluded, lines = {}, {}, {}, {}, {}
    files = needed_files(folder, name, ["examples"], "examples")
    for where, row in _rows(files, ["id", "query", "gold_ids", "excluded_ids"]):
        query = str(row["id"])
        if row == rows.setdefault(query, row) and query in texts:
            continue  # the same row once more
        _new(query, texts, where)
        if not row["gold_ids"]:
            continue  # not judged
        texts[query] = row["query"]
        qrels[query] = {document: 1 for document in row["gold_ids"]}
        excluded[query] = frozenset(row["excluded_ids"]) - {"N/A"}
        if both := excluded[query] & qrels[query].keys():
            raise BenchmarkError(f"{where}: document {min(both)!r} is both gold and excluded")
        lines |= {(query, document): where for document in qrels[query]}
    return _checked(name, corpus, texts, qrels, excluded, lines, task)


_LAYOUTS: dict[str, Callable[[str, Path, Task, str | None], Part]] = {"coir": _coir, "beir": _beir, "bright": _bright}


def _judged(name: str, corpus: Corpus, queries: list[Path], judgements: list[Path], task: Task) -> Part:
    """A part whose judgements are a separate table. Queries without any, which belong to other splits, are left out."""
    texts: dict[str, str] = {}
    for where, row in _rows(queries, ["_id", "text"]):
        query, text = str(row["_id"]), row["text"] or ""
        if texts.setdefault(query, text) != text:
            raise BenchmarkError(f"{where}: query {query!r} stands twice, with different texts")
    qrels: dict[str, dict[str, int]] = {}
    lines = {}
    for where, row in _rows(judgements, ["query_id", "corpus_id", "score"]):
        query, document = str(row["query_id"]), str(row["corpus_id"])
        if query not in texts:
            raise BenchmarkError(f"{where}: query {query!r} is not in {queries[0]}")
        qrels.setdefault(query, {})[document] = _grade(row["score"], where)
        lines[query, document] = where
    return _checked(name, corpus, texts, qrels, {}, lines, task)


def _grade(score: Any, where: str) -> int:
    """A whole number, in whatever type or format it is written: 1, "1", 1.0."""
    try:
        number = math.nan if isinstance(score, bool) else float(score)
    except (TypeError, ValueError):
        number = math.nan
    if not number.is_integer():
        raise BenchmarkError(f"{where}: score {score!r} is no integer")
    return int(number)


def _new(query: str, queries: dict[str, str], where: str) -> None:
    if query in queries:
        raise BenchmarkError(f"{where}: query {query!r} stands twice")


def _checked(
    name: str,
    corpus: Corpus,
    texts: dict[str, str],
    qrels: dict[str, dict[str, int]],
    excluded: dict[str, frozenset[str]],
    lines: dict[tuple[str, str], str],
    task: Task,
) -> Part:
    """The part, if every relevant document can be retrieved, except for those that the task is known to lack."""
    if not qrels:
        raise BenchmarkError(f"{corpus.files[0].parent}: {name} has no judged query")
    relevant = [(query, document) for query, judged in qrels.items() for document, score in judged.items() if score > 0]
    absent = {document for _, document in relevant}.difference(corpus.index.ids)
    unknown = [pair for pair in relevant if pair[1] in absent]
    own = [(query, document) for query, document in relevant if query == document]
    if len(unknown) + len(own) > task.unretrievable:
        query, document = (unknown + own)[0]
        fault = "is not in the corpus" if unknown else "has the query's own id, and such documents are dropped"
        raise BenchmarkError(
            f"{lines[query, document]}: document {document!r}, relevant to query {query!r}, {fault} "
            f"({len(unknown) + len(own)} such judgements, allowed are {task.unretrievable}: `unretrievable` in "
            "benchmarks.tsv, --unretrievable of `revela evaluate` and `revela train`)"
        )
    queries = sorted(qrels)
    return Part(
        name,
        corpus,
        {query: texts[query] for query in queries},
        {query: qrels[query] for query in queries},
        {query: excluded.get(query, frozenset()) for query in queries},
    )


# --- rows


def _rows(files: list[Path], columns: list[str], optional: Sequence[str] = ()) -> Iterator[tuple[str, Row]]:
    """(file and line, row) of each row. A - in a column's name becomes _, since both are in use for qrels."""
    for path in files:
        try:
            # Not strict, as in beir: ids of FEVER contain quotation marks.
            for number, row in read_rows(path, [*columns, *optional], strict=False):
                row = {name.replace("-", "_"): value for name, value in row.items()}
                where = f"{path}:{number}"
                for column in columns:
                    if column not in row:
                        raise BenchmarkError(f"{where}: no {column!r}; there are {', '.join(row) or 'no columns'}")
                yield where, row
        except RowError as error:
            raise BenchmarkError(str(error)) from None
