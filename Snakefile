# raw text -> chunks -> batches -> trained cells -> runs -> scores -> tables and figures
#
#   snakemake --cores all --configfile config/tiny.yaml      the whole chain in minutes, on any machine
#   snakemake --profile slurm results/tables/table1.tex      a table of the paper, on a cluster
report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/corpus.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/language_models.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/check.smk"


if CONFIG.scale == "tiny":

    include: "workflow/rules/tiny.smk"


localrules:
    all,
    tables,
    figures,
    models,
    ablations,
    released,
    everything,


# Models are named for their own sake: one that was deleted is made again, with all that was made of it.
rule all:
    default_target: True
    input:
        TABLES,
        FIGURES,
        [LAYOUT.cell(cell) for cell in CELLS],


rule tables:
    input:
        TABLES,


rule figures:
    input:
        FIGURES,


# With what is made on request. A figure of times is not among them: nothing else should run beside its measurement.
rule everything:
    input:
        [LAYOUT.table(table, suffix) for table in CONFIG.tables for suffix in ("tex", "csv", "md")],
        [LAYOUT.figure(name, "pdf") for name, figure in CONFIG.figures.items() if figure.kind != "timing"],


# Cells of the sheet; those that stand in tables made on request alone are trained for them.
rule models:
    input:
        [LAYOUT.cell(run.cell) for run in STUDY.runs if not STUDY.is_on_request(run)],


rule ablations:
    input:
        [LAYOUT.table(table, "md") for table in CONFIG.tables if table.startswith("ablations-")],


# Tables of the authors' published retrievers: evaluation alone.
rule released:
    input:
        [
            path(table, "md")
            for table in CONFIG.tables
            if table.startswith("released")
            for path in (LAYOUT.table, LAYOUT.comparison)
        ],


include: "workflow/rules/plan.smk"
include: "workflow/rules/smoke.smk"
include: "workflow/rules/site.smk"
include: "workflow/rules/preflight.smk"
include: "workflow/rules/targets.smk"
