"""Export a trained cell for sentence-transformers."""

from job import job

with job(snakemake):
    from revela.export.formats import export_sentence_transformer

    export_sentence_transformer(snakemake.input.model, snakemake.output[0], scores=snakemake.input.scores)
