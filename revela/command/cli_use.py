"""The commands that use a retriever: encode, search, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from revela.command.options import Column, Json, Model, Unretrievable, printed
from revela.command.precision import Precision, dtype_of, say


def encode(
    model: Model,
    text: Annotated[Path, typer.Argument(help="A folder, a file of lines, a table, or a corpus's chunks.parquet.")],
    out: Annotated[
        Path, typer.Option(help="File for the embeddings: .npy, float32 [n, d], in the order of the texts.")
    ],
    kind: Annotated[Literal["query", "passage"], typer.Option(help="The prefix that each text gets.")] = "passage",
    column: Column = "text",
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Turn texts into embeddings. The ids of the texts stand beside them: for notes.npy in notes.ids.json."""
    import numpy as np

    from revela.command.passages import cut_off, read_passages
    from revela.files import atomic_write, write_json
    from revela.retriever import Retriever

    if out.suffix != ".npy":
        raise typer.BadParameter(f"{out}: the name of a .npy file is expected", param_hint="--out")
    ids = out.with_suffix(".ids.json")
    for written in (out, ids):
        if written.resolve().is_relative_to(text.resolve()):
            raise typer.BadParameter(f"{written} would stand in {text}, the text itself", param_hint="--out")
    dtype = dtype_of(precision)
    retriever = Retriever.load(model, dtype=dtype)
    found = read_passages(text, column, retriever=retriever)
    if line := cut_off(retriever, [one for _, one in found], kind):
        typer.echo(line, err=True)
    embeddings = retriever.encode([one for _, one in found], kind=kind)
    with atomic_write(out) as partial:
        np.save(partial, embeddings)
    write_json(ids, [name for name, _ in found], indent=None)
    say(precision, dtype)
    facts = {"embeddings": str(out), "ids": str(ids), "texts": len(found), "dimensions": embeddings.shape[1]}
    printed(facts, f"{out}: {len(found)} embeddings of {embeddings.shape[1]} dimensions", as_json)


def search(
    model: Model,
    text: Annotated[
        Path, typer.Argument(help="What to search: a folder, a file of lines, a table, or a corpus's chunks.parquet.")
    ],
    queries: Annotated[list[str], typer.Argument(help="One query or several.")],
    top: Annotated[int, typer.Option(min=1, help="Passages for each query.")] = 5,
    column: Column = "text",
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Find the passages that answer a query."""
    import numpy as np

    from revela.command.passages import cut_off, read_passages
    from revela.retriever import Retriever

    dtype = dtype_of(precision)
    retriever = Retriever.load(model, dtype=dtype)
    found = read_passages(text, column, retriever=retriever)
    if line := cut_off(retriever, [one for _, one in found], "passage"):
        typer.echo(line, err=True)
    scores = retriever.encode(queries, kind="query") @ retriever.encode([one for _, one in found], kind="passage").T
    answers = [
        [
            {"id": found[i][0], "score": float(row[i]), "text": found[i][1]}
            for i in np.argsort(-row, kind="stable")[:top]
        ]
        for row in scores
    ]
    say(precision, dtype)
    lines = []
    for query, best in zip(queries, answers, strict=True):
        lines += [query, *(f"  {one['score']:.3f}  {one['id']}  {' '.join(one['text'].split())[:100]}" for one in best)]
    printed([{"query": q, "passages": a} for q, a in zip(queries, answers, strict=True)], "\n".join(lines), as_json)


def evaluate(
    model: Annotated[
        str, typer.Argument(help="Folder of a cell, a retriever, an export or a language model; or bm25.")
    ],
    benchmark: Annotated[Path, typer.Argument(help="Folder with corpus.jsonl, queries.jsonl and qrels/test.tsv.")],
    layout: Annotated[Literal["beir", "coir", "bright"], typer.Option(help="How the folder is laid out.")] = "beir",
    part: Annotated[
        str | None, typer.Option(help="Name within the folder, for example cosqa in CoIR's layout.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the judgements.")] = "test",
    unretrievable: Unretrievable = 0,
    max_length: Annotated[
        int | None, typer.Option(min=4, help="Tokens of a text at most; by default as saved.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Keep the ranking in this file (TREC, gzipped).")] = None,
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Measure a model on a benchmark of your own."""
    from revela.evaluation.folder import evaluate_folder, load_model

    dtype = None if model == "bm25" else dtype_of(precision)
    system = load_model(model, max_length=max_length, dtype=dtype)
    options = {"layout": layout, "part": part, "split": split, "unretrievable": unretrievable}
    found = evaluate_folder(system, benchmark, **options, run_file=run)
    if dtype:
        say(precision, dtype)
    lines = [f"{model} on {found['benchmark']}: {found['queries']} queries, {found['documents']} documents"]
    lines += [f"  {name:<12} {100 * value:6.2f} %" for name, value in found["metrics"].items()]
    printed(found, "\n".join(lines), as_json)
