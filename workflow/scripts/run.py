"""A run: a system ranks the documents of a task for each of its queries."""

from job import job

with job(snakemake):
    from revela.config import load
    from revela.evaluation.systems import load_system, run_task

    study = load(snakemake.config["study"])
    task = study.task(snakemake.wildcards.benchmark, snakemake.wildcards.task)
    system = load_system(snakemake.wildcards.system, study)
    run_task(system, study.config.evaluation, task, snakemake.input.dataset, snakemake.output[0])
