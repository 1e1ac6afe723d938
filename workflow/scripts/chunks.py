"""Cut the documents of a corpus into chunks."""

from pathlib import Path

from job import job

with job(snakemake) as terminal:
    from revela.study.specification import ChunkSpec
    from revela.text.bars import bar
    from revela.text.chunks import write_chunks

    counts = write_chunks(
        ChunkSpec.model_validate(snakemake.params.spec),
        {Path(folder).name: folder for folder in snakemake.input.datasets},
        snakemake.input.get("punkt"),
        snakemake.output.chunks,
        tokenizer=snakemake.input.get("tokenizer"),
        workers=snakemake.threads,
        progress=bar,
    )
    if (left_out := counts.get("left_out", {})).get("chunks"):
        print(
            f"{snakemake.wildcards.corpus}: chunks: {left_out['chunks']} are left out, for the retriever has no token for "
            f"them; the first is of {left_out['first']}",
            file=terminal,
            flush=True,
        )
