# What all rules share: the configuration, wildcards, and what each job needs and depends on. No rules here.
# Only light modules are imported, so that planning thousands of jobs takes seconds.
import contextlib
import functools
import io
import os
import re
import sys
from pathlib import Path

from snakemake.cli import parse_args

from revela.study.study import LM_EVAL, METHODS, WITHOUT_LM, Cell, ConfigError, Source, load, load_site, load_sizes
from revela.plan.costs import Costs
from revela.study.code import code_hash


def load_or_exit(read, *path):
    """What a file says, or its fault in one line."""
    try:
        return read(*path)
    except ConfigError as error:
        sys.exit(str(error))


def load_study():
    """The study of `--configfile`, or of the paper: one complete file, never a mixture of two."""
    files = workflow.overwrite_configfiles or ["config/config.yaml"]
    if len(files) > 1 or workflow.config_settings.config:
        sys.exit("configuration: --configfile takes one complete file, after the targets; --config is not used")
    config["study"] = os.path.relpath(files[0])  # where scripts find it
    return load_or_exit(load, config["study"])


def check_folders():
    """A folder that cannot be written stops the run before the first job."""
    for name in (R, ".snakemake"):
        folder = Path(name).absolute()
        existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
        if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
            continue
        others = existing.stat().st_uid != os.getuid()
        advice = f"; it is {existing.owner()}'s: work in a checkout of your own" if others else ""
        sys.exit(f"results: {name} cannot be written: no permission in {existing}, or it is not a folder{advice}")


def command_line():
    """What was typed, if it was typed; jobs are started by the same command."""
    by_command = Path(sys.argv[0]).name in ("snakemake", "__main__.py")
    with contextlib.redirect_stderr(io.StringIO()):  # Snakemake has parsed it before, and said what it says
        return parse_args(sys.argv[1:])[1] if by_command else None


ARGS = command_line()
STUDY = load_study()
CONFIG = STUDY.config
R = CONFIG.results
check_folders()


def either(names):
    """A pattern that matches each of the names and nothing else."""
    return "|".join(map(re.escape, sorted(names))) or "(?!)"


_CORPUS, _BACKBONE = either(CONFIG.corpora), either(STUDY.backbones)
_WITH_LM = either(set(METHODS) - set(WITHOUT_LM))
_VARIANT = f"(-({either(CONFIG.variants)}))?"
_SIZE = r"([2-9]|[1-9]\d+)"
_CELL = (
    rf"({_WITH_LM})/({_CORPUS})/({_BACKBONE})/({_BACKBONE})/bs{_SIZE}{_VARIANT}"
    rf"|({either(WITHOUT_LM)})/({_CORPUS})/({_BACKBONE})/none/bs{_SIZE}{_VARIANT}"
)
BM25 = [name for name, model in STUDY.models.items() if model.kind == "bm25"]
ENCODERS = [name for name, model in STUDY.models.items() if model.kind == "encoder"]
APIS = [name for name, model in STUDY.models.items() if model.kind == "api"]
DENSE = rf"{_CELL}|untrained/({_BACKBONE})|{either(ENCODERS)}"
SYSTEM = rf"{DENSE}|{either([*BM25, *APIS])}"


wildcard_constraints:
    cell=_CELL,
    system=SYSTEM,
    dataset=either(CONFIG.datasets),
    model=either([*STUDY.backbones, *ENCODERS]),
    corpus=_CORPUS,
    lm=_BACKBONE,
    scoring=r"(mean|sum)\d+-(bf16|fp32)",
    batch_size=_SIZE,
    benchmark=either(STUDY.benchmarks),
    task=either({task.task for task in STUDY.tasks}),
    table=either(CONFIG.tables),
    figure=either(CONFIG.figures),


# --- what a job asks for: as much as model and corpus need, and more with each attempt

COSTS = Costs(STUDY, load_or_exit(load_sizes))
SITE = load_or_exit(load_site) if ARGS and ARGS.executor == "slurm" else None


def memory(name):
    return lambda wildcards, attempt: COSTS.memory_mb(name, dict(wildcards.items()), attempt)


def runtime(name):
    longest = SITE.max_runtime if SITE else None
    return lambda wildcards, attempt: COSTS.minutes(name, dict(wildcards.items()), attempt, longest)


# --- code: the part of the package that a job runs. An edit elsewhere does not run the job again.


@functools.cache
def code(module, without=()):
    """The hash of a module's code and of all that it imports from the package."""
    return code_hash(module, without=without)


