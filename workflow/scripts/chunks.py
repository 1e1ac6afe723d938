"""Cut the documents of a corpus into chunks."""

from pathlib import Path

from job import job

with job(snakemake):
    from revela.study.specification import ChunkSpec
    from revela.text.bars import bar
    from revela.text.chunks import write_chunks

    write_chunks(
        ChunkSpec.model_validate(snakemake.params.spec),
        {Path(folder).name: folder for folder in snakemake.input.datasets},
        snakemake.input.punkt,
        snakemake.output.chunks,
        workers=snakemake.threads,
        progress=bar,
    )
