"""What one job costs before it runs: time, GPUs, memory, download and disk.

What a job does follows from the configuration and from `config/sizes.yaml`; what the training of a cell computes, from
the formulas of `revela.plan.flops`. Time is

    seconds = start + operations / (GPUs * peak of the device * MFU)

or, for work without matrix products, bytes / rate.

The Snakefile asks these figures for memory and time limits, so only light modules are imported here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from revela.plan import encoding, flops, grouping, memory, traffic
from revela.plan.cost import LIGHT, Cost
from revela.plan.fit import SURE, Load
from revela.plan.flops import BYTES
from revela.study.cell import Cell
from revela.study.sheets import Model
from revela.study.sizes import Sizes, TaskSize
from revela.study.source import PackageSource, PathSource
from revela.study.specification import ReplugScoreSpec
from revela.study.study import Study

# Assumed until measured. Rates are of one core, in bytes a second, unless they say otherwise.
START = 20.0  # seconds until a job that imports torch begins its work
NETWORK = 50e6  # bytes a second of a download
WITHIN = 100e9  # bytes a second that come to a GPU from others of its node
BETWEEN = 10e9  # likewise from another node
SENTENCES = 1e6  # text split into sentences and chunks
ROWS = 20e6  # text read from one parquet file and written to another
SPANS = 5e6  # text from which pairs are cut
WORDS = 1.5e6  # text tokenized, stemmed and indexed for BM25
LOOKUPS = 1e8  # documents scored a second for one BM25 query
RANKED = 1e5  # lines of a run read and scored a second

TOKENS_PER_WORD = 1.5  # of English and code, in the paper's tokenizers
FULL = 0.85  # share of a chunk's words that complete sentences fill
CHARS_PER_WORD = 6.0
RUN_LINE = 20.0  # bytes, compressed
GB = 1e9
SLACK = 1.5  # of a time limit over the time planned


class Costs:
    """Costs of the jobs of a study. `notes` collects what had to be assumed."""

    def __init__(self, study: Study, sizes: Sizes):
        self.study, self.sizes, self.notes = study, sizes, set()
        self.compute, self.layout = study.config.compute, study.layout

    def of(self, rule: str, wildcards: Mapping[str, str]) -> Cost:
        """Of a job, before anything has been measured."""
        if rule in grouping.RULES:
            return grouping.RULES[rule](self, **wildcards)
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
        size = 0.0 if source.path or source.files or source.held_out_of else self.sizes.datasets.get(dataset)
        if source.installed or source.package:
            return Cost(seconds=LIGHT, disk=0.02)
        if size is None:
            size = 0.1
            if not dataset.startswith("beir-"):
                self.notes.add(f"dataset {dataset}: 0.1 GB assumed")
        return Cost(seconds=LIGHT + size * GB / NETWORK, download=size, disk=size)

    def _package(self, package: str) -> Cost:
        size = self.sizes.packages.get(package, 0.01)
        return Cost(seconds=LIGHT + size * GB / NETWORK, download=size, disk=size)

    def _model(self, model: str) -> Cost:
        row = self.study.models[model]
        if isinstance(row.origin, PackageSource):
            return Cost(seconds=START, disk=2 * self.parameters(row) / GB, memory=4)
        size = 0.0 if isinstance(row.origin, PathSource) else 2 * self.parameters(row) / GB
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
        spec, size = ReplugScoreSpec.parse(scoring), int(batch_size)
        lengths, batches = [self.chunk_tokens(spec.lm_max_length)] * size, self.batches(corpus)
        scored, gpus = min(batches, spec.positions or batches), self.compute.scorers
        operations = scored * flops.replug_scores(self.shape(lm), lengths)
        return replace(
            self.forward_pass(
                operations, self.width(lm) * scored * (1 + size) * sum(lengths), spec.precision, gpus=gpus
            ),
            disk=batches * size * size * 4 / GB,
            memory=8 + 2 * max(1, gpus) * BYTES[spec.precision] * self.parameters(self.study.models[lm]) / GB,
        )

    def _train(self, cell: str) -> Cost:
        parts = Cell.parse(cell)
        settings = self.study.training_settings(parts)
        models = [parts.retriever] + ([parts.lm] if parts.needs.lm == "beside" else [])
        shapes = [self.shape(name) for name in models]
        rows = self.pairs(parts.corpus) if parts.needs.data == "pairs" else self.batches(parts.corpus)
        seen = (settings.max_steps or rows // settings.batches_per_step) * settings.batches_per_step
        count = parts.needs.load_operations()
        lengths = self.lengths(parts, settings.first_half)
        operations = seen * count(settings, shapes[0], shapes[-1], lengths)
        gpus, nodes = self.compute.training_gpus, self.compute.training_nodes
        cores = self.compute.training_threads * nodes
        speed = self.peak(gpus, self.compute.training_mfu) if gpus else self.compute.core_flops * cores
        groups = self.compute.processes // settings.processes_per_batch
        beside = shapes[1] if len(shapes) == 2 else None
        need, recomputes = self.need(cell)
        coming = traffic.received(settings, shapes[0], beside, lengths, checkpointing=recomputes) * seen / groups
        exchange = coming / (WITHIN if settings.processes_per_batch * nodes <= self.compute.processes else BETWEEN)
        parameters = [self.parameters(self.study.models[name]) for name in models]
        if settings.lora:
            trained = sum(shape.adapter_weights(settings.lora) for shape in shapes)
        else:
            trained = parameters[0] if settings.freeze_lm else sum(parameters)
        weights = BYTES[settings.precision] * sum(parameters) + 4 * trained
        processes = self.compute.processes / nodes  # on each, whose memory it is
        text = rows * parts.batch_size * self.chunk_bytes
        # Each process reads the text and, one after the other, the weights; the optimizer's state is saved in parts.
        host = processes * (6 + (weights + text) / GB) + 12 * trained / GB
        if not gpus:
            host = max(host, processes * (need + text) / GB)
        return Cost(
            seconds=START + operations / speed + exchange,
            gpus=gpus,
            cores=cores,
            operations=operations,
            disk=4 * trained / GB,
            memory=host,
        )

    def load(self, cell: str) -> Load:
        """What the memory of a cell's training follows from, for chunks as long as they may be."""
        parts = Cell.parse(cell)
        settings = self.study.training_settings(parts)
        models = [parts.retriever] + ([parts.lm] if parts.needs.lm == "beside" else [])
        gpus, size = self.compute.training_gpus, parts.batch_size
        queries = 1 if parts.needs.data == "pairs" else size
        return Load(
            settings,
            [self.shape(name) for name in models],
            size,
            gpus or self.compute.training_processes,
            gpu=bool(gpus),
            least_batch=parts.needs.least_batch,
            tokens=((queries + size) * settings.retriever_max_length, size * settings.lm_max_length),
        )

    def need(self, cell: str) -> tuple[float, bool]:
        """Bytes that a process of a cell's training holds, and whether it recomputes activations.

        What a GPU of the plan has not is noted.
        """
        load = self.load(cell)
        plain, spared = (load.need(checkpointing=way) for way in (False, True))
        there = memory.DEVICE.get(self.compute.device, math.inf) * GB if load.gpu else math.inf
        if self.compute.gradient_checkpointing is None and SURE * plain > there:
            fits = "gradient checkpointing will be on" if spared <= there else "it will not fit"
            self.notes.add(
                f"train {cell}: {plain / GB:.0f} GB of a GPU that has {there / GB:.0f}, {spared / GB:.0f} with gradient "
                f"checkpointing: {fits}"
            )
            return spared, True
        recomputes = bool(self.compute.gradient_checkpointing)
        return spared if recomputes else plain, recomputes

    def _run(self, system: str, benchmark: str, task: str) -> Cost:
        size, encoder = self.task(benchmark, task), self.study.system(system)
        row = self.study.models[name := encoder.models[-1]]
        precision = encoding.precision_of(encoder, row.kind, self.parameters(row), self.folder(name))
        lengths = encoding.lengths(size, self.study.task(benchmark, task).layout, encoder.max_length)
        operations, hidden = self.read(name, lengths)
        operations += 2 * size.documents * size.queries * hidden
        tokens = sum(number * length for number, length in lengths)
        alone = self.forward_pass(operations, self.width(name) * tokens, precision)
        gpus, share = encoding.gpus_and_share(self.compute, size.documents, alone.seconds)
        processes = gpus or self.compute.evaluation_processes
        memory = 8 + (2 * size.documents * size.document_chars + 200 * size.documents + 4 * self.parameters(row)) / GB
        if processes > 1:
            weights = BYTES[precision] * self.parameters(row)
            memory += processes * encoding.process_memory(self.compute, size, weights, hidden) / GB
        return replace(
            alone,
            seconds=START + share * (alone.seconds - START),
            gpus=gpus,
            disk=size.queries * min(self.study.config.evaluation.top_k, size.documents) * RUN_LINE / GB,
            memory=memory,
        )

    def _run_bm25(self, system: str, benchmark: str, task: str) -> Cost:
        size = self.task(benchmark, task)
        text = size.documents * size.document_chars
        return Cost(
            seconds=LIGHT + text / WORDS + size.queries * size.documents / LOOKUPS,
            disk=size.queries * min(self.study.config.evaluation.top_k, size.documents) * RUN_LINE / GB,
            memory=4 + 10 * text / GB,
        )

    def _score(self, system: str, benchmark: str) -> Cost:
        sizes = [self.task(benchmark, task.task) for task in self.study.benchmark_tasks(benchmark)]
        lines = sum(size.queries * min(self.study.config.evaluation.top_k, size.documents) for size in sizes)
        # Runs are read a query at a time; what is held are the ids of a task's documents and each query's scores.
        held = 300 * max(size.documents for size in sizes) + 2000 * sum(size.queries for size in sizes)
        return Cost(seconds=LIGHT + lines / RANKED, memory=4 + held / GB)

    def _language_model(self, system: str) -> Cost:
        found = self.study.system(system)
        lm = found.cell.lm if found.kind == "trained" else found.models[0]
        evaluation = self.study.config.lm_evaluation
        answers = 3 * len(evaluation.tasks) * (evaluation.limit or 2000)  # each example has two to five
        operations = answers * flops.forward(self.shape(lm), [100])
        cost = self.forward_pass(operations, self.width(lm) * 100 * answers)
        return replace(cost, memory=8 + 4 * self.parameters(self.study.models[lm]) / GB)

    def _export(self, cell: str) -> Cost:
        parameters = self.parameters(self.study.models[Cell.parse(cell).retriever])
        weights = BYTES["fp32"] * parameters / GB
        return Cost(seconds=START + 2 * weights * GB / NETWORK, disk=weights, memory=4 + 2 * weights)

    def _timing(self, cell: str) -> Cost:
        parts = Cell.parse(cell)
        weights = sum(self.parameters(self.study.models[name]) for name in (parts.retriever, parts.lm))
        return replace(self.forward_pass(0, 0), memory=8 + 4 * weights / GB)

    def _backbone(self, backbone: str) -> Cost:
        return Cost(seconds=3600, cores=self.compute.data_threads, disk=0.02, memory=4)

    # --- sizes

    def shape(self, name: str) -> flops.Shape:
        """Of a decoder: of its config.json where that is on this machine, else as config/sizes.yaml says."""
        path = self.folder(name) / "config.json"
        if path.is_file():
            return flops.read_shape(path.resolve())
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
        origin = self.study.models[model].origin
        return Path(origin.path if isinstance(origin, PathSource) else self.layout.model(model))

    def task(self, benchmark: str, task: str) -> TaskSize:
        """Documents and queries of a task."""
        known = self.sizes.tasks.get(f"{benchmark}/{task}")
        if known:
            return known
        dataset = self.study.config.datasets[self.study.task(benchmark, task).dataset]
        if dataset.installed or dataset.package or dataset.held_out_of:
            return TaskSize(documents=dataset.documents, queries=dataset.queries, document_chars=600, query_chars=100)
        self.notes.add(f"task {benchmark}/{task}: 100,000 documents of 600 characters and 1,000 queries assumed")
        return TaskSize(documents=100_000, queries=1000, document_chars=600, query_chars=100)

    def batches(self, corpus: str) -> int:
        """Batches of a corpus."""
        spec = self.study.config.corpora[corpus]
        if spec.regroup:
            return self.batches(spec.regroup.corpus)
        if spec.mix:
            return sum(spec.mix.values())
        if spec.batches:
            return spec.batches
        for path in sorted(Path(self.layout.corpus(corpus)).glob("bs*/batches.json")):
            return json.loads(path.read_text(encoding="utf-8"))["batches"]
        self.notes.add(f"corpus {corpus}: 320,000 batches assumed")
        return 320_000

    def pairs(self, corpus: str) -> int:
        return self.study.config.corpora[corpus].pairs or self.batches(corpus)

    def chunk_tokens(self, longest: int) -> float:
        """Tokens that are read of a mean chunk, by a model that takes so many at most."""
        chunking = self.study.config.chunking
        return min(longest, FULL * (chunking.max_tokens or TOKENS_PER_WORD * chunking.max_words))

    @property
    def chunk_bytes(self) -> float:
        return CHARS_PER_WORD * FULL * self.study.config.chunking.max_words

    def lengths(self, cell: Cell, first_half: bool) -> dict[str, list[float]]:
        """Tokens of each text in a row of the training file, by the part that it plays."""
        settings = self.study.training_settings(cell)
        passage, document = (
            self.chunk_tokens(longest) for longest in (settings.retriever_max_length, settings.lm_max_length)
        )
        if cell.needs.data == "pairs":
            crop_ratio = self.study.config.corpora[cell.corpus].crop_ratio
            share = (1 + sum(crop_ratio) / 2) / 2  # half are spans, half nearly whole chunks
            return {"query": [share * passage / 2], "passage": [share * passage] * cell.batch_size, "lm": []}
        query = passage / 2 if first_half else passage
        size = cell.batch_size
        return {"query": [query] * size, "passage": [passage] * size, "lm": [document] * size}

    # --- speed

    def peak(self, gpus: int, mfu: float) -> float:
        """Operations a second that so many GPUs reach."""
        return gpus * flops.PEAK[encoding.device(self.compute)] * mfu

    def forward_pass(
        self, operations: float, width: float, precision: str = "bf16", *, gpus: int | None = None
    ) -> Cost:
        """Of a forward pass on one GPU, or on so many. width: layers x hidden units x tokens."""
        gpus = min(1, self.compute.evaluation_gpus) if gpus is None else gpus
        seconds = START + encoding.seconds(self.compute, gpus, operations, width, precision)
        return Cost(seconds=seconds, gpus=gpus, cores=self.compute.evaluation_threads, operations=operations)

    def read(self, name: str, lengths: list[tuple[int, float]]) -> tuple[float, int]:
        """Operations of a model that reads texts, (number, tokens of each), and numbers in an embedding."""
        row = self.study.models[name]
        if row.kind == "backbone":
            shape = self.shape(name)
            return sum(number * flops.forward(shape, [length]) for number, length in lengths), shape.hidden
        return 2 * self.parameters(row) * sum(number * length for number, length in lengths), 1024

    def width(self, name: str) -> float:
        """Layers x hidden units of a model."""
        row = self.study.models[name]
        shape = self.shape(name) if row.kind == "backbone" else None
        return shape.layers * shape.hidden if shape else encoding.encoder_width(self.parameters(row))


_SECTION = {"train": "training", "run": "evaluation", "run_bm25": "evaluation", "score": "evaluation"}
_SECTION |= {"replug_scores": "evaluation", "language_model": "evaluation", "timing": "evaluation"}
_SECTION |= {"chunk_embeddings": "evaluation", "grouping_gain": "evaluation"}
