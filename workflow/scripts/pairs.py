"""Make Contriever's pairs of a corpus."""

from job import job

with job(snakemake):
    from revela.study.specification import PairSpec
    from revela.text.bars import bar
    from revela.text.pairs import write_pairs

    spec = PairSpec.model_validate(snakemake.params.spec)
    write_pairs(spec, snakemake.input.batches, snakemake.input.punkt, snakemake.output.pairs, progress=bar)
