"""A configuration with the rows of its sheets: all that the workflow plans from."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from revela.study.base import ConfigError, check_known, read_yaml, validate
from revela.study.cell import Cell
from revela.study.corpora import RANDOM
from revela.study.layout import Layout
from revela.study.methods import METHODS
from revela.study.settings import LM_EVAL, Config, Training
from revela.study.sheets import Anchor, Deviation, Model, Run, Task, read_sheet
from revela.study.source import PackageSource
from revela.study.system import UNTRAINED, Api, Bm25, Encoder, System, Trained, Untrained

PAPER = "config/config.yaml"  # the study where none is named; it and its sheets stand in the checkout


@dataclass(frozen=True)
class Study:
    """One scale of the study, and what its names stand for."""

    config: Config
    models: dict[str, Model]
    runs: list[Run]
    tasks: list[Task]
    anchors: list[Anchor] = field(default_factory=list)
    deviations: list[Deviation] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        """Where everything of this study stands."""
        return Layout(self.config.results)

    # --- names

    @property
    def backbones(self) -> list[str]:
        """Names of models that can be a retriever's or a language model's start."""
        return self.models_of("backbone")

    def models_of(self, kind: str) -> list[str]:
        """Names of the rows of models.tsv of one kind."""
        return [name for name, model in self.models.items() if model.kind == kind]

    @property
    def benchmarks(self) -> list[str]:
        """Names of benchmarks, in the order of the sheet."""
        return list(dict.fromkeys(task.benchmark for task in self.tasks))

    def benchmark_tasks(self, benchmark: str) -> list[Task]:
        """The tasks of one benchmark, in the order of the sheet; ConfigError if there is no such benchmark."""
        check_known("benchmark", benchmark, self.benchmarks)
        return [task for task in self.tasks if task.benchmark == benchmark]

    def task(self, benchmark: str, task: str) -> Task:
        """One task by name; ConfigError if there is none."""
        tasks = {row.task: row for row in self.benchmark_tasks(benchmark)}
        check_known(f"task of {benchmark}", task, tasks)
        return tasks[task]

    # --- cells

    def check_cell(self, cell: Cell) -> Cell:
        """The cell itself if each of its parts is known; ConfigError naming the valid parts otherwise."""
        check_known(f"{cell.path}: method", cell.method, METHODS)
        check_known(f"{cell.path}: corpus", cell.corpus, self.config.corpora)
        check_known(f"{cell.path}: retriever", cell.retriever, self.backbones)
        check_known(f"{cell.path}: lm", cell.lm, ["none"] if cell.needs.lm == "none" else self.backbones)
        if cell.variant:
            check_known(f"{cell.path}: variant", cell.variant, self.config.variants)
        if cell.batch_size < (least := cell.needs.least_batch):
            raise ConfigError(
                f"{cell.path}: batch size {cell.batch_size}; valid: {least} or more, for {cell.needs.label} learns from "
                "the choice among other chunks"
            )
        return cell

    def training_settings(self, cell: Cell) -> Training:
        """Settings of a cell: `training`, overridden by its method, its corpus and its variant, in that order.

        Raises ConfigError where processes cannot share its batches evenly.
        """
        config, settings = self.config, self._overridden(cell)
        if cell.batch_size % settings.processes_per_batch:
            raise ConfigError(
                f"{cell.path}: processes_per_batch: {settings.processes_per_batch} processes do not share "
                f"{cell.batch_size} chunks evenly; valid: a divisor of {cell.batch_size}"
            )
        if config.compute.processes % settings.processes_per_batch:
            raise ConfigError(
                f"{cell.path}: processes_per_batch: {settings.processes_per_batch} processes share a batch, and a training "
                f"run has {config.compute.processes}, no multiple of that (compute.training_gpus or training_processes)"
            )
        return settings

    def start_of(self, cell: Cell) -> Cell | None:
        """The cell with whose weights the training of a cell begins; None: with those of its backbones.

        Raises ConfigError where no cell grouped the corpus, or one of other models or weights.
        """
        settings, regroup = self._overridden(cell), self.config.corpora[cell.corpus].regroup
        if settings.start == "backbone":
            return None
        system, where = regroup and self.grouped_by(cell.corpus), f"{cell.path}: training.start: by"
        if not isinstance(system, Trained):
            how = f"is grouped by {regroup.by}, which is no cell" if regroup else "is not regrouped"
            raise ConfigError(f"{where}: the corpus {cell.corpus!r} {how}; valid: backbone")
        names, start = ("method", "retriever", "lm"), system.cell
        ours, theirs = (
            {**{name: getattr(one, name) for name in names}, **self._overridden(one).weights} for one in (cell, start)
        )
        for key, value in ours.items():
            if value != theirs[key]:
                raise ConfigError(
                    f"{where}: {key} is {value}, and {theirs[key]} of {start.path}, by which the corpus is grouped; "
                    f"valid: backbone, or the same {key}"
                )
        return start

    def _overridden(self, cell: Cell) -> Training:
        """Settings of a cell whose parts are known."""
        self.check_cell(cell)
        config = self.config
        return Training.model_validate(
            {
                "seed": config.seed,
                **config.training.model_dump(exclude_unset=True),
                **config.methods.get(cell.method, {}),
                **config.corpora[cell.corpus].training,
                **config.variants.get(cell.variant, {}),
            }
        )

    def is_on_request(self, run: Run) -> bool:
        """Whether a cell stands in tables that are made on request, and in no other."""
        known = self.config.tables
        return bool(run.labels) and all(table in known and known[table].on_request for table in run.labels)

    def shown_cells(self) -> list[Cell]:
        """The trained cells that tables and figures stand on, but for those made on request; in the sheet's order."""
        figures = [figure for figure in self.config.figures.values() if not figure.on_request]
        tables = {name for name, table in self.config.tables.items() if not table.on_request}
        tables |= {table for figure in figures for table in figure.panels.values()}
        shown = {system for table in tables for system in self.table_systems(table).values()}
        shown |= {figure.cell for figure in figures if figure.kind in ("dynamics", "same_document")}
        return [run.cell for run in self.runs if run.system in shown]

    def figure_cells(self, figure: str) -> list[Cell]:
        """The cells whose logs a figure shows."""
        spec = self.config.figures[figure]
        if spec.kind == "training":
            return self.shown_cells()
        if spec.kind != "same_document":
            return []
        own = Cell.parse(spec.cell)
        return [own, *(self.check_cell(replace(own, variant=variant)) for variant in spec.variants)]

    # --- systems

    def system(self, name: str) -> System:
        """The system of a name, with all that its rankings depend on. ConfigError for a name that is none."""
        if name in self._systems:
            return self._systems[name]
        try:
            cell = Cell.parse(name)
        except ConfigError:
            hint = difflib.get_close_matches(name, self._systems, n=1)
            meant = f"; did you mean {hint[0]!r}?" if hint else "."
            raise ConfigError(
                f"unknown system {name!r}{meant} Valid: a cell's path, {', '.join(self._systems)}"
            ) from None
        self.check_cell(cell)
        own = self.config.variants.get(cell.variant, {})
        prefixes = {key: own[key] for key in ("query_prefix", "passage_prefix") if key in own}
        return Trained(name=name, **(self._as_cells_are_read | prefixes))

    @cached_property
    def _systems(self) -> dict[str, System]:
        """The systems of models.tsv by name."""
        return {model.system: self._off_the_shelf(model) for model in self.models.values()}

    @property
    def _as_cells_are_read(self) -> dict[str, str | int]:
        evaluation = self.config.evaluation
        keys = {"query_prefix", "passage_prefix", "max_length", "batch_tokens", "precision"}
        return evaluation.model_dump(include=keys)

    def _off_the_shelf(self, model: Model) -> System:
        evaluation = self.config.evaluation
        if model.kind == "bm25":
            settings = model.origin
            return Bm25(name=model.name, k1=settings.k1, b=settings.b, weigh_queries=settings.weigh_queries)
        if model.kind == "backbone":
            return Untrained(name=UNTRAINED + model.name, **self._as_cells_are_read)
        if model.kind == "api":
            origin = model.origin
            return Api(
                name=model.name,
                provider=origin.provider,
                model=origin.name,
                price=model.price,
                max_length=evaluation.max_length,
            )
        return Encoder(
            name=model.name,
            base=model.base,
            pooling=model.pooling,
            query_prefix=model.query_prefix.replace("\\n", "\n"),
            passage_prefix=model.passage_prefix.replace("\\n", "\n"),
            passage_prefixes=dict(pair.split("=", 1) for pair in filter(None, model.passage_prefixes.split(";"))),
            similarity=model.similarity or "cosine",
            max_length=min(model.max_length or evaluation.max_length, evaluation.max_length),
            batch_tokens=evaluation.batch_tokens,
            precision=evaluation.encoder_precision,
        )

    # --- tables

    def table_systems(self, table: str) -> dict[str, str]:
        """label -> name of the system of each of a table's columns, in the table's order.

        Raises ConfigError where a column has no row, or the table is unknown.
        """
        check_known("table", table, self.config.tables)
        spec = self.config.tables[table]
        if spec.means_of:
            systems = self.table_systems(next(iter(spec.means_of.values())))
            return {label: systems[label] for label in spec.columns}
        rows = [*self.models.values(), *self.runs]
        systems: dict[str, str] = {}
        for row in rows:
            if table in row.labels and systems.setdefault(row.labels[table], row.system) != row.system:
                label = row.labels[table]
                raise ConfigError(
                    f"tables.{table}.columns: {label} is filled by two rows, {systems[label]} and {row.system}; valid: one"
                )
        missing = [label for label in spec.columns if label not in systems]
        if missing:
            raise ConfigError(
                f"tables.{table}.columns: no row of the sheets fills {missing}; rows fill {list(systems)}"
            )
        return {label: systems[label] for label in spec.columns}

    def table_benchmarks(self, table: str) -> list[str]:
        """The benchmarks of whose scores a table is made: one, or those of the tables whose means it shows."""
        spec = self.config.tables[table]
        parts = [self.config.tables[part].benchmark for part in spec.means_of.values()]
        return [spec.benchmark] if spec.benchmark else list(dict.fromkeys(parts))

    def table_scores(self, table: str) -> list[tuple[str, str]]:
        """(system, benchmark) of each score file that a table is made of; services are scored on request alone."""
        systems = [name for name in self.table_systems(table).values() if not isinstance(self.system(name), Api)]
        return [(system, benchmark) for benchmark in self.table_benchmarks(table) for system in systems]

    def table_services(self, table: str) -> list[tuple[str, str]]:
        """(system, benchmark) of each score file of a service, which a table shows if it is there."""
        systems = [name for name in self.table_systems(table).values() if isinstance(self.system(name), Api)]
        return [(system, benchmark) for benchmark in self.table_benchmarks(table) for system in systems]

    def other_seeds(self, system: str) -> list[str]:
        """The cells that differ from a cell in their seed alone, by variants that set nothing else."""
        if self.system(system).kind != "trained":
            return []
        cell = Cell.parse(system)
        seeds = ["", *(name for name, own in self.config.variants.items() if own.keys() == {"seed"})]
        return (
            [replace(cell, variant=seed).path for seed in seeds if seed != cell.variant]
            if cell.variant in seeds
            else []
        )

    def table_seeds(self, table: str) -> list[tuple[str, str]]:
        """(system, benchmark) of each score file of another seed, by which a comparison judges if it is there."""
        systems = [seed for name in self.table_systems(table).values() for seed in self.other_seeds(name)]
        return [(system, benchmark) for benchmark in self.table_benchmarks(table) for system in systems]

    # --- data

    def benchmark_datasets(self, benchmark: str) -> list[str]:
        """The datasets of a benchmark's tasks."""
        lm_eval = benchmark == LM_EVAL
        tasks = self.config.lm_evaluation.tasks.values() if lm_eval else self.benchmark_tasks(benchmark)
        return list(dict.fromkeys(task.dataset for task in tasks))

    def corpus_datasets(self, corpus: str) -> list[str]:
        """The datasets that a corpus is made of."""
        spec = self.config.corpora[corpus]
        if spec.ready:
            return [spec.ready]
        own = [source.dataset for source in spec.sources]
        parts = [*spec.mix, *([spec.regroup.corpus] if spec.regroup else [])]
        return own + [dataset for part in parts for dataset in self.corpus_datasets(part)]

    def grouped_by(self, corpus: str) -> System | None:
        """The system whose neighbours a regrouped corpus's batches are made of; None: they are random.

        Raises ConfigError for a service.
        """
        by = self.config.corpora[corpus].regroup.by
        if by == RANDOM:
            return None
        system = self.system(by)
        if isinstance(system, Api):
            raise ConfigError(f"{by} is a service; valid: a system that runs here, or {RANDOM}")
        return system

    def rounds(self, corpus: str, above: tuple[str, ...] = ()) -> dict[str, System]:
        """The systems, by name, that grouped a corpus and what stands behind it, the latest first. ConfigError for a circle."""
        if corpus in above:
            raise ConfigError(f"{' <- '.join((*above, corpus))}: a corpus is grouped by a cell that is trained on it")
        above, spec, found = (*above, corpus), self.config.corpora[corpus], {}
        behind = [*spec.mix]
        if spec.regroup:
            behind.append(spec.regroup.corpus)
            if system := self.grouped_by(corpus):
                found[system.name] = system
                behind += [system.cell.corpus] if system.kind == "trained" else []
        for part in behind:
            found |= self.rounds(part, above)
        return found