def method_code(module, method):
    """A module that imports all objectives, with one of them; some have no language model.

    What a run computes, and in how much memory, stands in its log and in a message alone.
    """
    others = ["revela.plan.flops", "revela.plan.memory", *(f"revela.objectives.{other}" for other in METHODS if other != method)]
    return code(module, (*others, "revela.method.inbatch") if method in WITHOUT_LM else tuple(others))


# --- training


def cell_files(wildcards):
    """What a cell is trained from."""
    cell = Cell.parse(wildcards.cell)
    batches = f"{R}/corpora/{cell.corpus}/bs{cell.batch_size}"
    files = {"retriever": f"{R}/resources/models/{cell.retriever}"}
    if cell.method == "contriever":
        return files | {"data": f"{batches}/pairs.parquet"}
    if cell.method == "replug":
        return files | {
            "data": f"{batches}/batches.parquet",
            "scores": f"{batches}/replug-{cell.lm}-{scoring(cell)}.npy",
        }
    return files | {"data": f"{batches}/batches.parquet", "lm": f"{R}/resources/models/{cell.lm}"}


def exported_files(wildcards):
    """A cell, the backbone that its adapters belong to, and the scores for its model card."""
    return {
        "model": f"{R}/models/{wildcards.cell}",
        "base": cell_files(wildcards)["retriever"],
        "scores": [f"{R}/scores/{wildcards.cell}/{benchmark}.json" for benchmark in STUDY.config.export_scores],
    }


# How a run is carried out; its result does not depend on it.
_MACHINE = {"checkpoint_every", "time_budget_minutes"}


def cell_settings(cell):
    return STUDY.training_settings(Cell.parse(cell)).model_dump(mode="json", exclude=_MACHINE)


def scoring(cell):
    """What REPLUG's LM scores depend on besides the LM and the batches; the rest of a cell's settings is not theirs."""
    settings = STUDY.training_settings(cell)
    unit = "mean" if settings.length_normalised else "sum"
    return f"{unit}{settings.lm_max_length}-{settings.precision}"


def replug_settings(wildcards):
    """The settings that the name of a file of scores spells out."""
    unit, length, precision = re.fullmatch(r"(mean|sum)(\d+)-(\w+)", wildcards.scoring).groups()
    return {"length_normalised": unit == "mean", "lm_max_length": int(length), "precision": precision}


# --- corpora


def punkt_source():
    """The text that Punkt is trained on, read as the corpus reads it that it is a source of; None for NLTK's own."""
    dataset = CONFIG.chunking.punkt
    if dataset == "nltk":
        return None
    sources = [source for corpus in CONFIG.corpora.values() for source in corpus.sources if source.dataset == dataset]
    return (sources or [Source(dataset=dataset)])[0].model_dump(mode="json", exclude={"batches"})


def chunk_settings(corpus):
    """What a corpus's chunks are made by."""
    return [source.model_dump(mode="json", exclude={"batches"}) for source in CONFIG.corpora[corpus].sources]


@functools.cache
def chunked_as(corpus):
    """The first corpus of equal sources: corpora that differ in their batches share their chunks."""
    return next(name for name in CONFIG.corpora if chunk_settings(name) == chunk_settings(corpus))


def batch_settings(corpus):
    """What a corpus's batches are made by."""
    spec = CONFIG.corpora[corpus]
    unused = {"sources", "mix", "group_size", "min_chunks"} if spec.ready else {"released"}
    return spec.model_dump(mode="json", exclude={"training", "pairs", "documents", "source", *unused})


def chunk_files(wildcards):
    sources = CONFIG.corpora[wildcards.corpus].sources
    return {
        "punkt": f"{R}/resources/punkt",
        "datasets": [f"{R}/resources/datasets/{source.dataset}" for source in sources],
    }


def batch_files(wildcards):
    corpus = CONFIG.corpora[wildcards.corpus]
    if corpus.ready:
        return [f"{R}/resources/datasets/{corpus.ready}"]
    if corpus.mix:
        return [f"{R}/corpora/{part}/bs{wildcards.batch_size}/batches.parquet" for part in corpus.mix]
    return [f"{R}/corpora/{chunked_as(wildcards.corpus)}/chunks.parquet"]


def report_sizes(corpus):
    """The batch sizes of a corpus's report: those of its cells in the sheet."""
    return sorted({run.batch_size for run in STUDY.runs if run.corpus == corpus}) or [16]


def report_files(wildcards):
    """The counts that a corpus's report is made of."""
    spec, folder = CONFIG.corpora[wildcards.corpus], f"{R}/corpora/{wildcards.corpus}"
    files = {"batches": [f"{folder}/bs{size}/batches.json" for size in report_sizes(wildcards.corpus)]}
    if spec.sources and not spec.ready:
        files["chunks"] = f"{R}/corpora/{chunked_as(wildcards.corpus)}/chunks.json"
        if spec.documents:
            files["group_sizes"] = f"{folder}/group-sizes.json"
    return files


