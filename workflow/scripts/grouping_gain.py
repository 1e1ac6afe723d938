"""Measure what a cell's models make of a corpus's batches."""

from job import job

with job(snakemake):
    from revela.grouping.gain import write_gain
    from revela.study.grouping import GainSpec
    from revela.text.bars import bar

    files = snakemake.input
    write_gain(
        GainSpec.model_validate(snakemake.params.spec),
        files.batches,
        files.cell,
        files.retriever,
        files.lm,
        snakemake.output[0],
        progress=bar,
    )
