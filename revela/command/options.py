"""What commands share: options, and how a result is printed."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Column = Annotated[str, typer.Option(help="Column of tables that holds the text.")]
Unretrievable = Annotated[
    int, typer.Option(min=0, help="Judgements of documents that the corpus is known to lack (ArguAna: 5).")
]
Model = Annotated[str, typer.Argument(help="Folder of a trained cell, a retriever or an export.", show_default=False)]


def printed(facts: Any, shown: str, as_json: bool) -> None:
    """Prints a result on stdout: its facts as JSON, or what is shown of it."""
    typer.echo(json.dumps(facts, indent=1) if as_json else shown)
