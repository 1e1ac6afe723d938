# Tables and figures: light jobs that read score files and training logs. Only the time of the methods is measured.
localrules:
    table,
    lineage,
    figure,
    corpus_figure,
    before_after,


def existing(pairs):
    """The score files that are there, of those of (system, benchmark) pairs."""
    return [file for file in sorted({LAYOUT.scores(*pair) for pair in pairs}) if os.path.exists(file)]


def table_scores(wildcards):
    """Score files of a table's columns. Services have one if they were scored on request; else the paper's are shown."""
    scores = [LAYOUT.scores(*pair) for pair in STUDY.table_scores(wildcards.table)]
    return scores + existing(STUDY.table_services(wildcards.table))


def table_labels(table):
    """The name of a table, and the benchmarks that it shows. Two labels of equal meaning would empty the report's menu."""
    return f"{table}: {', '.join(STUDY.table_benchmarks(table))}"


rule table:
    input:
        scores=table_scores,
        printed=lambda w: tables.printed_files(CONFIG.tables[w.table]),
    output:
        tex=report(
            LAYOUT.table("{table}", "tex"),
            caption="../report/table.rst",
            category="Tables",
            labels=lambda w: {"table": table_labels(w.table), "format": "LaTeX"},
        ),
        csv=report(
            LAYOUT.table("{table}", "csv"),
            caption="../report/table.rst",
            category="Tables",
            labels=lambda w: {"table": table_labels(w.table), "format": "CSV"},
        ),
        html=report(
            LAYOUT.table("{table}", "html"),
            caption="../report/table.rst",
            category="Tables",
            labels=lambda w: {"table": table_labels(w.table), "format": "HTML"},
        ),
        md=LAYOUT.table("{table}", "md"),
    log:
        LAYOUT.log("table", "{table}"),
    benchmark:
        LAYOUT.benchmark("table", "{table}")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=specified(tables.table_spec),
        results=results,
        code=code("revela.paper.tables"),
    message:
        "Writing {wildcards.table}"
    script:
        "../scripts/table.py"


def lineage_files(wildcards):
    """All that stands behind a table: scores, models and what they were made of, the benchmarks."""
    table = wildcards.table
    systems = [STUDY.system(name) for name in dict.fromkeys(name for name, _ in STUDY.table_scores(table))]
    rounds = [STUDY.rounds(system.cell.corpus) for system in systems if system.kind == "trained"]
    systems += {name: system for found in rounds for name, system in found.items()}.values()
    cells = list(dict.fromkeys(system.cell for system in systems if system.kind == "trained"))
    models = {model for system in systems for model in system.models}
    models |= {model for cell in cells for model in cell.models}
    datasets = {dataset for cell in cells for dataset in STUDY.corpus_datasets(cell.corpus)}
    datasets |= {name for benchmark in STUDY.table_benchmarks(table) for name in STUDY.benchmark_datasets(benchmark)}
    return {
        "scores": table_scores(wildcards),
        "printed": tables.printed_files(CONFIG.tables[table]),
        "cells": [LAYOUT.cell(cell) for cell in cells],
        "models": sorted(map(LAYOUT.model, models)),
        "datasets": sorted(map(LAYOUT.dataset, datasets)),
    }


rule lineage:
    input:
        unpack(lineage_files),
    output:
        report(
            LAYOUT.lineage("{table}"),
            caption="../report/lineage.rst",
            category="Lineage",
            labels=lambda w: {"table": table_labels(w.table)},
        ),
    log:
        LAYOUT.log("lineage", "{table}"),
    benchmark:
        LAYOUT.benchmark("lineage", "{table}")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=specified(tables.lineage_spec),
        results=results,
        code=code("revela.paper.lineage"),
    message:
        "Writing down where the values of {wildcards.table} come from"
    script:
        "../scripts/lineage.py"


CELLS = STUDY.shown_cells()


def figure_files(wildcards):
    """What a figure is drawn from."""
    figure = CONFIG.figures[wildcards.figure]
    if figure.kind == "dynamics":
        return [LAYOUT.cell(figure.cell)]
    if figure.kind == "timing":
        return [LAYOUT.timing(figure.cell)]
    if figure.kind in ("training", "same_document"):
        return [LAYOUT.cell(cell) for cell in STUDY.figure_cells(wildcards.figure)]
    pairs = [pair for table in figure.panels.values() for pair in STUDY.table_scores(table)]
    files = [LAYOUT.scores(system, benchmark) for system, benchmark in pairs]
    files += existing(pair for table in figure.panels.values() for pair in STUDY.table_services(table))
    files += tables.printed_files(*(CONFIG.tables[table] for table in figure.panels.values()))
    if figure.kind == "hours":
        systems = [STUDY.system(system) for system, _ in pairs]
        files += [LAYOUT.cell(system.cell) for system in systems if system.kind == "trained"]
    return files


