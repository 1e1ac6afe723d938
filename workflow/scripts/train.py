"""Train a cell: write down what `revela.training.loop` is to do, and launch it on the job's processes."""

import json
import os
import signal
import subprocess
import sys

from job import job

OUTCOMES = {0: "complete", 75: "resubmit"}

with job(snakemake):
    from revela.files import atomic_write
    from revela.study.study import Cell, load
    from revela.plan.usage import record

    study, cell = load(snakemake.config["study"]), Cell.parse(snakemake.wildcards.cell)
    settings = study.training_settings(cell)
    if settings.time_budget_minutes is None and "SLURM_JOB_ID" in os.environ:
        # The rest of the job's time is for saving.
        settings = settings.model_copy(update={"time_budget_minutes": 0.95 * snakemake.resources.runtime})
    checkpoints = f"{study.config.results}/checkpoints/{cell.path}"
    task = {
        "cell": cell.path,
        "training": settings.model_dump(mode="json"),
        "retriever": snakemake.input.retriever,
        "lm": snakemake.input.get("lm"),
        "data": snakemake.input.data,
        "scores": snakemake.input.get("scores"),
        "output": snakemake.output[0],
        "checkpoints": checkpoints,
    }
    task_file = f"{snakemake.log[0].removesuffix('.log')}.json"
    with atomic_write(task_file) as partial:
        partial.write_text(json.dumps(task, indent=1) + "\n")
    gpus = snakemake.resources.gpu
    command = [
        sys.executable,
        "-m",
        "revela.training.launch",
        task_file,
        f"--processes={gpus or snakemake.resources.processes}",
    ]
    signal.signal(signal.SIGTERM, lambda *_: None)  # the training got it, too, and is given the time to save
    with record(f"{study.config.results}/usage/{cell.path}", gpus=gpus) as attempt:
        status = subprocess.run([*command, f"--threads={snakemake.threads}"], check=False).returncode
        attempt["outcome"] = OUTCOMES.get(status, f"status {status}")
    sys.exit(status)
