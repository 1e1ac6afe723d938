"""The command line: train on your own text, encode, search, evaluate, export, plan, and see what a machine lacks.

Results go to stdout, as JSON with `--json`; progress goes to stderr. Exit status: 0 done, 1 an error, explained in one
line on stderr, 2 a command that is not understood, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from revela.command.precision import Precision, dtype_of, say
from revela.errors import RevelaError

app = typer.Typer(
    name="revela",
    help="Dense retrievers learned from raw text by language modelling.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Column = Annotated[str, typer.Option(help="Column of tables that holds the text.")]
Unretrievable = Annotated[
    int, typer.Option(min=0, help="Judgements of documents that the corpus is known to lack (ArguAna: 5).")
]
Model = Annotated[str, typer.Argument(help="Folder of a trained cell, a retriever or an export.", show_default=False)]


@app.callback(epilog="Example: revela search my-retriever/retriever notes 'how to sort a list'")
def main_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """Dense retrievers learned from raw text by language modelling."""


@app.command(epilog="Example: revela train --text notes --backbone resources/backbones/tiny-4m --out my-retriever")
def train(
    text: Annotated[str, typer.Option(help="Folder of text, a file, or a pattern such as 'notes/**/*.{md,jsonl}'.")],
    backbone: Annotated[
        str, typer.Option(help="Model that becomes the retriever: a folder, or owner/name[@revision].")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the configuration and all results.")],
    column: Column = "text",
    lm: Annotated[str | None, typer.Option(help="Language model beside it; by default a copy of the backbone.")] = None,
    benchmark: Annotated[
        Path | None,
        typer.Option(
            help="Folder in BEIR's layout, on which BM25 and the retriever before and after training are compared."
        ),
    ] = None,
    unretrievable: Unretrievable = 0,
    batch_size: Annotated[int, typer.Option(min=3, help="Chunks in a batch.")] = 16,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of training; by default one epoch.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="As many steps as fit into this time, by their measured pace.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, for example training.temperature=0.01.")
    ] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="CPU cores; by default all.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a configuration that says otherwise.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Write the configuration and plan the jobs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a retriever on your own text: chunk, batch, train, export. After a stop, it continues from its checkpoint."""
    from revela import workflow
    from revela.command import own_study, pace, running
    from revela.text.resources import matching

    if steps and minutes:
        raise typer.BadParameter("give --steps or --minutes, not both", param_hint="--minutes")
    if minutes and dry_run:
        raise typer.BadParameter("the pace is measured, which a dry run does not do", param_hint="--minutes")
    cores = cores or len(os.sched_getaffinity(0))
    write = partial(
        own_study.write_study,
        text,
        backbone,
        out,
        column=column,
        lm=lm,
        benchmark=benchmark,
        unretrievable=unretrievable,
        batch_size=batch_size,
        settings=[*(settings or []), *([pace.TRIAL] if minutes else [])],
        gpus=_gpus(),
        cores=cores,
    )
    if minutes:
        study, cell = pace.write_for(minutes, out, write, cores=cores, overwrite=overwrite)
        typer.echo(f"steps for {minutes:g} minutes: {study.training_settings(cell).max_steps}", err=True)
    else:
        study, cell = write(steps=steps, overwrite=overwrite)
    found = matching(text, out)
    typer.echo(f"{text}: {own_study.counted(found)}", err=True)
    if not _gpus() and study.training_settings(cell).precision == "bf16":
        typer.echo("on the CPU in bfloat16, which it multiplies faster than float32 (training.precision)", err=True)
    config, layout = out / "config.yaml", study.layout
    tables = [layout.table(table, "md") for table in study.config.tables]
    targets = [layout.export(cell), *tables]
    if dry_run:
        jobs = Counter(job.rule for job in workflow.dry_run(targets, str(config)))
        shown = ", ".join(f"{rule} {number}" for rule, number in jobs.items())
        _print(
            {"config": str(config), "jobs": jobs}, f"{config}: {jobs.total()} jobs to do: {shown or 'none'}", as_json
        )
        return
    running.run(config, layout, targets, cores=cores)
    retriever = own_study.link_export(layout, cell)
    log = Path(layout.cell_log(cell)).read_text(encoding="utf-8").splitlines()
    facts = {
        "retriever": str(retriever),
        "config": str(config),
        "files": {"read": len(found.names), "passed_over": len(found.others)},
        "steps": len(log),
        "loss": [json.loads(log[0])["loss"], json.loads(log[-1])["loss"]],
        "tables": tables,
    }
    shown = [Path(table).read_text(encoding="utf-8") for table in tables]
    first, last = facts["loss"]
    shown.append(
        f"{retriever}: {len(log)} steps, loss {first:.3f} -> {last:.3f}; for SentenceTransformer and Retriever"
    )
    _print(facts, "\n".join(shown), as_json)


