"""Put the chunks of a corpus into batches."""

from job import job

with job(snakemake):
    from revela.study.specification import BatchSpec
    from revela.text.bars import bar
    from revela.text.batches import write_batches

    spec = BatchSpec.model_validate(snakemake.params.spec)
    write_batches(spec, list(snakemake.input), snakemake.output.batches, progress=bar)
