"""All comparisons with the paper on one page."""

from job import job

with job(snakemake):
    from revela.paper.check import write_check
    from revela.study.layout import Layout
    from revela.study.tables import CheckSpec

    spec = CheckSpec.model_validate(snakemake.params.spec)
    write_check(spec, Layout(snakemake.params.results), dict(snakemake.output.items()))