# --- evaluation


def system_folder(wildcards):
    """The model behind a dense system; with the backbone below it, if it is a cell or an adapter."""
    system = wildcards.system.removeprefix("untrained/")
    if system not in STUDY.models:
        return [f"{R}/models/{system}", f"{R}/resources/models/{Cell.parse(system).retriever}"]
    return [f"{R}/resources/models/{name}" for name in (system, STUDY.models[system].base) if name]


def system_settings(wildcards):
    """How an off-the-shelf encoder is used; other systems need no row of models.tsv."""
    model = STUDY.models.get(wildcards.system)
    return model and model.model_dump(mode="json", exclude={"scale", "size", "tables"})


def evaluation_settings(wildcards):
    """What the run of a dense system depends on."""
    unused = {"shard_documents", "store_embeddings", "api_budget"}
    return STUDY.evaluation_settings(wildcards.system).model_dump(mode="json", exclude=unused)


def task_settings(wildcards):
    return STUDY.task(wildcards.benchmark, wildcards.task).model_dump(mode="json")


def task_dataset(wildcards):
    return f"{R}/resources/datasets/{STUDY.task(wildcards.benchmark, wildcards.task).dataset}"


def task_datasets(benchmark):
    return sorted({f"{R}/resources/datasets/{task.dataset}" for task in STUDY.benchmark_tasks(benchmark)})


# --- tables and figures


def table_scores(wildcards):
    """Score files of a table's columns; a copied column has none."""
    return [f"{R}/scores/{system}/{benchmark}.json" for system, benchmark in STUDY.table_scores(wildcards.table)]


def table_settings(wildcards):
    """What a table is made by: itself, and those whose means it shows."""
    table = CONFIG.tables[wildcards.table]
    return {name: CONFIG.tables[name].model_dump(mode="json") for name in [wildcards.table, *table.means_of.values()]}


def printed_files(*tables):
    """The paper's values of tables, and the known errors among them."""
    files = {CONFIG.tables[table].printed for table in tables} - {None}
    errata = {str(Path(file).with_name("errata.csv")) for file in files}
    return sorted([*files, *filter(os.path.exists, errata)])


def table_tasks(wildcards):
    """The tasks behind a table's rows."""
    return {
        benchmark: (
            CONFIG.lm_evaluation.model_dump(mode="json")
            if benchmark == LM_EVAL
            else [task.model_dump(mode="json", include={"task", "label"}) for task in STUDY.benchmark_tasks(benchmark)]
        )
        for benchmark in STUDY.table_benchmarks(wildcards.table)
    }


# What the report's menu says of a figure, by its kind.
SHOWN = {
    "bars": "mean scores",
    "lines": "scores by setting",
    "hours": "scores by hours",
    "dynamics": "similarities",
    "cost": "seconds a batch",
    "training": "training loss",
}


def table_label(table):
    """The name of a table, and the benchmarks that it shows. Two labels of equal meaning would empty the menu."""
    return f"{table}: {', '.join(STUDY.table_benchmarks(table))}"


def trained(table):
    """The trained cells among a table's systems."""
    rows = {run.system for run in STUDY.runs}
    return [system for system in STUDY.table_systems(table).values() if system in rows]


def lineage_files(wildcards):
    """All that stands behind a table: scores, models and what they were made of, the benchmarks."""
    table = wildcards.table
    systems = {system for system, _ in STUDY.table_scores(table)}
    cells = [Cell.parse(system) for system in trained(table)]
    models = {system.removeprefix("untrained/") for system in systems.difference(trained(table), BM25)}
    models |= {model for cell in cells for model in (cell.retriever, cell.lm)} - {"none"}
    datasets = {name for cell in cells for name in STUDY.corpus_datasets(cell.corpus)}
    datasets |= {name for benchmark in STUDY.table_benchmarks(table) for name in STUDY.benchmark_datasets(benchmark)}
    return {
        "scores": table_scores(wildcards),
        "cells": [f"{R}/models/{cell.path}" for cell in cells],
        "models": sorted(f"{R}/resources/models/{model}" for model in models),
        "datasets": sorted(f"{R}/resources/datasets/{dataset}" for dataset in datasets),
    }


