"""What a terminal shows while Snakemake is at work: a line for each stage, the jobs that run, and a bar for each training.

Without a terminal, each job is a line.
"""

from __future__ import annotations

import functools
import glob
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from revela.study.layout import LOG

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from revela.study.layout import Layout

REGROUPING = {"chunk_embeddings", "neighbours", "neighbours_bm25", "near_duplicates", "regroup"}
REGROUPING |= {"grouping_report", "grouping_gain", "grouping_report_by"}
# The stages of the chain, what happens in each, and its rules. All other rules belong to the last one.
STAGES = {
    "resources": ("models, text and benchmarks, each with a manifest", {"package", "dataset", "model", "punkt"}),
    "corpus": (
        "text is cut into chunks, chunks are put into batches",
        {"chunks", "apart", "batches", "pairs", "group_sizes", "corpus_report"} | REGROUPING,
    ),
    "training": ("next-token prediction trains the retrievers", {"train", "replug_scores"}),
    "evaluation": (
        "systems rank documents, and rankings get scores",
        {"run", "run_bm25", "run_api", "score", "significance", "anchors_page", "language_model"},
    ),
    "results": ("tables, figures and pages", set()),
}
# How Snakemake announces a job: by its message, or by its rule where that has none. The last of its lines that is told.
JOB = re.compile(rb"Job (\d+): (.+)|(?:local)?rule (\w+):")
NOTE = re.compile(rb"\S+: (memory|tokens|chunks): ")  # what a job tells at once
DONE = re.compile(rb"Finished jobid: (\d+) \(Rule: (\w+)\)")
COUNT = re.compile(rb"(\w+) +(\d+)")
TARGETS = {"all", "everything", "total"}  # no work of their own
WIDEST = 100  # columns that are used
SPEED = 20  # steps over which the speed of a training is taken


def stage_of(rule: str) -> str:
    """The stage that a rule belongs to."""
    return next((stage for stage, (_, rules) in STAGES.items() if rule in rules), "results")


class Progress(NamedTuple):
    """A training that is under way: its log's last lines."""

    cell: str
    step: int
    steps: int | None
    batches_per_step: int
    records: list[dict[str, Any]]

    @property
    def seconds_a_step(self) -> float | None:
        """Over the last steps; None until there are two."""
        first, last = self.records[0], self.records[-1]
        steps = last["step"] - first["step"]
        return (last["elapsed"] - first["elapsed"]) / steps if steps else None


def trainings(layout: Layout) -> Iterator[Progress]:
    """The trainings that are under way or were interrupted."""
    root = layout.checkpoints("")
    for path in sorted(glob.glob(f"{root}**/{LOG}", recursive=True)):
        cell = str(Path(path).parent)[len(root) :]
        try:
            records = _last_records(path)
            job = json.loads(Path(layout.log("train", cell)).with_suffix(".json").read_text(encoding="utf-8"))
            settings = job["training"]
            steps = settings["max_steps"] or _rows(job["data"]) // settings["batches_per_step"]
        except (OSError, ValueError, KeyError):  # it has just begun or ended
            continue
        if records:
            yield Progress(cell, records[-1]["step"], steps, settings["batches_per_step"], records)


