"""Compare a regrouped corpus's batches with those that they were made of."""

from job import job

with job(snakemake):
    from revela.grouping.report import write_report
    from revela.study.grouping import GroupingReportSpec

    spec, files = GroupingReportSpec.model_validate(snakemake.params.spec), snakemake.input
    write_report(
        (spec.before, files.before),
        (spec.after, files.after),
        files.get("neighbours"),
        (snakemake.output.json, snakemake.output.md),
        documents=spec.documents,
        seed=spec.seed,
        gains=files.get("gains", ()),
    )
