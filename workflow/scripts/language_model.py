"""A language model on the tasks of lm-evaluation-harness."""

from pathlib import Path

from job import job

with job(snakemake):
    from revela.evaluation.language_models import score_language_model
    from revela.study.layout import Layout
    from revela.study.settings import LmEvaluation

    system, folder = snakemake.wildcards.system, snakemake.input.model
    layout = Layout(snakemake.params.results)
    if folder == layout.cell(system):  # a cell's folder holds both of its models
        folder = layout.cell_lm(system)
    datasets = {Path(dataset).name: dataset for dataset in snakemake.input.datasets}
    settings = LmEvaluation.model_validate(snakemake.params.spec)
    score_language_model(system, folder, settings, datasets, snakemake.output[0])
