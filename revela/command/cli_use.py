"""The commands that use a retriever: encode, search, evaluate."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from revela.command.options import Column, Json, Model, Unretrievable, printed
from revela.command.precision import Precision, dtype_of, say

if TYPE_CHECKING:
    import numpy as np

    from revela.command.passages import Passage


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
    retriever = Retriever.load(model, dtype=dtype).merge()
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
    queries: Annotated[
        list[str] | None, typer.Argument(help="One query or several; without any they are asked for, until Ctrl-D.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Passages for each query.")] = 5,
    column: Column = "text",
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Find the passages that answer a query, each with the file and the line, or the row, where it begins."""
    from revela.command.passages import cut_off, find_passages
    from revela.retriever import Retriever

    if not queries and not sys.stdin.isatty():
        raise typer.BadParameter("give a query; only on a terminal they are asked for", param_hint="QUERIES")
    dtype = dtype_of(precision)
    retriever = Retriever.load(model, dtype=dtype).merge()
    found = find_passages(text, column, retriever=retriever)
    if line := cut_off(retriever, [one.text for one in found], "passage"):
        typer.echo(line, err=True)
    passages = retriever.encode([one.text for one in found], kind="passage")
    say(precision, dtype)

    def answer(asked: list[str]) -> list[dict[str, Any]]:
        ranked = best(retriever.encode(asked, kind="query") @ passages.T, top)
        return [
            {"query": query, "passages": [_hit(found[i], score) for i, score in ranks]}
            for query, ranks in zip(asked, ranked, strict=True)
        ]

    if queries:
        answers = answer(queries)
        printed(answers, "\n".join(map(_shown, answers)), as_json)
        return
    typer.echo(f"{len(found)} passages of {text}; Ctrl-D ends", err=True)
    for query in _asked():
        [one] = answer([query])
        typer.echo(json.dumps(one) if as_json else _shown(one))  # JSON in a line for each query


def best(scores: np.ndarray, top: int) -> list[list[tuple[int, float]]]:
    """(place, score) of the best passages for each query, given scores [queries, passages]; ties by place."""
    import numpy as np

    return [[(int(i), float(row[i])) for i in np.argsort(-row, kind="stable")[:top]] for row in scores]


def _asked() -> Iterator[str]:
    """What is typed, line by line, until Ctrl-D. Results on stdout may go to a file, so that the prompt does not."""
    with suppress(ImportError):
        import readline  # noqa: F401 - lines can be edited and called back
    while True:
        try:
            if sys.stdout.isatty():
                line = input("query: ")
            else:
                typer.echo("query: ", nl=False, err=True)
                line = input()
        except EOFError:
            typer.echo(err=True)
            return
        if line.strip():
            yield line


def _hit(passage: Passage, score: float) -> dict[str, Any]:
    """A passage that was found, as JSON: with its row or its line, where one is known."""
    known = {key: value for key, value in asdict(passage).items() if value is not None}
    return {"id": known.pop("id"), "score": score, "text": known.pop("text"), **known, "place": passage.place}


def _shown(answer: dict[str, Any]) -> str:
    hits = (
        f"  {one['score']:.3f}  {one['place']}  {' '.join(one['text'].split())[:100]}" for one in answer["passages"]
    )
    return "\n".join([answer["query"], *hits])


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
