"""Chunks of a corpus, in batches."""

from job import job

with job(snakemake):
    from revela.study.study import load
    from revela.text.corpora import write_batches

    corpus = load(snakemake.config["study"]).config.corpora[snakemake.wildcards.corpus]
    write_batches(
        corpus,
        list(snakemake.input),
        snakemake.output.batches,
        batch_size=int(snakemake.wildcards.batch_size),
        seed=snakemake.params.seed,
    )
