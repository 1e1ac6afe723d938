"""A table of the paper, with our numbers."""

from job import job

with job(snakemake):
    from revela.paper.tables import write_table
    from revela.study.layout import Layout
    from revela.study.tables import TableSpec

    spec = TableSpec.model_validate(snakemake.params.spec)
    write_table(spec, Layout(snakemake.params.results), dict(snakemake.output.items()))
