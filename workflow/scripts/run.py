"""A run: a system ranks the documents of a task for each of its queries."""

from pathlib import Path

from job import job

with job(snakemake):
    from revela.evaluation.systems import load_system, run_task
    from revela.study.study import load

    study = load(snakemake.config["study"])
    task = study.task(snakemake.wildcards.benchmark, snakemake.wildcards.task)
    system = load_system(snakemake.wildcards.system, study)
    # undeclared, so that it outlives a job that was killed
    state = Path(study.config.results, "checkpoints", "run", system.name, task.benchmark, task.task)
    run_task(system, study.config.evaluation, task, snakemake.input.dataset, snakemake.output[0], state=state)
