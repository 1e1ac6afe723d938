"""The scores that others published, and those found here."""

from pathlib import Path

from job import job

with job(snakemake):
    from revela.evaluation.anchors import check_anchors, write_anchors
    from revela.study.study import load

    study = load(snakemake.config["study"])
    datasets = {Path(folder).name: folder for folder in snakemake.input.datasets}
    runs = dict(zip([anchor.key for anchor in study.anchors], snakemake.input.runs, strict=True))
    rows = check_anchors(study, datasets, runs)
    write_anchors(rows, snakemake.output.csv, snakemake.output.md)
    print(Path(snakemake.output.md).read_text())
