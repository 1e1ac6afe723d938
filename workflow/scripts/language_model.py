"""A language model on the tasks of lm-evaluation-harness."""

from pathlib import Path

from job import job

with job(snakemake):
    from revela.evaluation.language_models import score_language_model
    from revela.study.study import load

    system = snakemake.wildcards.system
    folder = Path(snakemake.input[0])
    if not system.startswith("untrained/"):  # a cell's folder holds both of its models
        folder /= "lm"
    datasets = {Path(dataset).name: dataset for dataset in snakemake.input.datasets}
    settings = load(snakemake.config["study"]).config.lm_evaluation
    score_language_model(system, folder, settings, datasets, snakemake.output[0])
