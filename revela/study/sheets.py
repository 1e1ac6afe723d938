"""The sheets beside a configuration: models, runs, benchmarks, anchors. A row is a line of tab-separated values."""

from __future__ import annotations

import csv
from typing import Literal, TypeVar

from pydantic import Field, model_validator

from revela.study.base import NAME, ConfigError, Strict, validate
from revela.study.cell import Cell
from revela.study.methods import METHODS
from revela.study.source import Source, parse_source
from revela.study.system import UNTRAINED, Pooling

Row = TypeVar("Row", bound=Strict)


def parse_pairs(entries: str) -> dict[str, str]:
    """The pairs of a column such as `tables`.

    >>> parse_pairs("table1=BM25; table6=BM25")
    {'table1': 'BM25', 'table6': 'BM25'}
    """
    pairs = (entry.strip().partition("=") for entry in entries.split(";") if entry.strip())
    return {name: value for name, _, value in pairs}


class Model(Strict):
    """A row of models.tsv: a backbone or an off-the-shelf retriever."""

    scale: str
    name: str = Field(pattern=NAME)
    kind: Literal["backbone", "encoder", "bm25", "api"]
    source: str = Field(
        "",
        description="hub:owner/name[@revision], path:folder, package:key of `packages`, provider:name of an API, or settings of BM25, which is "
        "k1=1.5;b=0.75 where empty.",
    )
    base: str = Field("", description="The backbone that an encoder's weights are an adapter of.")
    size: str = Field("", description="As printed in the tables, for example 0.5B.")
    pooling: Literal["", Pooling] = ""
    query_prefix: str = ""
    passage_prefix: str = ""
    passage_prefixes: str = Field(
        "", description="task=prefix pairs, separated by ';', for tasks whose passages have another prefix."
    )
    similarity: Literal["", "cosine", "dot"] = ""
    max_length: int | None = None
    price: float | None = Field(None, ge=0, description="US dollars for a million tokens of an API.")
    tables: str = Field("", description="table=label pairs, separated by ';'.")

    @model_validator(mode="after")
    def _has_a_source(self):
        parse_source(self.kind, self.source)
        return self

    @property
    def key(self) -> str:
        return self.name

    @property
    def origin(self) -> Source:
        """Where it comes from, or BM25's settings."""
        return parse_source(self.kind, self.source)

    @property
    def system(self) -> str:
        """The name of the system that it is by itself."""
        return f"{UNTRAINED}{self.name}" if self.kind == "backbone" else self.name

    @property
    def labels(self) -> dict[str, str]:
        """table -> the label that it has there."""
        return parse_pairs(self.tables)


class Run(Strict):
    """A row of runs.tsv: a trained cell and the table columns that it fills."""

    scale: str
    method: Literal[tuple(METHODS)]
    corpus: str = Field(pattern=NAME)
    retriever: str = Field(pattern=NAME)
    lm: str = Field(pattern=NAME, description="'none' for a method without a language model.")
    batch_size: int = Field(ge=2)
    variant: str = Field("", pattern=NAME + "|^$")
    tables: str = Field("", description="table=label pairs, separated by ';'.")

    @property
    def key(self) -> str:
        return self.cell.path

    @property
    def system(self) -> str:
        return self.cell.path

    @property
    def labels(self) -> dict[str, str]:
        """table -> the label that it has there."""
        return parse_pairs(self.tables)

    @property
    def cell(self) -> Cell:
        return Cell(self.method, self.corpus, self.retriever, self.lm, self.batch_size, self.variant)


class Task(Strict):
    """A row of benchmarks.tsv: one retrieval task."""

    scale: str
    benchmark: str = Field(pattern=NAME)
    task: str = Field(pattern=NAME)
    label: str = Field(description="The task's name in the paper's tables.")
    aliases: str = Field(
        "", exclude=True, description="Other names that printed tables have for it, separated by ';'."
    )  # which no run and no score depends on
    layout: Literal["coir", "beir", "bright"]
    dataset: str = Field(description="A key of `datasets`.")
    parts: str = Field(
        "",
        description="Names within the dataset, separated by ';'; scores are averaged over them.",
    )
    split: str = "test"
    unretrievable: int = Field(
        0,
        ge=0,
        description="Relevant judgements that no system can meet, as published: of documents that the corpus "
        "lacks (ArguAna: 5). More of them are an error.",
    )
    instruction: str = Field("", description="What is asked for; takes the place of {task} in a query prefix.")

    @property
    def key(self) -> str:
        return f"{self.benchmark}/{self.task}"

    @property
    def names(self) -> list[str]:
        """Its aliases."""
        return [name.strip() for name in self.aliases.split(";") if name.strip()]

    @property
    def part_names(self) -> list[str]:
        """Its parts; a task that names none is one part of its own name."""
        return [name.strip() for name in self.parts.split(";") if name.strip()] or [self.task]


class Deviation(Strict):
    """A row of deviations.tsv: printed values that ours are known not to agree with, and why."""

    scale: str
    table: str = Field(description="A table with printed values; it counts for all tables with the same values.")
    column: str = Field("*", description="A label of the table; *: every one.")
    row: str = Field("*", description="A row as the paper prints it; *: every one.")
    reason: str

    @property
    def key(self) -> str:
        return f"{self.table}/{self.column}/{self.row}"


class Anchor(Strict):
    """A row of anchors.tsv: a score that others published."""

    scale: str
    system: str = Field(description="A row of models.tsv.")
    benchmark: str
    task: str
    ndcg10: float = Field(ge=0, le=100, description="nDCG@10 in percent.")

    @property
    def key(self) -> str:
        return f"{self.system}/{self.benchmark}/{self.task}"


def read_sheet(path: str, row_type: type[Row], scale: str) -> list[Row]:
    """Rows of a tab-separated sheet that belong to a scale. Raises ConfigError, which names the file and the line."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets put a mark in front
            reader = csv.DictReader(file, delimiter="\t", restkey="(too many columns)")
            rows, columns = list(reader), reader.fieldnames or []
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; it is named as a sheet of the configuration") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: not a sheet of tab-separated UTF-8 text ({error})") from None
    valid = list(row_type.model_fields)
    for position, column in enumerate(columns or [""]):
        if column not in valid or column in columns[:position]:
            fault = "stands twice" if column in valid else f"is no column, between tabs; valid: {', '.join(valid)}"
            raise ConfigError(f"{path}, line 1: {column!r} {fault}")
    seen, result = set(), []
    for number, row in enumerate(rows, start=2):
        values = {key: value for key, value in row.items() if value not in (None, "")}
        item = validate(row_type, values, f"{path}, line {number}")
        if item.scale != scale:
            continue
        if item.key in seen:
            raise ConfigError(f"{path}, line {number}: {item.key} stands twice")
        seen.add(item.key)
        result.append(item)
    return result
