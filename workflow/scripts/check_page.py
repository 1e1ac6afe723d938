"""All comparisons with the paper on one page."""

from job import job

with job(snakemake):
    from revela.config import load
    from revela.paper.check import write_check

    write_check(load(snakemake.config["study"]), dict(snakemake.output.items()))
