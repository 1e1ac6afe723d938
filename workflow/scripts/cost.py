"""What relating the documents of a batch costs REPLUG and Revela, measured."""

from job import job

with job(snakemake):
    from revela.evaluation.timing import write_cost
    from revela.study.study import Cell, load

    settings = load(snakemake.config["study"]).training_settings(Cell.parse(snakemake.wildcards.cell))
    write_cost(snakemake.input.retriever, snakemake.input.lm, snakemake.input.data, settings, snakemake.output[0])
