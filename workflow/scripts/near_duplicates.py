"""Find chunks of a corpus's batches that are nearly the same."""

from job import job

with job(snakemake):
    import numpy as np

    from revela.files import atomic_write
    from revela.grouping.chunks import column
    from revela.grouping.near_duplicates import near_duplicates
    from revela.study.grouping import NearDuplicateSpec

    spec = NearDuplicateSpec.model_validate(snakemake.params.spec)
    texts = (text.as_py() for text in column(snakemake.input[0], "text"))
    labels = near_duplicates(texts, spec.threshold, spec.seed)
    with atomic_write(snakemake.output[0]) as partial:
        np.save(partial, labels)
