"""Where each value of a table came from."""

from job import job

with job(snakemake):
    from revela.config import load
    from revela.paper.lineage import write_lineage

    write_lineage(load(snakemake.config["study"]), snakemake.wildcards.table, snakemake.output[0])
