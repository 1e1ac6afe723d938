"""Find the nearest neighbours of each chunk by BM25."""

from job import job

with job(snakemake):
    from revela.evaluation.bm25 import BM25
    from revela.grouping.bm25_neighbours import bm25_neighbours
    from revela.grouping.chunks import coded, column
    from revela.grouping.regrouped import write_neighbours
    from revela.study.grouping import NeighbourSpec
    from revela.text.bars import bar

    spec = NeighbourSpec.model_validate(snakemake.params.spec)
    system, [batches] = spec.system, snakemake.input
    ranker = BM25(system.name, k1=system.k1, b=system.b, weigh_queries=system.weigh_queries)
    text, documents = column(batches, "text"), column(batches, "document") if spec.documents else None

    def _find(source, numbers, k):
        of_document, texts = None if documents is None else coded(documents, numbers), text.take(numbers).to_pylist()
        return *bm25_neighbours(texts, k, ranker, source, documents=of_document, progress=bar), None

    write_neighbours(batches, spec.batch_size, spec.neighbours, _find, snakemake.output.neighbours)
