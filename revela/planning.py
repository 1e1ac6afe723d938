"""What a target costs, before anything is spent: jobs, GPU-hours, download, disk, and how long it takes.

    python -m revela.planning [TARGET ...] [--tables] [--configfile FILE] [--whole] [--output FOLDER]

Snakemake says which jobs a target needs (a dry run); what each job does follows from the configuration and from
`config/sizes.yaml`; what the training of a cell computes, from the formulas of `revela.flops`. Time is

    seconds = start + operations / (GPUs * peak of the device * MFU)

or, for work without matrix products, bytes / rate. Both are refined by the benchmark files of finished jobs: what
jobs of the same rule and method took, over what was planned for them, is the factor by which those to come are
corrected. The wall time is that of a simulated schedule: a job starts when its inputs are there and GPUs are free.

The Snakefile asks the same figures for memory and time limits, so only light modules are imported here.
"""

from __future__ import annotations

import argparse
import csv
import functools
import heapq
import html
import json
import math
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from revela import flops
from revela.config import Cell, ConfigError, Model, Site, Sizes, Study, TaskSize, load, load_site, load_sizes
from revela.provenance import PACKAGE, atomic_write
from revela.usage import total

SIZES = str(PACKAGE.parent / "config/sizes.yaml")  # of the checkout, wherever a study's own files are
SITE = str(PACKAGE.parent / "workflow/profiles/slurm/site.yaml")

# Assumed until measured. Rates are of one core, in bytes a second, unless they say otherwise.
START = 20.0  # seconds until a job that imports torch begins its work
LIGHT = 5.0  # seconds of a job that reads and writes small files
NETWORK = 50e6  # bytes a second of a download
SENTENCES = 1e6  # text split into sentences and chunks
ROWS = 20e6  # text read from one parquet file and written to another
SPANS = 5e6  # text from which pairs are cut
WORDS = 1.5e6  # text tokenized, stemmed and indexed for BM25
LOOKUPS = 1e8  # documents scored a second for one BM25 query
RANKED = 1e5  # lines of a run read and scored a second

TOKENS_PER_WORD = 1.5  # of English and code, in the paper's tokenizers
FULL = 0.85  # share of a chunk's words that complete sentences fill
CHARS_PER_TOKEN = 3.8
CHARS_PER_WORD = 6.0
BYTES = {"bf16": 2, "fp32": 4}
RUN_LINE = 20.0  # bytes, compressed
GB = 1e9
SLACK = 1.5  # of a time limit over the time planned


@dataclass(frozen=True)
class Cost:
    """What one job costs."""

    seconds: float = LIGHT
    gpus: int = 0
    cores: int = 1
    operations: float = 0.0  # of matrix products
    download: float = 0.0  # GB
    disk: float = 0.0  # GB that stay
    memory: float = 2.0  # GB of the host

    @property
    def gpu_hours(self) -> float:
        return self.gpus * self.seconds / 3600

    @property
    def core_hours(self) -> float:
        """Of jobs without GPU."""
        return 0.0 if self.gpus else self.cores * self.seconds / 3600


@dataclass(frozen=True)
class Job:
    """A job that Snakemake would run."""

    rule: str
    wildcards: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    benchmark: str | None = None

    @property
    def name(self) -> str:
        return "/".join(self.wildcards.values()) or self.rule

    @property
    def kind(self) -> tuple[str, str]:
        """Jobs of one kind are measured by each other: of the same rule, and for cells of the same method."""
        cell = self.wildcards.get("cell", "")
        return self.rule, cell.split("/")[0]


