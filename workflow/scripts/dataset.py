"""Fetch or build a dataset: a folder with a manifest."""

from job import job

with job(snakemake, network=True):
    from revela.study.specification import DatasetSpec
    from revela.text.resources import fetch_dataset

    made_of = {name: snakemake.input.get(name) for name in ("package", "text")}
    fetch_dataset(DatasetSpec.model_validate(snakemake.params.spec), snakemake.output[0], **made_of)
