"""Where each value of a table came from."""

from job import job

with job(snakemake):
    from revela.paper.lineage import write_lineage
    from revela.study.study import load

    write_lineage(load(snakemake.config["study"]), snakemake.wildcards.table, snakemake.output[0])