class Costs:
    """Costs of the jobs of a study. `notes` collects what had to be assumed."""

    def __init__(self, study: Study, sizes: Sizes):
        self.study, self.sizes, self.notes = study, sizes, set()
        self.compute, self.results = study.config.compute, Path(study.config.results)

    def of(self, rule: str, wildcards: Mapping[str, str]) -> Cost:
        """Of a job, before anything has been measured."""
        method = getattr(self, f"_{rule}", None)
        return method(**wildcards) if method else Cost()

    def memory_mb(self, rule: str, wildcards: Mapping[str, str], attempt: int) -> int:
        """Host memory to ask for: half as much again with each attempt, twice as much at most."""
        given = getattr(self.compute, f"{_SECTION.get(rule, 'data')}_mem_mb")
        planned = 1000 * math.ceil(self.of(rule, wildcards).memory)
        return int((given or planned) * min(2.0, 1 + 0.5 * (attempt - 1)))

    def minutes(self, rule: str, wildcards: Mapping[str, str], attempt: int, longest: int | None = None) -> int:
        """Time limit to ask for: as much again with each attempt, and at most what the site allows.

        A training run that does not fit goes on from its checkpoint in the next job.
        """
        given = getattr(self.compute, f"{_SECTION.get(rule, 'data')}_runtime")
        planned = 10 * math.ceil(SLACK * self.of(rule, wildcards).seconds / 600)
        minutes = (given or max(30, planned)) * attempt
        return min(minutes, longest) if longest else minutes

    # --- one method a rule

    def _dataset(self, dataset: str) -> Cost:
        source = self.study.config.datasets[dataset]
        size = 0.0 if source.path or source.files else self.sizes.datasets.get(dataset)
        if source.installed:
            return Cost(seconds=LIGHT, disk=0.02)
        if size is None:
            size = 0.1
            if not dataset.startswith("beir-"):
                self.notes.add(f"dataset {dataset}: 0.1 GB assumed")
        return Cost(seconds=LIGHT + size * GB / NETWORK, download=size, disk=size)

    def _model(self, model: str) -> Cost:
        row = self.study.models[model]
        size = 0.0 if row.source.startswith("path:") else 2 * self.parameters(row) / GB
        return Cost(seconds=LIGHT + size * GB / NETWORK, download=size, disk=size)

    def _punkt(self) -> Cost:
        return Cost(download=0.01 if self.study.config.chunking.punkt == "nltk" else 0)

    def _chunks(self, corpus: str) -> Cost:
        raw = sum(self._dataset(source.dataset).disk for source in self.study.config.corpora[corpus].sources) * GB
        cores = self.compute.data_threads
        return Cost(
            seconds=LIGHT + raw / (SENTENCES * cores), cores=cores, disk=0.5 * raw / GB, memory=8 + 0.1 * raw / GB
        )

    def _batches(self, corpus: str, batch_size: str) -> Cost:
        text = self.batches(corpus) * int(batch_size) * self.chunk_bytes
        return Cost(seconds=LIGHT + text / ROWS, disk=0.5 * text / GB, memory=4 + 4 * text / GB)

    def _pairs(self, corpus: str, batch_size: str) -> Cost:
        text = self.batches(corpus) * int(batch_size) * self.chunk_bytes
        written = self.pairs(corpus) * int(batch_size) * 0.3 * self.chunk_bytes
        return Cost(seconds=LIGHT + text / SPANS, disk=0.5 * written / GB, memory=4 + 4 * text / GB)

    def _replug_scores(self, corpus: str, batch_size: str, lm: str, scoring: str) -> Cost:
        settings = self.study.training_settings(Cell("replug", corpus, lm, lm, batch_size))
        size, shape = int(batch_size), self.shape(lm)
        lengths = [self.chunk_tokens(settings.lm_max_length)] * size
        operations = self.batches(corpus) * flops.replug_scores(shape, lengths)
        return replace(
            self._encoding(operations),
            disk=self.batches(corpus) * size * size * 4 / GB,
            memory=8 + 2 * BYTES[settings.precision] * self.parameters(self.study.models[lm]) / GB,
        )

    def _train(self, cell: str) -> Cost:
        parts = Cell.parse(cell)
        settings = self.study.training_settings(parts)
        models = [parts.retriever] + ([parts.lm] if parts.method == "revela" else [])
        shapes = [self.shape(name) for name in models]
        rows = self.pairs(parts.corpus) if parts.method == "contriever" else self.batches(parts.corpus)
        seen = (settings.max_steps or rows // settings.batches_per_step) * settings.batches_per_step
        operations = seen * flops.training(
            parts.method, settings, shapes[0], shapes[-1], self.lengths(parts, settings.first_half)
        )
        gpus, cores = self.compute.training_gpus, self.compute.training_threads
        speed = self.peak(gpus, self.compute.training_mfu) if gpus else self.compute.core_flops * cores
        parameters = [self.parameters(self.study.models[name]) for name in models]
        if settings.lora:
            trained = sum(shape.adapter_weights(settings.lora) for shape in shapes)
        else:
            trained = parameters[0] if settings.freeze_lm else sum(parameters)
        weights = BYTES[settings.precision] * sum(parameters) + 4 * trained
        processes = gpus or self.compute.training_processes
        text = rows * parts.batch_size * self.chunk_bytes
        # Each process reads the text and, one after the other, the weights; the optimizer's state is saved in parts.
        memory = processes * (6 + (weights + text) / GB) + 12 * trained / GB
        return Cost(
            seconds=START + operations / speed,
            gpus=gpus,
            cores=cores,
            operations=operations,
            disk=4 * trained / GB,
            memory=memory,
        )

    def _run(self, system: str, benchmark: str, task: str) -> Cost:
        size, evaluation = self.task(benchmark, task), self.study.config.evaluation
        if system.count("/") == 4:
            name = Cell.parse(system).retriever
        else:
            name = system.removeprefix("untrained/")
        row = self.study.models[name]
        longest = row.max_length or evaluation.max_length
        texts = [(size.documents, size.document_chars), (size.queries, size.query_chars)]
        lengths = [(number, min(longest, chars / CHARS_PER_TOKEN + 3)) for number, chars in texts]
        if row.kind == "backbone":
            shape = self.shape(name)
            operations = sum(number * flops.forward(shape, [length]) for number, length in lengths)
            hidden = shape.hidden
        else:
            operations = sum(2 * self.parameters(row) * number * length for number, length in lengths)
            hidden = 1024
        operations += 2 * size.documents * size.queries * hidden
        text = size.documents * size.document_chars
        return replace(
            self._encoding(operations),
            disk=size.queries * min(evaluation.top_k, size.documents) * RUN_LINE / GB,
            memory=8 + (2 * text + 200 * size.documents + 4 * self.parameters(row)) / GB,
        )

    def _run_bm25(self, system: str, benchmark: str, task: str) -> Cost:
        size = self.task(benchmark, task)
        text = size.documents * size.document_chars
        return Cost(
            seconds=LIGHT + text / WORDS + size.queries * size.documents / LOOKUPS,
            cores=self.compute.evaluation_threads,
            disk=size.queries * min(self.study.config.evaluation.top_k, size.documents) * RUN_LINE / GB,
            memory=4 + 10 * text / GB,
        )

    def _score(self, system: str, benchmark: str) -> Cost:
        sizes = [self.task(benchmark, task.task) for task in self.study.benchmark_tasks(benchmark)]
        lines = sum(size.queries * min(self.study.config.evaluation.top_k, size.documents) for size in sizes)
        return Cost(seconds=LIGHT + lines / RANKED, memory=4 + 500 * lines / GB)

    def _language_model(self, system: str) -> Cost:
        lm = Cell.parse(system).lm if system.count("/") == 4 else system.removeprefix("untrained/")
        evaluation = self.study.config.lm_evaluation
        answers = 3 * len(evaluation.tasks) * (evaluation.limit or 2000)  # each example has two to five
        operations = answers * flops.forward(self.shape(lm), [100])
        return replace(self._encoding(operations), memory=8 + 4 * self.parameters(self.study.models[lm]) / GB)

    def _cost(self, cell: str) -> Cost:
        parts = Cell.parse(cell)
        weights = sum(self.parameters(self.study.models[name]) for name in (parts.retriever, parts.lm))
        return replace(self._encoding(0), memory=8 + 4 * weights / GB)

    def _backbone(self, backbone: str) -> Cost:
        return Cost(seconds=3600, cores=self.compute.data_threads, disk=0.02, memory=4)

    # --- sizes

    def shape(self, name: str) -> flops.Shape:
        """Of a decoder: of its config.json where that is on this machine, else as config/sizes.yaml says."""
        path = self.folder(name) / "config.json"
        if path.is_file():
            return _read_shape(path)
        size = self.sizes.models.get(name)
        if size is None:
            row = self.study.models[name]
            known = self.sizes.models
            name = min(known, key=lambda other: abs(math.log(known[other].parameters * GB / self.parameters(row))))
            self.notes.add(f"model {row.name}: a shape like that of {name} assumed")
            size = known[name]
        return flops.Shape(**size.model_dump(exclude={"parameters"}))

    def parameters(self, model: Model) -> float:
        """Of a model, embeddings included."""
        if model.kind == "backbone" and (self.folder(model.name) / "config.json").is_file():
            shape = self.shape(model.name)
            return shape.weights + shape.hidden * shape.vocabulary
        size = self.sizes.models.get(model.name)
        if size:
            return size.parameters * GB
        number = re.fullmatch(r"([\d.]+)([MB])", model.size)
        if number:
            return float(number[1]) * {"M": 1e6, "B": 1e9}[number[2]]
        self.notes.add(f"model {model.name}: 1B parameters assumed; its row in {self.study.config.models} has no size")
        return GB

    def folder(self, model: str) -> Path:
        """Where a model's files are, or will be."""
        source = self.study.models[model].source
        return (
            Path(source.removeprefix("path:"))
            if source.startswith("path:")
            else self.results / "resources/models" / model
        )

    def task(self, benchmark: str, task: str) -> TaskSize:
        """Documents and queries of a task."""
        known = self.sizes.tasks.get(f"{benchmark}/{task}")
        if known:
            return known
        dataset = self.study.config.datasets[self.study.task(benchmark, task).dataset]
        if dataset.installed:
            return TaskSize(documents=dataset.documents, queries=dataset.queries, document_chars=600, query_chars=100)
        self.notes.add(f"task {benchmark}/{task}: 100,000 documents of 600 characters and 1,000 queries assumed")
        return TaskSize(documents=100_000, queries=1000, document_chars=600, query_chars=100)

    def batches(self, corpus: str) -> int:
        """Batches of a corpus."""
        spec = self.study.config.corpora[corpus]
        if spec.mix:
            return sum(spec.mix.values())
        if spec.batches:
            return spec.batches
        for path in sorted(self.results.glob(f"corpora/{corpus}/bs*/batches.json")):
            return json.loads(path.read_text(encoding="utf-8"))["batches"]
        self.notes.add(f"corpus {corpus}: 320,000 batches assumed")
        return 320_000

    def pairs(self, corpus: str) -> int:
        return self.study.config.corpora[corpus].pairs or self.batches(corpus)

    def chunk_tokens(self, longest: int) -> float:
        return min(longest, TOKENS_PER_WORD * FULL * self.study.config.chunking.max_words)

    @property
    def chunk_bytes(self) -> float:
        return CHARS_PER_WORD * FULL * self.study.config.chunking.max_words

    def lengths(self, cell: Cell, first_half: bool) -> dict[str, list[float]]:
        """Tokens of each text in a row of the training file, by the part that it plays."""
        settings = self.study.training_settings(cell)
        passage, document = (
            self.chunk_tokens(longest) for longest in (settings.retriever_max_length, settings.lm_max_length)
        )
        if cell.method == "contriever":
            crop_ratio = self.study.config.corpora[cell.corpus].crop_ratio
            share = (1 + sum(crop_ratio) / 2) / 2  # half are spans, half nearly whole chunks
            return {"query": [share * passage / 2], "passage": [share * passage] * cell.batch_size, "lm": []}
        query = passage / 2 if first_half else passage
        size = cell.batch_size
        return {"query": [query] * size, "passage": [passage] * size, "lm": [document] * size}

    # --- speed

    def peak(self, gpus: int, mfu: float) -> float:
        """Operations a second that so many GPUs reach; ConfigError for a device of which no peak is known."""
        peak = flops.peak(self.compute.device)
        if peak is None:
            raise ConfigError(f"compute.device: unknown {self.compute.device!r}; valid: {', '.join(flops.PEAK)}")
        return gpus * peak * mfu

    def _encoding(self, operations: float) -> Cost:
        gpus, cores = self.compute.evaluation_gpus, self.compute.evaluation_threads
        speed = self.peak(gpus, self.compute.encoding_mfu) if gpus else self.compute.core_flops * cores
        return Cost(seconds=START + operations / speed, gpus=gpus, cores=cores, operations=operations)


_SECTION = {"train": "training", "run": "evaluation", "run_bm25": "evaluation", "score": "evaluation"}
_SECTION |= {"replug_scores": "evaluation", "language_model": "evaluation", "cost": "evaluation"}


@functools.cache
def _read_shape(path: Path) -> flops.Shape:
    return flops.Shape.from_config(json.loads(path.read_text(encoding="utf-8")))


# --- which jobs


def dry_run(targets: Iterable[str], configfile: str, *, whole: bool = False) -> list[Job]:
    """The jobs that Snakemake would run for targets, or all that they ever needed. ConfigError if it refuses."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--nolock", *targets, "--configfile", configfile]
    done = subprocess.run(command + ["--forceall"] * whole, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError((done.stdout + done.stderr).strip().splitlines()[-1])
    return parse_jobs(done.stdout)


def parse_jobs(printed: str) -> list[Job]:
    """The jobs of what a dry run prints."""
    jobs = []
    for block in re.split(r"^\[\w{3} \w{3} .*\]$", printed, flags=re.MULTILINE)[1:]:
        named = re.search(r"^(?:local)?rule (\w+):$", block, re.MULTILINE)
        if not named:
            continue
        facts = dict(re.findall(r"^    ([a-z]+): (.*)$", block, re.MULTILINE))
        files = {key: tuple(filter(None, facts.get(key, "").split(", "))) for key in ("input", "output")}
        wildcards = dict(pair.split("=", 1) for pair in facts["wildcards"].split(", ")) if "wildcards" in facts else {}
        if files["output"]:  # targets without a file of their own cost nothing
            jobs.append(Job(named[1], wildcards, files["input"], files["output"], facts.get("benchmark")))
    return jobs


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


def finished_jobs(results: str | Path, jobs: Iterable[Job]) -> list[Finished]:
    """Those of the jobs that have a benchmark file, with the times in it.

    Of training the account of all attempts is taken (`revela.usage`): a benchmark file knows the last one only, and of
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
        used = total(Path(results) / "usage" / job.wildcards["cell"]) if job.rule == "train" else None
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


def make_plan(targets: Iterable[str], configfile: str, *, whole: bool = False) -> Plan:
    """The plan of targets by their names; none: of everything. ConfigError with one line."""
    study, site = load(configfile), load_site(SITE)
    costs = Costs(study, load_sizes(SIZES))
    targets = list(targets)
    needed = dry_run(targets, configfile, whole=whole)
    done = finished_jobs(study.config.results, dry_run(targets, configfile, whole=True))
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


def write(plans: Mapping[str, Plan], folder: str | Path) -> None:
    """Writes `plan.html`, a table for each target, and `plan.csv`, a line for each job of each."""
    folder = Path(folder)
    with atomic_write(folder / "plan.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
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
    with atomic_write(folder / "plan.html") as partial:
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


def plan_tables(configfile: str, *, whole: bool = False) -> dict[str, Plan]:
    """The plan of each table of a study, and of all of them."""
    files = table_files(load(configfile))
    return by_table(make_plan(files.values(), configfile, whole=whole), files)


def table_files(study: Study) -> dict[str, str]:
    """name -> a file of each table of a study, also of those that are made on request only."""
    return {name: f"{study.config.results}/tables/{name}.tex" for name in study.config.tables}


def by_table(plan: Plan, files: Mapping[str, str]) -> dict[str, Plan]:
    """The parts of a plan that each table needs, and all of them together."""
    return {name: plan.only(file) for name, file in files.items()} | {"all tables": plan.only(*files.values())}


def main(arguments: list[str]) -> int:
    """Prints the plan of targets; with `--output`, writes its pages too. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m revela.planning", description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", help="as for snakemake; none: everything")
    parser.add_argument("--configfile", default="config/config.yaml", help="the study (default: the paper's)")
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
        write(plans, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
