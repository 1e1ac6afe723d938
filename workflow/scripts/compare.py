"""A table's measured values beside the paper's printed ones."""

from job import job

with job(snakemake):
    from revela.paper.compare import write_comparison

    write_comparison(
        snakemake.wildcards.table, snakemake.input.table, snakemake.input.printed, dict(snakemake.output.items())
    )
