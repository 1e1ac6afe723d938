"""The commands that hand a retriever on: export, push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from revela.command.options import Json, printed


def export(
    model: Annotated[
        str, typer.Argument(help="Trained cell or retriever; with --base an adapter: a folder or owner/name.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    format: Annotated[
        Literal["sentence-transformers", "merged", "adapter"],
        typer.Option(help="For sentence-transformers; merged safetensors; the bare PEFT adapter."),
    ] = "sentence-transformers",
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Number type of the weights.")] = "float32",
    base: Annotated[
        str | None, typer.Option(help="The model that somebody else's adapter was trained on: a folder, or owner/name.")
    ] = None,
    query_prefix: Annotated[
        str | None, typer.Option(help="Query prefix of such an adapter; by default that of the paper's evaluation.")
    ] = None,
    passage_prefix: Annotated[str | None, typer.Option(help="Likewise, its passage prefix.")] = None,
    max_length: Annotated[int | None, typer.Option(min=4, help="Likewise, its tokens of a text at most.")] = None,
    scores: Annotated[list[Path] | None, typer.Option(help="Score file for the model card.")] = None,
    as_json: Json = False,
) -> None:
    """Write a retriever in a format that other software loads, with a model card. Nothing is uploaded."""
    from revela.export import ExportError

    given = {"query_prefix": query_prefix, "passage_prefix": passage_prefix, "max_length": max_length}
    reading = {name: value for name, value in given.items() if value is not None}
    if format == "adapter" and dtype != "float32":
        raise ExportError(f"--dtype {dtype}: an adapter is float32, as it was trained; leave the option out")
    if reading and base is None:
        option = "--" + next(iter(reading)).replace("_", "-")
        raise ExportError(f"{option}: {model} keeps what it was trained with; valid beside --base alone")
    if base is not None:
        from revela.export.adapters import export_released

        export_released(format, model, base, out, reading=reading, dtype=dtype, scores=scores or [])
    else:
        from revela.export.formats import export_as

        export_as(format, model, out, dtype=dtype, scores=scores or [])
    printed({"export": str(out), "format": format}, f"{out}: {format}", as_json)


def push(
    folder: Annotated[Path, typer.Argument(help="An export.")],
    repository: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub.")],
    public: Annotated[bool, typer.Option(help="Make a new repository public.")] = False,
    as_json: Json = False,
) -> None:
    """Upload an export to the Hugging Face hub, by default to a private repository."""
    from revela.export import hub

    address = hub.push(folder, repository, private=not public)
    printed({"address": address}, address, as_json)
