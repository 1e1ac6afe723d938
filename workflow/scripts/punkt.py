"""Punkt's parameters: NLTK's own, or trained on a dataset."""

from pathlib import Path

from job import job

with job(snakemake, network=True):
    from revela.config import Source, load
    from revela.documents import documents
    from revela.resources import build_punkt

    texts = None
    if snakemake.input:  # a dataset, read as the corpus that it is a source of reads it
        corpora, dataset = load(snakemake.config["study"]).config.corpora.values(), Path(snakemake.input[0]).name
        sources = [source for corpus in corpora for source in corpus.sources if source.dataset == dataset]
        texts = (text for _, text in documents((sources or [Source(dataset=dataset)])[0], snakemake.input[0]) if text)
    build_punkt(snakemake.output[0], texts)
