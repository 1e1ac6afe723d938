"""Find the nearest neighbours of each chunk by its embedding."""

from job import job

with job(snakemake):
    import numpy as np

    from revela.grouping.chunks import coded, column, rows
    from revela.grouping.neighbours import EXACT_ON_CPU, neighbours, recall
    from revela.grouping.regrouped import write_neighbours
    from revela.study.grouping import NeighbourSpec

    spec, batches = NeighbourSpec.model_validate(snakemake.params.spec), snakemake.input.batches
    vectors = np.load(snakemake.input.vectors, mmap_mode="r")
    documents = column(batches, "document") if spec.documents else None

    def _find(source, numbers, k):
        own, of_document = rows(vectors, numbers), None if documents is None else coded(documents, numbers)
        found = neighbours(own, k, documents=of_document, threads=snakemake.threads, seed=spec.seed)
        if len(own) <= EXACT_ON_CPU:
            return *found, None
        return *found, recall(own, found, documents=of_document, seed=spec.seed)

    write_neighbours(batches, spec.batch_size, spec.neighbours, _find, snakemake.output.neighbours)
