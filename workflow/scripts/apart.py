"""Leave out the documents of a corpus that share text with benchmarks."""

from itertools import chain

from job import job

with job(snakemake):
    from revela.evaluation.tasks import load_task
    from revela.study.specification import ApartSpec
    from revela.text.apart import write_apart
    from revela.text.bars import bar

    texts = {}
    for task, folder in zip(
        ApartSpec.model_validate(snakemake.params.spec).tasks, snakemake.input.benchmarks, strict=True
    ):
        parts = load_task(task, folder)
        texts[task.key] = chain.from_iterable((*part.corpus.unique_texts(), *part.queries.values()) for part in parts)
    write_apart(texts, snakemake.input.chunks, snakemake.output.chunks, progress=bar)
