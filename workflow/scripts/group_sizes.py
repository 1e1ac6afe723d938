"""What a corpus's batches would be with other numbers of documents in a group."""

from job import job

with job(snakemake):
    from revela.study.study import load
    from revela.text.report import compare_group_sizes

    corpus = load(snakemake.config["study"]).config.corpora[snakemake.wildcards.corpus]
    compare_group_sizes(corpus, snakemake.input[0], snakemake.output[0], batch_size=16, seed=snakemake.params.seed)
