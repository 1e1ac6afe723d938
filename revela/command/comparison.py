"""Did training help? BM25 and the retriever before and after are compared, on a benchmark or on held-out text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from revela.command.passages import read_documents
from revela.evaluation import significance
from revela.study.base import read_yaml
from revela.study.system import UNTRAINED
from revela.text import held_out
from revela.text.resources import Matched, ResourceError

if TYPE_CHECKING:
    from revela.study.cell import Cell
    from revela.study.study import Study

QUERIES, DOCUMENTS = 100, 300  # of held-out text, at most: what a CPU encodes in a minute with a small model
METRIC = "nDCG@10"
TABLE = "table1"
FILES = 1000  # that are prepared for reading at a time, for not all need be read


@dataclass(frozen=True)
class Compared:
    """A benchmark of one task, as the configuration and its sheets name it."""

    name: str
    label: str
    dataset: str
    origin: dict[str, Any]  # of the dataset
    caption: str
    unretrievable: int = 0

    @property
    def rows(self) -> list[tuple]:
        """The lines of benchmarks.tsv."""
        known = {"unretrievable": self.unretrievable} if self.unretrievable else {}
        return [
            ("scale", "benchmark", "task", "label", "layout", "dataset", *known),
            ("own", self.name, self.name, self.label, "beir", self.dataset, *known.values()),
        ]


def on_benchmark(folder: Path, text: str, unretrievable: int) -> Compared:
    """A comparison on a benchmark that somebody has made."""
    caption = f"{METRIC} (%) on {folder.name}, before and after training on {text}."
    return Compared("own", folder.name, "benchmark", {"path": str(folder)}, caption, unretrievable)


def on_held_out_text(corpus: str, text: str) -> Compared:
    """A comparison on documents of the text itself, with questions made from it."""
    caption = (
        f"{METRIC} (%) before and after training, on documents of {text} that were held out. The queries are made from the "
        "text: headings, first sentences or docstrings find what stood below them."
    )
    origin = {"held_out_of": corpus, "queries": QUERIES, "documents": DOCUMENTS}
    return Compared(held_out.NAME, "Made from the text", held_out.NAME, origin, caption)


def hold_out(
    found: Callable[[], Matched], column: str, out: Path, corpus: str, *, overwrite: bool
) -> tuple[int | None, str]:
    """Every how many-th document to hold out of training, if any, and a line that says so.

    What a configuration in `out` says goes on, unless it is to be overwritten. Where the text cannot be found there is
    nothing to hold out, and nothing to say. Raises CorpusError for a file that cannot be read.

    found: the files of the text, as `matching` lists them.
    """
    config = out / "config.yaml"
    if config.is_file() and not overwrite:
        corpora = read_yaml(config).get("corpora")
        own = corpora.get(corpus) if isinstance(corpora, dict) else None
        kept = own.get("hold_out") if isinstance(own, dict) else None
        return kept, _said(kept) if kept else f"comparison: {config} has none on held-out text; it is kept as it is"
    try:
        files = found()
    except ResourceError:
        return None, ""
    parts = (files.names[first : first + FILES] for first in range(0, len(files.names), FILES))
    read = (one for names in parts for one in read_documents(files.folder, names, column, corpus))
    every, documents, questions = held_out.share(read)
    if every:
        return every, _said(every)
    return None, (
        f"comparison: none, for the text has too few documents: a fifth of its {documents} gives {questions} questions "
        f"(headings, first sentences, docstrings), and {held_out.LEAST} are needed; --benchmark compares on your own"
    )


def _said(every: int) -> str:
    return f"comparison: every {every}th document is held out of training; --no-compare trains on all"


class Difference(NamedTuple):
    """By how much the trained retriever is better than its start, in points: the mean over queries, with its interval."""

    benchmark: str
    queries: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float

    @property
    def helped(self) -> bool:
        """Whether the difference is above zero by more than chance."""
        return self.low > 0

    def __str__(self) -> str:
        return (
            f"trained - untrained: {self.difference:+.1f} points of {METRIC}, 95 % interval {self.low:+.1f} to "
            f"{self.high:+.1f} ({self.queries} queries, p = {self.p:.4f})"
        )

    @property
    def warning(self) -> str | None:
        """What to say where training did not help."""
        if self.helped:
            return None
        fault = "made retrieval worse here" if self.high < 0 else "did not help, as far as these queries can tell"
        return (
            f"warning: training {fault}: the 95 % interval of the difference is {self.low:+.1f} to {self.high:+.1f} "
            "points; more text, more steps or another backbone may help"
        )


def difference(study: Study, cell: Cell) -> Difference | None:
    """The comparison of a finished study, from its score files; None where it has none."""
    if TABLE not in study.config.tables:
        return None
    benchmark = study.config.tables[TABLE].benchmark
    paths = (study.layout.scores(system, benchmark) for system in (cell.path, UNTRAINED + cell.retriever))
    after, before = (json.loads(Path(path).read_text(encoding="utf-8")) for path in paths)
    found = significance.compare(after, before, metric=METRIC, seed=study.config.seed)["mean"]
    points = {name: 100 * found[name] for name in ("difference", "low", "high")}
    return Difference(benchmark, found["queries"], 100 * found["b"], 100 * found["a"], **points, p=found["p"])
