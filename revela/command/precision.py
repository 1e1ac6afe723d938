"""The precision in which a model runs over a user's own text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from revela.hardware import fast_precision

if TYPE_CHECKING:
    import torch

Precision = Annotated[
    Literal["bf16", "fp32"] | None, typer.Option(help="Precision of the model; by default what the machine is fast in.")
]


def dtype_of(precision: Precision) -> torch.dtype:
    """The type of a model's weights: as asked for, or the one that the machine is fast in."""
    import torch

    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision or fast_precision()]


def say(precision: Precision, dtype: torch.dtype) -> None:
    """Names a type that the machine has decided, for scores depend on it a little. Said beside results, not errors."""
    import torch

    if precision:
        return
    name, other = ("bf16", "fp32") if dtype == torch.bfloat16 else ("fp32", "bf16")
    typer.echo(f"precision: {name}, in which this machine is fast; for the other, --precision {other}", err=True)
