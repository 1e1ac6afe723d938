"""The plan of every table, on the terminal and as plan.html and plan.csv."""

import os

from job import job

terminal = os.dup(1)
with job(snakemake):
    from revela.plan.jobs import plan_tables, show, show_lines, write
    from revela.study.study import load

    study = snakemake.config["study"]
    plans, results = plan_tables(study), load(study).config.results
    write(plans, results)
    text = f"{show_lines(plans)}\n\nAll tables:\n\n{show(plans['all tables'])}\n\n{results}/plan.html, {results}/plan.csv\n"
    os.write(terminal, f"\n{text}\n".encode())
