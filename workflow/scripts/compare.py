"""A table's measured values beside the paper's printed ones."""

from job import job

with job(snakemake):
    from revela.paper.compare import write_comparison
    from revela.study.study import load

    write_comparison(load(snakemake.config["study"]), snakemake.wildcards.table, dict(snakemake.output.items()))
