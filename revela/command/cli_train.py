"""The command that trains a retriever on your own text."""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import cache, partial
from pathlib import Path
from typing import Annotated

import typer

from revela.command.options import Column, Json, Unretrievable, printed
from revela.errors import RevelaError


def train(
    text: Annotated[str, typer.Option(help="Folder of text, a file, or a pattern such as 'notes/**/*.{md,jsonl}'.")],
    backbone: Annotated[
        str, typer.Option(help="Model that becomes the retriever: a folder, owner/name[@revision], or tiny-1m.")
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
    compare: Annotated[
        bool,
        typer.Option(
            "--compare/--no-compare",
            help="Without a benchmark, hold documents out of training, and compare on questions made from them.",
        ),
    ] = True,
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
    from revela.command import comparison, own_study, pace, planned, running
    from revela.command.choices import choices
    from revela.command.report import write_report
    from revela.text.resources import matching

    if steps and minutes:
        raise typer.BadParameter("give --steps or --minutes, not both", param_hint="--minutes")
    if minutes and dry_run:
        raise typer.BadParameter("the pace is measured, which a dry run does not do", param_hint="--minutes")
    cores = cores or len(os.sched_getaffinity(0))
    overwrite = overwrite or (not dry_run and planned.is_only_planned(out))
    found = cache(partial(matching, text, out))  # the files are listed once
    hold_out, said = None, ""
    if compare and not benchmark:
        hold_out, said = comparison.hold_out(found, column, out, own_study.CORPUS, overwrite=overwrite)
    write = partial(
        own_study.write_study,
        text,
        backbone,
        out,
        found=found,
        column=column,
        lm=lm,
        benchmark=benchmark,
        unretrievable=unretrievable,
        hold_out=hold_out,
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
    typer.echo(f"{text}: {own_study.counted(found())}", err=True)
    for line in [*choices(study, cell, cores), *filter(None, [said])]:
        typer.echo(line, err=True)
    config, layout = out / "config.yaml", study.layout
    tables = [layout.table(table, "md") for table in study.config.tables]
    targets = [layout.export(cell), *tables]
    if dry_run:
        planned.record(out)
        jobs = Counter(job.rule for job in workflow.dry_run(targets, str(config)))
        shown = ", ".join(f"{rule} {number}" for rule, number in jobs.items())
        printed(
            {"config": str(config), "jobs": jobs}, f"{config}: {jobs.total()} jobs to do: {shown or 'none'}", as_json
        )
        return
    (out / planned.RECORD).unlink(missing_ok=True)
    running.run(config, layout, targets, cores=cores)
    retriever = own_study.link_export(layout, cell)
    log = Path(layout.cell_log(cell)).read_text(encoding="utf-8").splitlines()
    facts = {
        "retriever": str(retriever),
        "config": str(config),
        "files": {"read": len(found().names), "passed_over": len(found().others)},
        "steps": len(log),
        "loss": [json.loads(log[0])["loss"], json.loads(log[-1])["loss"]],
        "tables": tables,
    }
    shown = [Path(table).read_text(encoding="utf-8") for table in tables]
    if change := comparison.difference(study, cell):
        facts["comparison"] = {**change._asdict(), "helped": change.helped}
        shown.append(f"{change}\n")
        if change.warning:
            typer.echo(change.warning, err=True)
    first, last = facts["loss"]
    shown.append(
        f"{retriever}: {len(log)} steps, loss {first:.3f} -> {last:.3f}; for SentenceTransformer and Retriever"
    )
    try:
        facts["report"] = str(write_report(out))
        shown.append(f"{facts['report']}: curves, answers before and after, cost and settings on one page")
    except RevelaError as error:  # the retriever is whole without it
        typer.echo(f"warning: no report: {error}", err=True)
    printed(facts, "\n".join(shown), as_json)


def report(
    out: Annotated[Path, typer.Argument(help="The folder that `revela train --out` was given.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Write one HTML page: whether training helped, what is found before and after, curves, text, cost and settings."""
    from revela.command.report import write_report

    page = str(write_report(out))
    printed({"report": page}, page, as_json)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
