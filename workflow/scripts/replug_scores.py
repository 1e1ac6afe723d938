"""REPLUG's language model scores of a corpus's batches."""

from job import job

with job(snakemake):
    from revela.objectives.replug import write_scores
    from revela.study.study import Training

    write_scores(
        snakemake.input.lm, snakemake.input.batches, snakemake.output[0], Training(**snakemake.params.settings)
    )
