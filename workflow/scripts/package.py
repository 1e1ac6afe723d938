"""Fetch a package's files: a folder with a manifest."""

from job import job

with job(snakemake, network=True):
    from revela.study.package import Package
    from revela.text.packages import fetch_package

    fetch_package(Package.model_validate(snakemake.params.spec), snakemake.output[0])
