"""Fetch a pretrained model: a Hugging Face folder with a manifest."""

from job import job

with job(snakemake, network=True):
    from revela.study.study import Model
    from revela.text.resources import fetch_model

    fetch_model(Model(**snakemake.params.model), snakemake.output[0])
