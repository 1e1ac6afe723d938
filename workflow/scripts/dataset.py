"""Fetch or build a dataset: a folder with a manifest."""

from job import job

with job(snakemake, network=True):
    from revela.config import Dataset
    from revela.resources import fetch_dataset

    fetch_dataset(Dataset(**snakemake.params.dataset), snakemake.output[0])
