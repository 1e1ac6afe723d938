"""The scores that others published, beside those found here."""

from pathlib import Path

from job import job

with job(snakemake):
    from revela.evaluation.anchors import check_anchors, write_anchors
    from revela.study.specification import AnchorSpec

    datasets = {Path(folder).name: folder for folder in snakemake.input.datasets}
    rows = check_anchors(AnchorSpec.model_validate(snakemake.params.spec), datasets, snakemake.input.runs)
    write_anchors(rows, snakemake.output.csv, snakemake.output.md)
    print(Path(snakemake.output.md).read_text())