def _last_records(path: str) -> list[dict[str, Any]]:
    """The last lines of a log that are whole."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - (1 << 16)))
        lines = file.read().split(b"\n")[:-1]
    return [json.loads(line) for line in lines[-SPEED:]]


@functools.cache
def _rows(path: str) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(path).num_rows


@dataclass
class Display:
    """`with Display(console, layout) as display`, which reads Snakemake's lines and shows where the run stands."""

    console: Console
    layout: Layout
    planned: Counter[str] = field(default_factory=Counter)  # stage -> jobs
    done: Counter[str] = field(default_factory=Counter)
    ended: dict[str, float] = field(default_factory=dict)  # stage -> when its last job was done
    jobs: dict[bytes, str] = field(default_factory=dict)  # that run: id -> message

    def __enter__(self) -> Self:
        from rich.live import Live

        self.started, self.counting = time.monotonic(), False
        self.live = None
        if self.console.is_terminal:
            self.live = Live(get_renderable=self.shown, console=self.console, refresh_per_second=4)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.jobs.clear()
            self.live.stop()

    def read(self, line: bytes) -> None:
        """Takes notice of a line of Snakemake's."""
        if line.startswith(b"Job stats:"):
            self.counting = True
        elif self.counting and (found := COUNT.fullmatch(line.strip())):
            if (rule := found[1].decode()) not in TARGETS:
                self.planned[stage_of(rule)] += int(found[2])
        elif self.counting and not line.strip():
            self.counting = False
        elif found := DONE.match(line):
            rule = found[2].decode()
            self.jobs.pop(found[1], None)
            if rule not in TARGETS:
                self.done[stage_of(rule)] += 1
                self.ended[stage_of(rule)] = time.monotonic()
        elif found := JOB.match(line):
            job = (found[2] or found[3]).decode(errors="replace")
            if found[1]:
                self.jobs[found[1]] = job
            if not self.console.is_terminal:
                self.console.print(job, markup=False, soft_wrap=True)
        elif NOTE.match(line):
            self.console.print(line.decode(errors="replace"), markup=False, highlight=False, soft_wrap=True)

    def shown(self) -> RenderableType:
        """All of it, at the width of the terminal."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        width = min(WIDEST, self.console.width)
        running = [one for one in trainings(self.layout) if f"Training {one.cell}" in self.jobs.values()]
        stages = Table.grid(padding=(0, 1), expand=True)
        stages.width = width
        for options in (
            {"width": 1},
            {"width": 10},
            {"justify": "right", "no_wrap": True},
            {"ratio": 1, "no_wrap": True},
            {"justify": "right", "width": 7},
        ):
            stages.add_column(**options)
        for stage, (what, _) in STAGES.items():
            planned, done = self.planned[stage], self.done[stage]
            if not planned:
                continue
            style, mark, when = "", "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}", ""
            if done >= planned:
                style, mark = "green", "\N{CHECK MARK}"
                when = clock(self.ended[stage] - self.started)
            elif not done and not (stage == "training" and running):
                style, mark = "dim", "\N{MIDDLE DOT}"
            stages.add_row(
                Text(mark, style), Text(stage, style), Text(f"{done}/{planned}", "dim"), what, Text(when, "dim")
            )
        parts: list[RenderableType] = [stages]
        for job in list(self.jobs.values()):
            parts.append(Text(f"  {job}", "cyan", no_wrap=True, overflow="ellipsis"))
            parts += [bar(one, width) for one in running if job == f"Training {one.cell}"]
        return Group(*parts)


def bar(one: Progress, width: int) -> RenderableType:
    """A training in one line: bar, batches, speed, what it learns, time left."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    facts = [f"{one.step * one.batches_per_step}/{one.steps * one.batches_per_step} batches" if one.steps else ""]
    if seconds := one.seconds_a_step:
        facts.append(f"{one.batches_per_step / seconds:.1f}/s")
    facts.append(learned(one.records, uniform=width >= WIDEST))
    if seconds and one.steps:
        facts.append(f"{clock(seconds * (one.steps - one.step))} left")
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.width = width
    grid.add_column(width=2)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True)
    grid.add_row(
        "", ProgressBar(total=one.steps, completed=one.step), Text(" \N{MIDDLE DOT} ".join(filter(None, facts)))
    )
    return grid


def learned(records: list[dict[str, Any]], *, uniform: bool = False) -> str:
    """The mean of the last steps: where Sim puts its weight, or the loss of a method without Sim.

    uniform: say also how much weight a uniform Sim would put there.

    >>> learned([{"loss": 3.5, "same_document": 0.3}, {"loss": 3.4, "same_document": 0.5}])
    'same document 40 %'
    >>> learned([{"loss": 3.5}])
    'loss 3.50'
    """

    def mean(name: str) -> float:
        return sum(record[name] for record in records) / len(records)

    if "same_document" not in records[-1]:
        return f"loss {mean('loss'):.2f}"
    said = f"same document {100 * mean('same_document'):.0f} %"
    return f"{said} (uniform {100 * mean('same_document_uniform'):.0f} %)" if uniform else said


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any.

    >>> clock(75.4), clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
