"""What the paper shows, as the configuration has it: the sections `tables` and `figures`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from revela.study.base import Strict, check_known


class Table(Strict):
    """A table of scores: labelled systems x tasks of one benchmark, or x means of other tables."""

    benchmark: str | None = Field(None, description="A benchmark of the sheet, or lm-eval.")
    means_of: dict[str, str] = Field({}, description="Heading -> table of the same systems whose means stand there.")
    caption: str
    columns: list[str] = Field(
        [], description="Labels in order; each stands in runs.tsv or models.tsv under this table. Or `groups`."
    )
    groups: dict[str, dict[str, str]] = Field({}, description="Heading -> heading below it -> label.")
    over_seeds: bool = Field(
        False,
        description="The columns of a group are one system with several seeds: their mean stands under the group's "
        "heading, with the lowest and the highest.",
    )
    transposed: bool = Field(False, description="Systems are the rows.")
    size_row: bool = Field(False, description="Sizes stand in a row of their own; else as a subscript of the label.")
    bold: Literal["row", "group", "none"] = Field("row", description="Where the best value is sought.")
    bold_copied: bool = Field(False, description="A copied value can be the best.")
    grey: list[str] = Field([], description="Columns set in grey: supervised models.")
    dagger: list[str] = Field([], description="Columns marked with a dagger: code-related pairs in pre-training.")
    intervals: bool = Field(False, description="Values have their 95 % interval over the queries.")
    notes: list[str] = Field([], description="Remarks on the printed values, below the comparison with them.")
    printed: str | None = Field(None, description="CSV with the paper's printed values.")
    on_request: bool = Field(False, description="Made when it is asked for, not by default.")

    @model_validator(mode="before")
    @classmethod
    def _columns_of_groups(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("groups") and not values.get("columns"):
            try:
                labels = [label for heads in values["groups"].values() for label in heads.values()]
            except AttributeError:
                raise ValueError("groups: a mapping of heading -> heading below it -> label is expected") from None
            return {**values, "columns": labels}
        return values

    @model_validator(mode="after")
    def _is_consistent(self):
        if (self.benchmark is None) != bool(self.means_of):
            raise ValueError("give exactly one of benchmark, means_of")
        if not self.columns:
            raise ValueError("give exactly one of columns, groups")
        if self.over_seeds and (not self.groups or self.intervals or self.printed or self.bold == "group"):
            raise ValueError("over_seeds needs groups, and excludes intervals, printed and bold: group")
        for key in ("grey", "dagger"):
            for label in getattr(self, key):
                check_known(key, label, self.columns)
        return self


class Figure(Strict):
    """A figure. It shows the values of tables, the logs of cells, or what a measurement gave; `kind` says which.

    bars: the mean of each column (figure 3). lines: the means of a table's groups (figures 4 and 5).
    hours: means against the GPU-hours of training. dynamics: Sim and loss of one batch while a cell is trained
    (figure 6). same_document: the weight that Sim puts on chunks of the same document, against the batches, of a cell
    and of variants of it. timing: seconds of REPLUG and of Revela against the batch size (App. C.7). training: losses of
    all cells.
    """

    kind: Literal["bars", "lines", "hours", "dynamics", "same_document", "timing", "training"]
    caption: str
    panels: dict[str, str] = Field({}, description="bars, lines, hours: title -> table.")
    axis: str = Field("", description="lines: in what the columns of a group differ.")
    cell: str = Field("", description="dynamics, same_document, timing: the cell that is shown, or measured.")
    variants: list[str] = Field([], description="same_document: those of the cell that are shown beside it.")
    on_request: bool = Field(False, description="Made when it is asked for, not by default.")

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self):
        needs = {"dynamics": "cell", "same_document": "cell", "timing": "cell", "training": None}.get(
            self.kind, "panels"
        )
        given = [key for key in ("panels", "cell") if getattr(self, key)]
        if given != ([needs] if needs else []):
            raise ValueError(f"a figure of kind {self.kind} is given {needs or 'neither panels nor cell'}")
        return self
