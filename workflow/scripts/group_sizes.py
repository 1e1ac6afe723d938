"""Count the batches that a corpus would give with other numbers of documents in a group."""

from job import job

with job(snakemake):
    from revela.study.specification import GroupSizeSpec
    from revela.text.bars import bar
    from revela.text.report import compare_group_sizes

    spec = GroupSizeSpec.model_validate(snakemake.params.spec)
    compare_group_sizes(spec, snakemake.input[0], snakemake.output[0], progress=bar)
