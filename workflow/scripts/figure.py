"""A figure, and the numbers behind it."""

from job import job

with job(snakemake):
    from revela.paper.figures import write_figure
    from revela.study.layout import Layout
    from revela.study.tables import FigureSpec

    spec, output = FigureSpec.model_validate(snakemake.params.spec), snakemake.output
    write_figure(spec, Layout(snakemake.params.results), [output.pdf, output.png, output.svg], output.data)