def language_model_folder(wildcards):
    """An untrained language model, or the cell that holds a trained one, and the model below its adapters."""
    system = wildcards.system
    if system.startswith("untrained/"):
        return [f"{R}/resources/models/{system.removeprefix('untrained/')}"]
    return [f"{R}/models/{system}", f"{R}/resources/models/{Cell.parse(system).lm}"]


def figure_files(wildcards):
    """What a figure is drawn from."""
    figure = CONFIG.figures[wildcards.figure]
    scores = [f"{R}/scores/{s}/{b}.json" for table in figure.panels.values() for s, b in STUDY.table_scores(table)]
    if figure.kind == "hours":
        return scores + [f"{R}/models/{cell}" for table in figure.panels.values() for cell in trained(table)]
    if figure.kind == "dynamics":
        return [f"{R}/models/{figure.cell}"]
    if figure.kind == "cost":
        return [f"{R}/cost/{figure.cell}.json"]
    if figure.kind == "training":
        return [f"{R}/models/{cell}" for cell in CELLS]
    return scores


def existing_scores(wildcards):
    """The score files that are there of all that tables with printed values want."""
    wanted = {pair for name, table in CONFIG.tables.items() if table.printed for pair in STUDY.table_scores(name)}
    files = sorted(f"{R}/scores/{system}/{benchmark}.json" for system, benchmark in wanted)
    return [file for file in files if os.path.exists(file)]


DEFAULT_TABLES = [name for name, table in CONFIG.tables.items() if not table.on_request]
RELEASED = [name for name in CONFIG.tables if name.startswith("released")]
TABLES = [f"{R}/tables/{table}.{suffix}" for table in DEFAULT_TABLES for suffix in ("tex", "csv", "md", "lineage.json")]
TABLES += [
    f"{R}/tables/{table}.compare.{suffix}"
    for table in DEFAULT_TABLES
    if CONFIG.tables[table].printed
    for suffix in ("tex", "csv", "md")
]
DEFAULT_FIGURES = [name for name, figure in CONFIG.figures.items() if not figure.on_request]
FIGURES = [f"{R}/figures/{figure}.{suffix}" for figure in DEFAULT_FIGURES for suffix in ("pdf", "png")]
CELLS = STUDY.shown_cells()
CORPORA = sorted({Cell.parse(cell).corpus for cell in CELLS})
FIGURES += [f"{R}/figures/corpus-{corpus}.{suffix}" for corpus in CORPORA for suffix in ("pdf", "png")]


# --- targets


def check_targets():
    """A target on the command line that no rule makes is explained in one line, before anything is planned."""
    rules = {r.name: r for r in workflow.rules}
    for target in ARGS.targets if ARGS else []:
        path = os.path.normpath(target)
        if not (target in rules or os.path.exists(path) or any(r.is_producer(path) for r in rules.values())):
            sys.exit(f"{target}: not a target: {explain_target(path, rules)}")


def explain_target(target, rules):
    """Why no rule makes a target, and what would be valid."""
    if not target.startswith(f"{R}/"):
        return f"this configuration's files stand under {R}/, its rules are {', '.join(rules)}"
    kind, _, rest = target.removeprefix(f"{R}/").partition("/")
    try:
        if kind == "models":
            STUDY.check_cell(Cell.parse(rest))
        elif kind == "scores":
            system, _, benchmark = rest.removesuffix(".json").rpartition("/")
            check_system(system)
            STUDY.benchmark_tasks(benchmark)
        elif kind == "runs" and rest.count("/") > 1:
            system, benchmark, task = rest.removesuffix(".run.gz").rsplit("/", 2)
            check_system(system)
            STUDY.task(benchmark, task)
    except ConfigError as error:
        return str(error)
    valid = {
        "tables": [f"{R}/tables/{table}.tex" for table in CONFIG.tables],
        "figures": [f"{R}/figures/{figure}.pdf" for figure in CONFIG.figures],
        "resources": [f"{R}/resources/datasets/{name}" for name in CONFIG.datasets],
        "corpora": [f"{R}/corpora/{name}/bs16/batches.parquet" for name in CONFIG.corpora],
    }
    if kind in valid:
        return f"valid: {', '.join(valid[kind])}"
    return f"no rule writes it under {R}/{kind}; if it is another configuration's, add its --configfile"


def check_system(system):
    """ConfigError for a name that is no cell, no untrained backbone and no model that can be run."""
    valid = [*BM25, *ENCODERS, *APIS, *(f"untrained/{name}" for name in STUDY.backbones)]
    if system in valid:
        return
    if system.count("/") == 4:
        STUDY.check_cell(Cell.parse(system))
    else:
        raise ConfigError(f"unknown system {system!r}; valid: a cell's path, {', '.join(valid)}")
