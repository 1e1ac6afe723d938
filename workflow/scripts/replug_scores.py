"""REPLUG's language model scores of a corpus's batches."""

from functools import partial

from job import job

with job(snakemake):
    from tqdm import tqdm

    from revela.objectives.replug_scores import write_scores
    from revela.study.specification import ReplugScoreSpec

    write_scores(
        snakemake.input.lm,
        snakemake.input.batches,
        snakemake.output[0],
        ReplugScoreSpec.model_validate(snakemake.params.spec),
        workers=snakemake.resources.get("gpu") or 1,
        progress=partial(tqdm, desc="REPLUG scores", disable=None),
    )