def load(path: str | Path) -> Study:
    """Read a YAML configuration and its sheets.

    Sheet paths are relative to the working directory, as all paths of the workflow are.
    Raises ConfigError with one line that names the file, the key, the value and what would be valid.
    """
    config = validate(Config, read_yaml(path), str(path))
    models = {row.name: row for row in read_sheet(config.models, Model, config.scale)}
    tasks = read_sheet(config.benchmarks, Task, config.scale)
    runs = read_sheet(config.runs, Run, config.scale)
    anchors = read_sheet(config.anchors, Anchor, config.scale) if config.anchors else []
    deviations = read_sheet(config.deviations, Deviation, config.scale) if config.deviations else []
    study = Study(config=config, models=models, runs=runs, tasks=tasks, anchors=anchors, deviations=deviations)
    for model in models.values():
        if isinstance(model.origin, PackageSource):
            check_known(f"{config.models}: package of {model.name}", model.origin.package, config.packages)
        if model.base:
            check_known(f"{config.models}: base of {model.name}", model.base, study.backbones)
    if config.chunking.tokenizer:
        check_known(f"{path}: chunking.tokenizer", config.chunking.tokenizer, study.backbones)
    for name, corpus in config.corpora.items():
        for benchmark in corpus.apart_from:
            check_known(f"{path}: corpora.{name}.apart_from", benchmark, study.benchmarks)
        try:
            for system in study.rounds(name).values():
                if isinstance(system, Trained):
                    study.start_of(system.cell)
        except ConfigError as error:
            raise ConfigError(f"{path}: corpora.{name}.regroup.by: {error}") from None
    for task in tasks:
        check_known(f"{config.benchmarks}: dataset of {task.task}", task.dataset, config.datasets)
    for anchor in anchors:
        check_known(f"{config.anchors}: system of {anchor.key}", anchor.system, models)
        try:
            study.task(anchor.benchmark, anchor.task)
        except ConfigError as error:
            raise ConfigError(f"{config.anchors}: {error}") from None
    for deviation in deviations:
        check_known(f"{config.deviations}: table of {deviation.key}", deviation.table, config.tables)
        valid = ["*", *config.tables[deviation.table].columns]
        check_known(f"{config.deviations}: column of {deviation.key}", deviation.column, valid)
    for name, table in config.tables.items():
        if table.benchmark:
            lm_eval = [LM_EVAL] if config.lm_evaluation.tasks else []
            check_known(f"{path}: tables.{name}.benchmark", table.benchmark, [*study.benchmarks, *lm_eval])
        try:
            study.table_systems(name)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    for name, figure in config.figures.items():
        for variant in figure.variants:
            check_known(f"{path}: figures.{name}.variants", variant, config.variants)
    for benchmark in config.export_scores:
        check_known(f"{path}: export_scores", benchmark, study.benchmarks)
    for benchmark in config.before_after:
        check_known(f"{path}: before_after", benchmark, study.benchmarks)
    named = {f"figures.{name}.cell": figure.cell for name, figure in config.figures.items() if figure.cell}
    named |= {f"before_after.{benchmark}": cell for benchmark, cell in config.before_after.items()}
    for key, cell in named.items():
        try:
            study.start_of(Cell.parse(cell))
        except ConfigError as error:
            raise ConfigError(f"{path}: {key}: {error}") from None
    for run in runs:
        try:
            study.start_of(run.cell)
        except ConfigError as error:
            raise ConfigError(f"{config.runs}: {error}") from None
    return study
