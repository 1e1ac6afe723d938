"""What a target costs, before anything is spent: jobs, GPU-hours, download, disk, and how long it takes.

    python -m revela.plan.jobs [TARGET ...] [--tables] [--configfile FILE] [--whole] [--output FOLDER]

Snakemake says which jobs a target needs (a dry run); what each of them costs, `revela.plan.costs`, refined by the benchmark
files of finished jobs: what jobs of the same rule and method took, over what was planned for them, is the factor by
which those to come are corrected. The wall time is that of a simulated schedule: a job starts when its inputs are there
and GPUs are free.
"""

from __future__ import annotations

import argparse
import csv
import functools
import heapq
import html
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from revela.files import atomic_write
from revela.plan.cost import Cost
from revela.plan.costs import Costs
from revela.plan.usage import total
from revela.root import among_own_files
from revela.study.base import ConfigError
from revela.study.layout import Layout
from revela.study.site import Site, load_site
from revela.study.sizes import load_sizes
from revela.study.study import PAPER, Study, load
from revela.workflow import Job, dry_run

# --- what has been measured


@dataclass(frozen=True)
class Finished:
    """What a job took: seconds by the clock, and seconds of all processor cores together."""

    job: Job
    seconds: float
    core_seconds: float


class Measured:
    """How much longer finished jobs took than was planned for them, by kind of job.

    A GPU job is measured by the clock; a job without GPU by the cores' time, which does not depend on what else the
    machine was doing.
    """

    def __init__(self, costs: Costs, finished: Iterable[Finished]):
        sums: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.jobs = 0
        for one in finished:
            cost = costs.of(one.job.rule, one.job.wildcards)
            self.jobs += 1
            for kind in (one.job.kind, one.job.kind[:1]):
                sums[kind][0] += one.seconds if cost.gpus else one.core_seconds / cost.cores
                sums[kind][1] += cost.seconds
        self._factors = {kind: actual / planned for kind, (actual, planned) in sums.items()}

    def factor(self, job: Job) -> float:
        """By which the planned time of a job is to be multiplied."""
        return self._factors.get(job.kind, self._factors.get(job.kind[:1], 1.0))


