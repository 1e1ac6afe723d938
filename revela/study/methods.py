"""The methods that train a retriever, and what each needs. A new one is a module with an objective, and an entry here.

This page is read while thousands of jobs are planned, so objectives and formulas are named, and imported when asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Method:
    """What the rest of the project has to know of a method.

    name: in paths, the first part of a cell.
    label: in tables and figures.
    objective: `module:Class` of the `revela.objectives.base.Objective` that makes a batch into a loss.
    operations: `module:function` that counts the floating-point operations of a batch (`revela.plan.flops`).
    data: the training file of a corpus that it reads, batches.parquet or pairs.parquet.
    lm: what a language model is to it. "beside": it is loaded with the retriever and trained, or frozen; "scores": it
        scores the batches once, before any training (`revela.objectives.replug_scores`); "none": the cell names none.
    least_batch: chunks in a batch at least, for the retriever's weights to have any part in the loss.
    """

    name: str
    label: str
    objective: str
    operations: str
    data: Literal["batches", "pairs"] = "batches"
    lm: Literal["beside", "scores", "none"] = "none"
    least_batch: int = 2

    @property
    def module(self) -> str:
        """The module of the objective: with `revela.training.loop`, the code that a trained cell depends on."""
        return self.objective.partition(":")[0]

    def load_objective(self) -> type:
        """The objective's class. Imports torch."""
        return _load(self.objective)

    def load_operations(self) -> Callable[..., float]:
        """The function that counts operations, as `revela.plan.flops` describes it."""
        return _load(self.operations)


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


_METHODS = (
    Method(
        "revela",
        label="Revela",
        objective="revela.objectives.revela:Revela",
        operations="revela.plan.flops:revela",
        lm="beside",
        least_batch=3,  # of two chunks each has one other, so Sim is 1 whatever the retriever says
    ),
    Method(
        "replug",
        label="REPLUG",
        objective="revela.objectives.replug:Replug",
        operations="revela.plan.flops:retriever_alone",
        lm="scores",
    ),
    Method(
        "contriever",
        label="Contriever",
        objective="revela.objectives.contriever:Contriever",
        operations="revela.plan.flops:retriever_alone",
        data="pairs",
    ),
)
METHODS = {method.name: method for method in _METHODS}
