"""Punkt's parameters: NLTK's own, or trained on a dataset."""

from job import job

with job(snakemake, network=True):
    from revela.corpora import texts
    from revela.resources import build_punkt

    build_punkt(snakemake.output[0], texts(snakemake.input[0]) if snakemake.input else None)
