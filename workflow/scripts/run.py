"""A run: a system ranks the documents of a task for each of its queries."""

from job import job

with job(snakemake):
    from revela.config import load
    from revela.evaluation.benchmarks import load_task
    from revela.evaluation.runs import write_run
    from revela.evaluation.systems import load_system

    study = load(snakemake.config["study"])
    task = study.task(snakemake.wildcards.benchmark, snakemake.wildcards.task)
    parts = load_task(task, snakemake.input.dataset, document_text=study.config.evaluation.document_text)
    system = load_system(snakemake.wildcards.system, study)
    rankings = (
        (part.key(query), ranking)
        for part in parts
        for query, ranking in system.search(part, study.config.evaluation.top_k)
    )
    write_run(snakemake.output[0], rankings, snakemake.wildcards.system.replace("/", "_"))
