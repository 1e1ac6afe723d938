"""Run files: the rankings of one system on one task, in TREC's format, gzipped.

A line is ``query Q0 document rank score system``. In a task of several parts the query is written ``part/query``,
since parts use the same ids. White space and % within an id or a system's name are percent-encoded. Equal rankings give
equal bytes.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from revela.evaluation import EvaluationError
from revela.files import atomic_write

if TYPE_CHECKING:
    from revela.evaluation.ranking import Ranking

_UNSAFE = re.compile(r"[\s%]")


def write_run(path: str | Path, rankings: Iterable[tuple[str, Ranking]], system: str) -> None:
    """Write the ranking of each query, whole or not at all. Scores are float32 and survive to the last bit."""
    with (
        atomic_write(path) as partial,
        open(partial, "wb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=5, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8") as lines,
    ):
        system = _encoded(system)
        for query, ranking in rankings:
            query = _encoded(query)
            lines.write(
                "".join(
                    f"{query} Q0 {_encoded(document)} {rank} {score:.9g} {system}\n"
                    for rank, (document, score) in enumerate(ranking, start=1)
                )
            )


def read_run(path: str | Path) -> Iterator[tuple[str, dict[str, float]]]:
    """(query, document -> score) of each query that has documents, in the order of the file.

    Raises EvaluationError, with the line, where the file is not a whole run.
    """
    seen: set[str] = set()
    number, current, documents = 0, None, {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                query, _, document, _, score, _ = line.split()
                if query != current:
                    if current is not None:
                        yield unquote(current), documents
                    if query in seen:
                        raise ValueError(f"query {query!r} stands in two places")
                    seen.add(query)
                    current, documents = query, {}
                document = unquote(document)
                if document in documents:
                    raise ValueError(f"document {document!r} stands twice for query {query!r}")
                documents[document] = float(score)
                if not math.isfinite(documents[document]):
                    raise ValueError(f"score {score!r}")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise EvaluationError(f"{path}:{number}: not a whole run file ({error})") from None
    if current is not None:
        yield unquote(current), documents


def _encoded(id: str) -> str:
    return _UNSAFE.sub(lambda match: quote(match[0]), id)
