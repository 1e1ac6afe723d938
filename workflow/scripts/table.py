"""A table of the paper, with our numbers."""

from job import job

with job(snakemake):
    from revela.config import load
    from revela.paper.tables import write_table

    study, name = load(snakemake.config["study"]), snakemake.wildcards.table
    table, systems = study.config.tables[name], study.table_systems(name)
    apis = [system for system in systems.values() if system in study.models and study.models[system].kind == "api"]
    measured = [system for system in systems.values() if system not in apis]
    write_table(
        table,
        name,
        systems,
        apis,
        dict(zip(measured, snakemake.input.scores, strict=True)),
        {task.task: task.label for task in study.benchmark_tasks(table.benchmark)},
        dict(snakemake.output.items()),
    )
