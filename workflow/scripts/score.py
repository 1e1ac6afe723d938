"""Scores of a system on a benchmark, from its runs."""

from pathlib import Path

from job import job

with job(snakemake):
    from revela.evaluation.scores import score_benchmark
    from revela.study.study import load

    study = load(snakemake.config["study"])
    benchmark = snakemake.wildcards.benchmark
    runs = dict(zip([task.task for task in study.benchmark_tasks(benchmark)], snakemake.input.runs, strict=True))
    datasets = {Path(folder).name: folder for folder in snakemake.input.datasets}
    score_benchmark(snakemake.wildcards.system, study, benchmark, datasets, runs, snakemake.output[0])
