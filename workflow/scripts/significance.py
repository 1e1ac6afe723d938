"""Whether one system is better than another on a benchmark."""

from pathlib import Path

from job import job

with job(snakemake):
    from revela.evaluation.significance import as_text, write_significance

    a, b = Path(snakemake.input.a), Path(snakemake.input.b)
    found = write_significance(a, b, snakemake.output[0], snakemake.params.seed)
    print(as_text(found["a"], found["b"], "nDCG@10", found["metrics"]["nDCG@10"]))
