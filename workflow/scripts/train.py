"""Train a cell: write down what `revela.training` is to do, and launch it on the job's processes."""

import json
import os
import subprocess
import sys

from job import job

MODULE = "revela.training"


def launch(processes, threads, task):
    """Run the training module and return its exit status: 75 where it stopped to be submitted again."""
    command = [sys.executable, "-m", MODULE, task]
    if processes > 1:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command += ["-m", MODULE, task]
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, threads // processes))}
    return subprocess.run(command, env=environment, check=False).returncode


with job(snakemake):
    from revela.config import Cell, load
    from revela.provenance import atomic_write

    study, cell = load(snakemake.config["study"]), Cell.parse(snakemake.wildcards.cell)
    settings = study.training_settings(cell)
    if settings.time_budget_minutes is None:  # the rest of the job's time is for saving
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
    sys.exit(launch(snakemake.resources.gpu or snakemake.resources.processes, snakemake.threads, task_file))
