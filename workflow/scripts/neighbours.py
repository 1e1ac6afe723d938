"""Find the nearest neighbours of each chunk by its embedding."""

from job import job

with job(snakemake):
    from revela.grouping.neighbours import by_embedding
    from revela.grouping.regrouped import write_neighbours
    from revela.study.grouping import NeighbourSpec

    spec, files = NeighbourSpec.model_validate(snakemake.params.spec), snakemake.input
    find = by_embedding(spec, files.vectors, threads=snakemake.threads)
    write_neighbours(spec, files.batches, find, snakemake.output.neighbours)
