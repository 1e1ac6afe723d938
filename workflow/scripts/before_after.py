"""What an untrained backbone and a cell trained from it answer to ten queries."""

from pathlib import Path

from job import job

with job(snakemake):
    from revela.paper.before_after import write_before_after
    from revela.study.specification import ScoreSpec

    spec = ScoreSpec.model_validate(snakemake.params.spec)
    before, after = (
        dict(zip([task.task for task in spec.tasks], files, strict=True))
        for files in (snakemake.input.before, snakemake.input.after)
    )
    datasets = {Path(folder).name: folder for folder in snakemake.input.datasets}
    write_before_after(spec, datasets, before, after, snakemake.output[0])
