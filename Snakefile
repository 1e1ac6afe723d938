# raw text -> chunks -> batches -> trained cells -> runs -> scores -> tables and figures
#
#   snakemake --cores all --configfile config/demo.yaml       the embedded demo, on any machine
#   snakemake --profile slurm results/tables/table1.tex      a table of the paper, on a cluster
include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/corpus.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
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


rule models:
    input:
        [f"{R}/models/{run.cell.path}" for run in STUDY.runs],


include: "workflow/rules/site.smk"


check_targets()
