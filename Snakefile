# raw text -> chunks -> batches -> trained cells -> runs -> scores -> tables and figures
#
#   snakemake --cores all --configfile config/demo.yaml       the embedded demo, on any machine
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


if CONFIG.scale == "demo":

    include: "workflow/rules/backbone.smk"


localrules:
    all,
    tables,
    figures,
    models,
    ablations,
    released,


# Models are named for their own sake: one that was deleted is made again, with all that was made of it.
rule all:
    default_target: True
    input:
        TABLES,
        FIGURES,
        [f"{R}/models/{cell}" for cell in CELLS],


rule tables:
    input:
        TABLES,


rule figures:
    input:
        FIGURES,


# Cells of the sheet; those that stand in tables made on request alone are trained for them.
rule models:
    input:
        [f"{R}/models/{run.cell.path}" for run in STUDY.runs if not STUDY.on_request(run)],


rule ablations:
    input:
        [f"{R}/tables/{table}.md" for table in CONFIG.tables if table.startswith("ablations-")],


# Tables of the authors' published retrievers: evaluation alone.
rule released:
    input:
        [f"{R}/tables/{table}.{suffix}" for table in RELEASED for suffix in ("md", "compare.md")],


include: "workflow/rules/plan.smk"
include: "workflow/rules/site.smk"


check_targets()
