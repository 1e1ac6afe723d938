"""Figure: the loss of every trained cell against its steps."""

from job import job

with job(snakemake):
    from revela.paper.figures import training_curves

    training_curves(dict(zip(snakemake.params.cells, snakemake.input, strict=True)), snakemake.output)