# What the report's menu says of a figure, by its kind.
SHOWN = {
    "bars": "mean scores",
    "lines": "scores by setting",
    "hours": "scores by hours",
    "dynamics": "similarities",
    "same_document": "weight on the same document",
    "timing": "seconds a batch",
    "training": "training loss",
}


rule figure:
    input:
        figure_files,
    output:
        pdf=LAYOUT.figure("{figure}", "pdf"),
        png=report(
            LAYOUT.figure("{figure}", "png"),
            caption="../report/figure.rst",
            category="Figures",
            labels=lambda w: {"figure": f"{w.figure}: {SHOWN[CONFIG.figures[w.figure].kind]}"},
        ),
        svg=LAYOUT.figure("{figure}", "svg"),
        data=directory(LAYOUT.figure_data("{figure}")),
    log:
        LAYOUT.log("figure", "{figure}"),
    benchmark:
        LAYOUT.benchmark("figure", "{figure}")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=specified(tables.figure_spec),
        results=results,
        code=code("revela.paper.figures"),
    message:
        "Drawing {wildcards.figure}"
    script:
        "../scripts/figure.py"


rule corpus_figure:
    input:
        LAYOUT.corpus_report("{corpus}"),
    output:
        pdf=LAYOUT.figure("corpus-{corpus}", "pdf"),
        png=report(
            LAYOUT.figure("corpus-{corpus}", "png"),
            caption="../report/corpus.rst",
            category="Corpora",
            labels={"corpus": "{corpus}"},
        ),
    log:
        LAYOUT.log("corpus_figure", "{corpus}"),
    benchmark:
        LAYOUT.benchmark("corpus_figure", "{corpus}")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=code("revela.paper.figure_corpus"),
    message:
        "Drawing the corpus {wildcards.corpus}"
    script:
        "../scripts/corpus_figure.py"


def both_runs(wildcards):
    """The runs of a cell on all tasks of a benchmark, and those of its untrained backbone."""
    tasks = [task.task for task in STUDY.benchmark_tasks(wildcards.benchmark)]
    systems = {"before": UNTRAINED + Cell.parse(wildcards.system).retriever, "after": wildcards.system}
    return {name: [LAYOUT.run(system, wildcards.benchmark, task) for task in tasks] for name, system in systems.items()}


rule before_after:
    input:
        unpack(both_runs),
        datasets=benchmark_datasets,
    output:
        report(
            LAYOUT.before_after("{system}", "{benchmark}"),
            caption="../report/before_after.rst",
            category="Before and after",
            labels={"benchmark": "{benchmark}", "retriever": "{system}"},
        ),
    log:
        LAYOUT.log("before_after", "{system}", "{benchmark}"),
    benchmark:
        LAYOUT.benchmark("before_after", "{system}", "{benchmark}")
    wildcard_constraints:
        system=cell_pattern(*METHODS),
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=specified(specification.score_spec),
        code=code("revela.paper.before_after"),
    message:
        "Writing down what {wildcards.system} answers before and after training"
    script:
        "../scripts/before_after.py"


def timed_models(wildcards):
    cell = Cell.parse(wildcards.cell)
    return {"retriever": LAYOUT.model(cell.retriever), "lm": LAYOUT.model(cell.lm)}


# How long REPLUG's and Revela's language model takes to relate the documents of a batch (App. C.7).
rule timing:
    input:
        unpack(timed_models),
        data=lambda w: training_files(w)["data"],
    output:
        LAYOUT.timing("{cell}"),
    log:
        LAYOUT.log("timing", "{cell}"),
    benchmark:
        LAYOUT.benchmark("timing", "{cell}")
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.evaluation_threads
    resources:
        nodes=1,
        gpu=gpus("timing"),
        mem_mb=memory("timing"),
        runtime=runtime("timing"),
    params:
        spec=specified(specification.timing_spec),
        code=code("revela.evaluation.timing"),
    message:
        "Timing the batches of {wildcards.cell}"
    script:
        "../scripts/timing.py"


DEFAULT_TABLES = [name for name, table in CONFIG.tables.items() if not table.on_request]
DEFAULT_FIGURES = [name for name, figure in CONFIG.figures.items() if not figure.on_request]
DEFAULT_FIGURES += [f"corpus-{corpus}" for corpus in sorted({cell.corpus for cell in CELLS})]
TABLES = [LAYOUT.table(table, suffix) for table in DEFAULT_TABLES for suffix in ("tex", "csv", "md")]
TABLES += [LAYOUT.lineage(table) for table in DEFAULT_TABLES]
TABLES += [
    LAYOUT.comparison(table, suffix)
    for table in DEFAULT_TABLES
    if CONFIG.tables[table].printed
    for suffix in ("tex", "csv", "md")
]
FIGURES = [LAYOUT.figure(figure, suffix) for figure in DEFAULT_FIGURES for suffix in ("pdf", "png")]
FIGURES += [LAYOUT.before_after(cell, benchmark) for benchmark, cell in CONFIG.before_after.items()]
