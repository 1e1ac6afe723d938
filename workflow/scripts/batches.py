"""Chunks of a corpus, in batches."""

from job import job

with job(snakemake):
    from revela.config import Corpus
    from revela.corpora import write_batches

    write_batches(
        Corpus(**snakemake.params.corpus),
        list(snakemake.input),
        snakemake.output.batches,
        batch_size=int(snakemake.wildcards.batch_size),
        seed=snakemake.params.seed,
    )
