"""All comparisons with the paper on one page."""

from job import job

with job(snakemake):
    from revela.paper.check import write_check
    from revela.study.study import load

    write_check(load(snakemake.config["study"]), dict(snakemake.output.items()))
