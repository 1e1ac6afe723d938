"""The precision in which a model runs over a user's own text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import torch

Precision = Annotated[
    Literal["bf16", "fp32"] | None, typer.Option(help="Precision of the model; by default what the machine is fast in.")
]


def dtype_of(precision: Precision) -> torch.dtype:
    """The type of a model's weights. One that the machine decides is said in a line, for scores depend on it a little."""
    import torch

    from revela.pretrained import fast_dtype

    if precision:
        return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    dtype = fast_dtype("cuda" if torch.cuda.is_available() else "cpu")
    name, other = ("bf16", "fp32") if dtype == torch.bfloat16 else ("fp32", "bf16")
    typer.echo(f"precision: {name}, in which this machine is fast; for the other, --precision {other}", err=True)
    return dtype
