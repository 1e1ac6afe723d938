"""Fetch or build a dataset: a folder with a manifest."""

from job import job

with job(snakemake, network=True):
    from revela.study.study import Dataset, load
    from revela.text.resources import fetch_dataset

    results = load(snakemake.config["study"]).config.results
    fetch_dataset(Dataset(**snakemake.params.dataset), snakemake.output[0], results=results)
