"""Documents of a corpus, cut into chunks."""

from pathlib import Path

from job import job

with job(snakemake):
    from revela.study.study import load
    from revela.text.corpora import write_chunks

    corpus = load(snakemake.config["study"]).config.corpora[snakemake.wildcards.corpus]
    write_chunks(
        corpus,
        {Path(folder).name: folder for folder in snakemake.input.datasets},
        snakemake.input.punkt,
        snakemake.output.chunks,
        max_words=snakemake.params.max_words,
        workers=snakemake.threads,
    )
