"""How long REPLUG and Revela take to relate the documents of a batch."""

from job import job

with job(snakemake):
    from revela.evaluation.timing import write_timing
    from revela.study.settings import Training

    write_timing(
        snakemake.input.retriever,
        snakemake.input.lm,
        snakemake.input.data,
        Training.model_validate(snakemake.params.spec),
        snakemake.output[0],
    )
