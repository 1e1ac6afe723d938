"""Contriever's pairs of a corpus."""

from job import job

with job(snakemake):
    from revela.config import Corpus
    from revela.corpora import write_pairs

    write_pairs(
        Corpus(**snakemake.params.corpus),
        snakemake.input[0],
        snakemake.output.pairs,
        batch_size=int(snakemake.wildcards.batch_size),
        seed=snakemake.params.seed,
    )
