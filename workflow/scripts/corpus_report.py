"""The counts of a corpus, in one file and one figure."""

from job import job

with job(snakemake):
    from revela.paper.figures import corpus_figure
    from revela.text.report import write_report

    files = snakemake.input
    report = write_report(files.get("chunks"), files.batches, files.get("group_sizes"), snakemake.output.json)
    corpus_figure(report, [snakemake.output.pdf, snakemake.output.png])
