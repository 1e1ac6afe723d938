"""Contriever's pairs of a corpus."""

from job import job

with job(snakemake):
    from revela.study.study import load
    from revela.text.pairs import write_pairs

    write_pairs(
        load(snakemake.config["study"]).config.corpora[snakemake.wildcards.corpus],
        snakemake.input.batches,
        snakemake.input.punkt,
        snakemake.output.pairs,
        batch_size=int(snakemake.wildcards.batch_size),
        seed=snakemake.params.seed,
    )
