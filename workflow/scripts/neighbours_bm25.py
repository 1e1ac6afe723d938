"""Find the nearest neighbours of each chunk by BM25."""

from job import job

with job(snakemake):
    from revela.evaluation.bm25 import BM25
    from revela.grouping.bm25_neighbours import bm25_neighbours
    from revela.grouping.chunks import column
    from revela.grouping.regrouped import write_neighbours
    from revela.study.grouping import NeighbourSpec
    from revela.text.bars import bar

    spec = NeighbourSpec.model_validate(snakemake.params.spec)
    system, [batches] = spec.system, snakemake.input
    ranker = BM25(system.name, k1=system.k1, b=system.b, weigh_queries=system.weigh_queries)
    text, output = column(batches, "text"), snakemake.output.neighbours

    def _find(source, numbers, of_document, k):
        texts = text.take(numbers).to_pylist()
        return *bm25_neighbours(texts, k, ranker, source, documents=of_document, progress=bar), None

    write_neighbours(batches, spec.batch_size, spec.neighbours, _find, output, documents=spec.documents)
