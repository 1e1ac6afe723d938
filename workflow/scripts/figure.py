"""Figure 4: mean scores against the batch size of training."""

from job import job

with job(snakemake):
    from revela.config import load
    from revela.paper.figures import batch_size_figure

    study = load(snakemake.config["study"])
    figure = study.config.figures[snakemake.wildcards.figure]
    tasks = {benchmark: [task.task for task in study.benchmark_tasks(benchmark)] for benchmark in figure.panels}
    batch_size_figure(figure, f"{study.config.results}/scores", tasks, snakemake.output)
