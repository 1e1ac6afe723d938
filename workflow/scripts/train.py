"""Train a cell: write the job of `revela.training.entry`, and launch it on the job's processes."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time

from job import job

OUTCOMES = {0: "complete", 75: "resubmit"}

nodes = snakemake.resources.nodes

with job(snakemake, check_gpus=False, claim_gpus=nodes == 1) as terminal:
    from revela.errors import RevelaError
    from revela.files import write_json
    from revela.plan.available import most
    from revela.plan.usage import record
    from revela.study import reason
    from revela.study.layout import Layout
    from revela.study.settings import Compute
    from revela.study.specification import TrainingSpec

    spec = TrainingSpec.model_validate(snakemake.params.spec)
    compute, layout = Compute.model_validate(snakemake.params.compute), Layout(snakemake.params.results)
    minutes = compute.time_budget_minutes
    if minutes is None and "SLURM_JOB_ID" in os.environ:
        minutes = 0.95 * snakemake.resources.runtime  # the rest of the job's time is for saving
    task = {
        "cell": spec.cell,
        "training": spec.settings.model_dump(mode="json"),
        "gradient_checkpointing": compute.gradient_checkpointing,
        "checkpoint_every": compute.checkpoint_every,
        "time_budget_minutes": minutes,
        "retriever": snakemake.input.retriever,
        "lm": snakemake.input.get("lm"),
        "data": snakemake.input.data,
        "scores": snakemake.input.get("scores"),
        "start": snakemake.input.get("start"),
        "output": snakemake.output[0],
        "checkpoints": layout.checkpoints(spec.cell),
    }
    task_file = f"{snakemake.log[0].removesuffix('.log')}.json"
    write_json(task_file, task)
    gpus = snakemake.resources.gpu
    command = [
        *(sys.executable, "-m", "revela.training.launch", task_file),
        *(f"--processes={gpus or snakemake.resources.processes}", f"--threads={snakemake.threads}"),
    ]
    if nodes > 1:
        if "SLURM_JOB_ID" not in os.environ:
            raise RevelaError(f"compute.training_nodes: {nodes} nodes need SLURM (--profile slurm); without it, 1")
        with socket.socket() as free:
            free.bind(("", 0))
            meet = f"{socket.gethostname()}:{free.getsockname()[1]}"
        on_each = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", f"--cpus-per-task={snakemake.threads}"]
        command = [*on_each, *command, f"--nodes={nodes}", f"--meet={meet}"]
    signal.signal(signal.SIGTERM, lambda *_: None)  # the training gets it as well, and needs the time to save
    with record(layout.usage(spec.cell), gpus=gpus, nodes=nodes) as attempt:
        training = subprocess.Popen(command)
        while training.poll() is None and not reason.noted(task_file):
            time.sleep(0.2)
        if line := reason.noted(task_file):
            print(line, file=terminal, flush=True)
        status = training.wait()
        attempt["outcome"] = OUTCOMES.get(status, f"status {status}")
    if reason.killed(status):
        peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        advice = f"a smaller batch size, shorter chunks, or compute.gradient_checkpointing: true ({spec.cell})"
        reason.give(task_file, reason.want_of_memory(peak, most(), advice))
    sys.exit(status)
