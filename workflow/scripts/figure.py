"""A figure, and the numbers behind it."""

from job import job

with job(snakemake):
    from revela.paper.figures import write_figure
    from revela.study.study import load

    files = [snakemake.output.pdf, snakemake.output.png]
    study = load(snakemake.config["study"])
    write_figure(study, snakemake.wildcards.figure, snakemake.params.cells, files, snakemake.output.data)
