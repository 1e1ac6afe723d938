"""Find the nearest neighbours of each chunk by BM25."""

from job import job

with job(snakemake):
    from revela.grouping.bm25_neighbours import by_bm25
    from revela.grouping.regrouped import write_neighbours
    from revela.study.grouping import NeighbourSpec
    from revela.text.bars import bar

    spec, [batches] = NeighbourSpec.model_validate(snakemake.params.spec), snakemake.input
    write_neighbours(spec, batches, by_bm25(spec, batches, progress=bar), snakemake.output.neighbours)
