"""Put the chunks of a corpus's batches into other batches."""

from job import job

with job(snakemake):
    from revela.grouping.regrouped import write_regrouped
    from revela.study.grouping import RegroupSpec
    from revela.text.bars import bar

    files = snakemake.input
    write_regrouped(
        RegroupSpec.model_validate(snakemake.params.spec),
        files.batches,
        snakemake.output.batches,
        neighbours=files.get("neighbours"),
        alike=files.get("alike"),
        progress=bar,
    )
