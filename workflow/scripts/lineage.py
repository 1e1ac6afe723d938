"""What stands behind each value of a table."""

from job import job

with job(snakemake):
    from revela.paper.lineage import write_lineage
    from revela.study.layout import Layout
    from revela.study.tables import LineageSpec

    spec = LineageSpec.model_validate(snakemake.params.spec)
    write_lineage(spec, Layout(snakemake.params.results), snakemake.output[0])
