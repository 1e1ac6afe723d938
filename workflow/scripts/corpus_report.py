"""Gather the counts of a corpus in one file."""

from job import job

with job(snakemake):
    from revela.text.report import write_report

    files = snakemake.input
    write_report(
        files.get("chunks"),
        files.batches,
        files.get("group_sizes"),
        snakemake.output[0],
        apart=files.get("apart"),
        grouping=files.get("grouping"),
    )
