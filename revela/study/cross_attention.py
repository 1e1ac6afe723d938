"""The section `training.cross_attention`: how much the attention to the other chunks of a batch counts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from revela.study.base import Strict


class Ramp(Strict):
    """A gate that grows, or falls, over optimiser steps to `cross_attention.gate`."""

    start: float = Field(gt=0, description="The gate of the first step.")
    steps: int = Field(ge=1, description="Steps until the gate is reached; from then on it stays.")
    shape: Literal["linear", "cosine"] = Field("linear", description="cosine: slow at both ends.")


class CrossAttention(Strict):
    """The gate g, a factor of b_i in eq. 5 and 7, which is the same as one of Sim. 1 is the paper's method."""

    gate: float = Field(1.0, gt=0, description="g; the end of a ramp, or the start of a learned gate.")
    ramp: Ramp | None = Field(None, description="How the gate comes to its value; null: it is constant.")
    learned: Literal["layer", "head"] | None = Field(
        None, description="A gate for each layer, or each head of each layer, trained with the retriever; null: none."
    )

    @model_validator(mode="after")
    def _one_way_to_change(self):
        if self.ramp and self.learned:
            raise ValueError("give at most one of ramp, learned")
        return self