@app.command(epilog="Example: revela encode my-retriever/retriever notes --kind passage --out notes.npy")
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

    from revela.command.passages import read_passages
    from revela.files import atomic_write, write_json
    from revela.retriever import Retriever

    if out.suffix != ".npy":
        raise typer.BadParameter(f"{out}: the name of a .npy file is expected", param_hint="--out")
    ids = out.with_suffix(".ids.json")
    for written in (out, ids):
        if written.resolve().is_relative_to(text.resolve()):
            raise typer.BadParameter(f"{written} would stand in {text}, the text itself", param_hint="--out")
    found, dtype = read_passages(text, column), dtype_of(precision)
    embeddings = Retriever.load(model, dtype=dtype).encode([one for _, one in found], kind=kind)
    with atomic_write(out) as partial:
        np.save(partial, embeddings)
    write_json(ids, [name for name, _ in found], indent=None)
    say(precision, dtype)
    facts = {"embeddings": str(out), "ids": str(ids), "texts": len(found), "dimensions": embeddings.shape[1]}
    _print(facts, f"{out}: {len(found)} embeddings of {embeddings.shape[1]} dimensions", as_json)


@app.command(epilog="Example: revela search my-retriever/retriever notes 'how to sort a list' --top 3")
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

    from revela.command.passages import read_passages
    from revela.retriever import Retriever

    found, dtype = read_passages(text, column), dtype_of(precision)
    retriever = Retriever.load(model, dtype=dtype)
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
    _print([{"query": q, "passages": a} for q, a in zip(queries, answers, strict=True)], "\n".join(lines), as_json)


@app.command(epilog="Example: revela evaluate my-retriever/retriever my-benchmark --run ranking.run.gz")
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
    _print(found, "\n".join(lines), as_json)


@app.command(epilog="Example: revela export results/tiny/models/revela/code/tiny-4m/tiny-4m/bs16 exported")
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
    _print({"export": str(out), "format": format}, f"{out}: {format}", as_json)


@app.command(epilog="Example: revela push exported owner/name")
def push(
    folder: Annotated[Path, typer.Argument(help="An export.")],
    repository: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub.")],
    public: Annotated[bool, typer.Option(help="Make a new repository public.")] = False,
    as_json: Json = False,
) -> None:
    """Upload an export to the Hugging Face hub, by default to a private repository."""
    from revela.export import hub

    address = hub.push(folder, repository, private=not public)
    _print({"address": address}, address, as_json)


@app.command(epilog="Example: revela reproduce config/tiny.yaml")
def reproduce(
    config: Annotated[str, typer.Argument(help="The configuration.", show_default=False)],
    targets: Annotated[list[str] | None, typer.Argument(help="As for snakemake; by default everything.")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="CPU cores; by default all.")] = None,
) -> None:
    """Make a configuration's tables, figures and report on this machine, and say how to search with what was trained."""
    from rich.console import Console

    from revela.command.reproduce import reproduce, show

    show(reproduce(config, targets or [], cores=cores or len(os.sched_getaffinity(0))), Console())


@app.command(epilog="Example: revela plan results/tables/table1.tex")
def plan(
    targets: Annotated[list[str] | None, typer.Argument(help="As for snakemake; by default everything.")] = None,
    configfile: Annotated[str | None, typer.Option(help="The study; by default the paper's.")] = None,
    whole: Annotated[bool, typer.Option(help="Include what is finished already.")] = False,
    as_json: Json = False,
) -> None:
    """Say what a target costs before anything is spent: jobs, GPU-hours, download, disk, time."""
    from revela.plan.jobs import HEADER, make_plan, show

    found = make_plan(targets or [], configfile, whole=whole)
    facts = {"jobs": [dict(zip(HEADER, row)) for row in found.rows()], **dict(found.facts())}
    _print(facts, show(found), as_json)


@app.command(epilog="Example: revela doctor results/tables/table1.tex")
def doctor(
    targets: Annotated[
        list[str] | None, typer.Argument(help="Targets of which all that they need of the hub is looked at.")
    ] = None,
    configfile: Annotated[
        Path | None, typer.Option(help="The study whose models are asked for; by default the paper's.")
    ] = None,
    network: Annotated[bool, typer.Option(help="Ask the hub about gated models.")] = True,
    as_json: Json = False,
) -> None:
    """Look at Python, torch, GPU, DeepSpeed, disk, hub, licences and SLURM, and say what to do."""
    from revela.command.doctor import examine

    checks = []
    for check in examine(configfile, targets=targets or [], network=network):
        checks.append(check)
        if not as_json:
            typer.echo(f"{check.status:<8} {check.name:<14} {check.found}")
            if check.advice:
                typer.echo(f"{'':<23} -> {check.advice}")
    if as_json:
        _print([check.json() for check in checks], "", as_json)
    if any(check.status == "error" for check in checks):
        raise typer.Exit(1)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        app(args=[argument for argument in arguments if argument != "--debug"], prog_name="revela")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        print(f"error: {_message(error)}", file=sys.stderr)
        return 1
    return 0


def _message(error: Exception) -> str:
    """An error in one line."""
    from safetensors import SafetensorError

    if isinstance(error, OSError) and error.filename:
        return f"{error.filename2 or error.filename}: {error.strerror}"
    message = " ".join(str(error).split()) or type(error).__name__  # libraries use several lines
    if isinstance(error, (RevelaError, OSError, SafetensorError)):
        return message
    return f"{type(error).__name__}: {message} (not foreseen; --debug shows the traceback)"


def entry() -> None:
    """The command `revela`. SIGTERM and SIGHUP stop it and all that it has started, as Ctrl-C does."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.default_int_handler)
    sys.exit(main())


def _print(facts: Any, shown: str, as_json: bool) -> None:
    typer.echo(json.dumps(facts, indent=1) if as_json else shown)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
