"""Scores of a system on a benchmark, from its runs."""

from pathlib import Path

from job import job

with job(snakemake):
    from revela.evaluation.scores import score_benchmark
    from revela.study.specification import ScoreSpec

    spec = ScoreSpec.model_validate(snakemake.params.spec)
    runs = dict(zip([task.task for task in spec.tasks], snakemake.input.runs, strict=True))
    datasets = {Path(folder).name: folder for folder in snakemake.input.datasets}
    score_benchmark(spec, datasets, runs, snakemake.output[0])
