"""The figure of a corpus, from its counts."""

import json
from pathlib import Path

from job import job

with job(snakemake):
    from revela.paper.figure_corpus import corpus_figure

    report = json.loads(Path(snakemake.input[0]).read_text(encoding="utf-8"))
    corpus_figure(report, [snakemake.output.pdf, snakemake.output.png])
