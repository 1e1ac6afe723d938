"""Leave out the documents of a corpus that share text with benchmarks."""

from itertools import chain

from job import job

with job(snakemake):
    from revela.evaluation.tasks import load_task
    from revela.study.specification import ApartSpec
    from revela.text.apart import write_apart
    from revela.text.bars import bar

    tasks, folders = ApartSpec.model_validate(snakemake.params.spec).tasks, snakemake.input.benchmarks
    parts = {task.key: load_task(task, folder) for task, folder in zip(tasks, folders, strict=True)}
    texts = {task: chain.from_iterable(part.texts() for part in of_task) for task, of_task in parts.items()}
    write_apart(texts, snakemake.input.chunks, snakemake.output.chunks, progress=bar)
