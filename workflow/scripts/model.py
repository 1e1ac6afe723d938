"""Fetch a pretrained model: a Hugging Face folder with a manifest."""

from job import job

with job(snakemake, network=True):
    from revela.study.source import parse_source
    from revela.study.specification import ModelSpec
    from revela.text.resources import fetch_model

    spec = ModelSpec.model_validate(snakemake.params.spec)
    source = parse_source("backbone", spec.source)
    fetch_model(spec.name, source, snakemake.output[0], snakemake.input.get("package"))
