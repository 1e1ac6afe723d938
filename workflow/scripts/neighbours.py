"""Find the nearest neighbours of each chunk by its embedding."""

from job import job

with job(snakemake):
    import numpy as np

    from revela.grouping.chunks import rows
    from revela.grouping.neighbours import neighbours, recall
    from revela.grouping.regrouped import write_neighbours
    from revela.study.grouping import NeighbourSpec

    spec, files = NeighbourSpec.model_validate(snakemake.params.spec), snakemake.input
    vectors = np.load(files.vectors, mmap_mode="r")

    def _find(source, numbers, of_document, k):
        own, exact = rows(vectors, numbers), spec.is_exact(len(numbers))
        found = neighbours(own, k, documents=of_document, exact=exact, threads=snakemake.threads, seed=spec.seed)
        return *found, None if exact else recall(own, found, documents=of_document, seed=spec.seed)

    output = snakemake.output.neighbours
    write_neighbours(files.batches, spec.batch_size, spec.neighbours, _find, output, documents=spec.documents)
