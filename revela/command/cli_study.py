"""The commands of a whole study: reproduce, plan, doctor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from revela.command.options import Json, printed


def reproduce(
    config: Annotated[str, typer.Argument(help="The configuration.", show_default=False)],
    targets: Annotated[list[str] | None, typer.Argument(help="As for snakemake; by default the target all.")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="CPU cores; by default all.")] = None,
) -> None:
    """Make a configuration's tables, figures and report on this machine, and say how to search with what was trained."""
    from rich.console import Console

    from revela.command.reproduce import reproduce, show

    targets = targets or []
    show(reproduce(config, targets, cores=cores or len(os.sched_getaffinity(0))), targets, Console())


def plan(
    targets: Annotated[list[str] | None, typer.Argument(help="As for snakemake; by default the target all.")] = None,
    configfile: Annotated[str | None, typer.Option(help="The study; by default the paper's.")] = None,
    whole: Annotated[bool, typer.Option(help="Include what is finished already.")] = False,
    as_json: Json = False,
) -> None:
    """Say what a target costs before anything is spent: jobs, GPU-hours, download, disk, time."""
    from revela.plan.jobs import HEADER, make_plan, show

    found = make_plan(targets or [], configfile, whole=whole)
    facts = {"jobs": [dict(zip(HEADER, row)) for row in found.rows()], **dict(found.facts())}
    printed(facts, show(found), as_json)


def doctor(
    targets: Annotated[
        list[str] | None, typer.Argument(help="Targets; all that they need from the hub is checked.")
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
        printed([check.json() for check in checks], "", as_json)
    if any(check.status == "error" for check in checks):
        raise typer.Exit(1)
