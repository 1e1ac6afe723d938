"""Punkt's parameters: NLTK's own, or trained on a dataset."""

from job import job

with job(snakemake, network=True):
    from revela.study.study import Source
    from revela.text.documents import documents
    from revela.text.resources import build_punkt

    texts = None
    if snakemake.params.source:
        source = Source.model_validate(snakemake.params.source)
        texts = (text for _, text in documents(source, snakemake.input[0]) if text)
    build_punkt(snakemake.output[0], texts)
