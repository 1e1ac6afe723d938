"""Embed all chunks of a corpus's batches with a system."""

from job import job

with job(snakemake):
    from revela.evaluation.systems import load_ranker
    from revela.grouping.embeddings import write_embeddings
    from revela.study.grouping import EmbeddingSpec
    from revela.study.layout import Layout
    from revela.study.settings import Compute
    from revela.text.bars import bar

    spec = EmbeddingSpec.model_validate(snakemake.params.spec)
    layout, names = Layout(snakemake.params.results), snakemake.wildcards
    compute = Compute.model_validate(snakemake.params.compute | {"store_embeddings": False})  # the output keeps them
    ranker = load_ranker(spec.system, layout, compute)
    write_embeddings(
        ranker,
        spec.system.folders(layout),
        snakemake.input.batches,
        int(names.batch_size),
        snakemake.output[0],
        # not declared as an output, so that it is still there after the job was killed
        state=layout.chunk_embeddings_state(names.corpus, names.batch_size, spec.system.name),
        progress=bar,
    )
