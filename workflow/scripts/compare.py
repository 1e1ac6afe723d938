"""The measured values of a table beside the printed ones of the paper."""

from job import job

with job(snakemake):
    from revela.paper.compare import write_comparison
    from revela.study.layout import Layout
    from revela.study.tables import TableSpec

    spec = TableSpec.model_validate(snakemake.params.spec)
    write_comparison(spec, Layout(snakemake.params.results), dict(snakemake.output.items()))
