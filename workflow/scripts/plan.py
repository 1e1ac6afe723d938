"""The plan of every table, on the terminal and as plan.html and plan.csv."""

import os
import sys

from job import job

terminal = os.dup(1)
with job(snakemake):
    from revela.plan.jobs import main

    os.dup2(terminal, 1)
    params = snakemake.params
    sys.exit(main(["--tables", "--configfile", params.study, "--output", params.results]))