def finished_jobs(layout: Layout, jobs: Iterable[Job]) -> list[Finished]:
    """Those of the jobs that have a benchmark file, with the times in it.

    Of training the account of all attempts is taken (`revela.plan.usage`): a benchmark file knows the last one only, and of
    the processes that it started what they had used when last seen, up to half a minute before their end.
    """
    found = []
    for job in jobs:
        path = Path(job.benchmark or "")
        if not (job.benchmark and path.is_file()):
            continue
        row = next(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
        seconds = float(row["s"])
        cores = float(row["cpu_time"]) if re.fullmatch(r"[\d.]+", row["cpu_time"]) else seconds
        used = total(layout.usage(job.wildcards["cell"])) if job.rule == "train" else None
        if used and used["cpu_seconds"] is not None:
            cores, seconds = used["cpu_seconds"], used["seconds"]
        found.append(Finished(job, seconds, cores))
    return found


# --- the plan


@dataclass(frozen=True)
class Plan:
    """Jobs and their costs, and what follows from them."""

    jobs: list[tuple[Job, Cost]]
    site: Site
    notes: list[str]
    measured: int  # finished jobs that refined the plan

    def only(self, *targets: str) -> Plan:
        """The part of the plan that some files need."""
        maker = {output: (job, cost) for job, cost in self.jobs for output in job.outputs}
        found, waiting = {}, list(targets)
        while waiting:
            made = maker.get(waiting.pop())
            if made and made[0].outputs not in found:
                found[made[0].outputs] = made
                waiting += made[0].inputs
        return replace(self, jobs=list(found.values()))

    def total(self, what: str) -> float:
        return sum(getattr(cost, what) for _, cost in self.jobs)

    @property
    def node_hours(self) -> float:
        return self.total("gpu_hours") / self.site.gpus_per_node

    @property
    def wall_seconds(self) -> float:
        return schedule(self.jobs, self.site.gpus)

    @property
    def price(self) -> float | None:
        return None if self.site.price is None else self.site.price * self.total("gpu_hours")

    def rows(self) -> list[list]:
        """A line for each rule, and their sum."""
        by_rule: dict[str, list[Cost]] = defaultdict(list)
        for job, cost in self.jobs:
            by_rule[job.rule].append(cost)
        rows = [[rule, *_sums(costs)] for rule, costs in by_rule.items()]
        return [*rows, ["all", *_sums([cost for _, cost in self.jobs])]]

    def facts(self) -> list[tuple[str, str]]:
        """What stands below the table."""
        facts = [
            ("node-hours", f"{self.node_hours:,.0f} of {self.site.gpus_per_node} GPUs"),
            ("wall time", f"{_duration(self.wall_seconds)} with {self.site.gpus} GPUs at a time"),
        ]
        if self.price is not None:
            facts.append(("price", f"{self.price:,.0f} {self.site.currency} at {self.site.price:g} a GPU-hour"))
        facts.append(("refined by", f"{self.measured} finished jobs"))
        return facts

    def line(self) -> list:
        """The whole plan in one line, as `LINE` heads it."""
        trained = sum(job.rule == "train" for job, _ in self.jobs)
        hours = [f"{value:,.0f}" for value in (self.total("gpu_hours"), self.node_hours, self.total("core_hours"))]
        sizes = [f"{self.total(what):,.0f}" for what in ("download", "disk")]
        price = [] if self.price is None else [f"{self.price:,.0f} {self.site.currency}"]
        return [len(self.jobs), trained, *hours, *sizes, _duration(self.wall_seconds), *price]


LINE = ["jobs", "cells", "GPU-hours", "node-hours", "core-hours", "download GB", "disk GB", "wall time", "price"]
HEADER = ["rule", "jobs", "GPU-hours", "core-hours", "longest job", "download GB", "disk GB"]


def make_plan(targets: Iterable[str], configfile: str | None = None, *, whole: bool = False) -> Plan:
    """The plan of targets by their names; none: of everything. ConfigError with one line.

    A study's paths begin in the working directory; those of the paper, which is planned if none is named, in the
    checkout.
    """
    if configfile is None:
        with among_own_files():
            return make_plan(targets, PAPER, whole=whole)
    study, site = load(configfile), load_site()
    costs = Costs(study, load_sizes())
    targets = list(targets)
    needed = dry_run(targets, configfile, whole=whole)
    done = finished_jobs(study.layout, dry_run(targets, configfile, whole=True))
    measured = Measured(costs, done)
    jobs = []
    for job in needed:
        cost = costs.of(job.rule, job.wildcards)
        jobs.append((job, replace(cost, seconds=cost.seconds * measured.factor(job))))
    return Plan(jobs, site, sorted(costs.notes), measured.jobs)


def schedule(jobs: list[tuple[Job, Cost]], gpus: int) -> float:
    """Seconds until the last job ends, with so many GPUs and as many cores as it takes.

    Of the jobs that could start, the one with the longest way to the end goes first.
    """
    maker = {output: index for index, (job, _) in enumerate(jobs) for output in job.outputs}
    needs = [{maker[path] for path in job.inputs if path in maker} for job, _ in jobs]
    users: list[list[int]] = [[] for _ in jobs]
    for index, parents in enumerate(needs):
        for parent in parents:
            users[parent].append(index)

    @functools.cache
    def way(index: int) -> float:
        return jobs[index][1].seconds + max((way(user) for user in users[index]), default=0)

    missing = [len(parents) for parents in needs]
    ready = [(-way(index), index) for index, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now, free = 0.0, gpus
    while ready or running:
        waiting = []
        while ready:
            _, index = item = heapq.heappop(ready)
            wanted = min(jobs[index][1].gpus, gpus)
            if wanted <= free:
                free -= wanted
                heapq.heappush(running, (now + jobs[index][1].seconds, index))
            else:
                waiting.append(item)
        for item in waiting:
            heapq.heappush(ready, item)
        now, index = heapq.heappop(running)
        free += min(jobs[index][1].gpus, gpus)
        for user in users[index]:
            missing[user] -= 1
            if missing[user] == 0:
                heapq.heappush(ready, (-way(user), user))
    return now


def _sums(costs: list[Cost]) -> list:
    def total(what: str) -> float:
        return sum(getattr(cost, what) for cost in costs)

    longest = max((cost.seconds for cost in costs), default=0)
    hours = [f"{total('gpu_hours'):,.1f}", f"{total('core_hours'):,.1f}"]
    return [len(costs), *hours, _duration(longest), f"{total('download'):,.1f}", f"{total('disk'):,.1f}"]


def _duration(seconds: float) -> str:
    """Two units of time, for example `1 d 20 h`."""
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


# --- how it is shown


def show(plan: Plan, tablefmt: str = "simple") -> str:
    """The plan as text."""
    facts = "\n".join(f"{name + ':':12} {value}" for name, value in plan.facts())
    notes = "\n".join(f"assumed:     {note}" for note in plan.notes)
    return "\n\n".join(filter(None, (_table(plan.rows(), HEADER, tablefmt), facts, notes)))


def show_lines(plans: Mapping[str, Plan], tablefmt: str = "simple") -> str:
    """A line for each of several plans."""
    rows = [[target, *plan.line()] for target, plan in plans.items()]
    width = max(map(len, rows), default=1)
    return _table(rows, ["target", *LINE][:width], tablefmt)


def _table(rows: list[list], header: list[str], tablefmt: str) -> str:
    from tabulate import tabulate

    align = ("left", *["right"] * (len(header) - 1))
    return tabulate(rows, header, tablefmt=tablefmt, colalign=align, disable_numparse=True)


def write(plans: Mapping[str, Plan], layout: Layout) -> None:
    """Writes `plan.html`, a table for each target, and `plan.csv`, a line for each job of each."""
    with atomic_write(layout.plan("csv")) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        fields = ["seconds", "gpus", "gpu_hours", "core_hours", "operations", "download", "disk", "memory"]
        writer.writerow(["target", "rule", "job", *fields])
        for target, plan in plans.items():
            for job, cost in plan.jobs:
                writer.writerow([target, job.rule, job.name, *(f"{getattr(cost, field):.6g}" for field in fields)])
    sections = []
    for target, plan in plans.items():
        table = _table(plan.rows(), HEADER, "html")
        lines = [f"{name}: {value}" for name, value in plan.facts()] + [f"assumed: {note}" for note in plan.notes]
        items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        sections.append(f"<h2>{html.escape(target)}</h2>\n{table}\n<ul>{items}</ul>")
    with atomic_write(layout.plan("html")) as partial:
        partial.write_text(_PAGE.format(lines=show_lines(plans, "html"), body="\n".join(sections)), encoding="utf-8")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Plan</title>
<style>
body {{ font: 15px sans-serif; margin: 2em auto; max-width: 60em; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .2em .8em; text-align: right; }}
td:first-child, th:first-child {{ text-align: left !important; }} tr:last-child td {{ border-top: 1px solid; }}
</style></head>
<body><h1>What it costs</h1>
<p>GPU-hours are hours of one GPU; core-hours are of jobs without GPU. A job that several targets need stands under
each of them.</p>
{lines}
{body}
</body></html>
"""


def plan_tables(configfile: str | None = None, *, whole: bool = False) -> dict[str, Plan]:
    """The plan of each table of a study (none: the paper), and of all of them."""
    if configfile is None:
        with among_own_files():
            return plan_tables(PAPER, whole=whole)
    files = table_files(load(configfile))
    return by_table(make_plan(files.values(), configfile, whole=whole), files)


def table_files(study: Study) -> dict[str, str]:
    """name -> a file of each table of a study, also of those that are made on request only."""
    return {name: study.layout.table(name, "tex") for name in study.config.tables}


def by_table(plan: Plan, files: Mapping[str, str]) -> dict[str, Plan]:
    """The parts of a plan that each table needs, and all of them together."""
    return {name: plan.only(file) for name, file in files.items()} | {"all tables": plan.only(*files.values())}


def main(arguments: list[str]) -> int:
    """Prints the plan of targets; with `--output`, writes its pages too. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m revela.plan.jobs", description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", help="as for snakemake; none: everything")
    parser.add_argument("--configfile", help="the study (default: the paper's)")
    parser.add_argument("--whole", action="store_true", help="also what is finished already")
    parser.add_argument("--tables", action="store_true", help="a line for each table of the study")
    parser.add_argument("--format", default="simple", help="of the printed table: simple, github, latex, ...")
    parser.add_argument("--output", help="folder for plan.html and plan.csv")
    options = parser.parse_args(arguments)
    try:
        if options.tables:
            plans = plan_tables(options.configfile, whole=options.whole)
            print(show_lines(plans, options.format))
        else:
            plan = make_plan(options.targets, options.configfile, whole=options.whole)
            plans = {" ".join(options.targets) or "all": plan}
            print(show(plan, options.format))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.output:
        write(plans, Layout(options.output))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
