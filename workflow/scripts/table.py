"""A table of the paper, with our numbers."""

from job import job

with job(snakemake):
    from revela.paper.tables import write_table
    from revela.study.study import load

    write_table(load(snakemake.config["study"]), snakemake.wildcards.table, dict(snakemake.output.items()))
