"""One process of a training run: it builds what the job says, trains it, keeps the log and the checkpoints, exports it.

    torchrun --standalone --nproc_per_node N -m revela.training.entry JOB.json     (python -m ... for one process)

What decides the weights is in `revela.training.loop` and in the method's objective. Here is everything around them.

Exit status: 0 the cell is complete; 75 it was told to stop or its time is up, and a checkpoint is saved: submit it
again; 76 another process of the run has ended; anything else is an error.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
import warnings

import deepspeed
import torch
import torch.distributed as dist

from revela.errors import RevelaError
from revela.method.packing import PackingError
from revela.objectives.tokens import ObjectiveError
from revela.pretrained import load_tokenizer
from revela.provenance import git_commit
from revela.study.cell import Cell
from revela.study.reason import give, note
from revela.training.advice import exhausted, out_of_memory
from revela.training.checkpoint import Checkpoints, SaveError, is_cut_off
from revela.training.devices import DeviceError, check
from revela.training.engine import set_arithmetic
from revela.training.examination import check_chunks, examine, tokens_line
from revela.training.fitting import decide, recompute
from revela.training.job import Job, fingerprint, read_job
from revela.training.launch import CUT_OFF, RESUBMIT, configure_malloc, end_with_parent
from revela.training.log import TENSORBOARD, Log
from revela.training.loop import count_steps, prepare, sum_over_processes, train
from revela.training.rows import Rows, ScoreError
from revela.training.speed import Speedometer
from revela.training.start import beginning_with, check_backbones
from revela.training.trained import export, weights_of
from revela.training.watch import FILE, GAIN, Watch, first_of_several_documents, watched

OF_TORCHRUN = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
# Met by one process; all processes meet the others.
OWN_ERRORS = (PackingError, ObjectiveError, SaveError, ScoreError, OSError)


def main(arguments: list[str]) -> int:
    """Runs the job of a JSON file and returns the exit status."""
    set_arithmetic()  # first, for threads have it from the one that starts them
    stop = StopRequest()
    try:
        check([int(os.environ.get("LOCAL_RANK", "0"))])
    except DeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    join_processes()
    try:
        job = read_job(arguments)
        if job.time_budget_minutes is not None:
            stop.deadline = stop.started + 60 * job.time_budget_minutes
        configure_malloc(Cell.parse(job.cell).batch_size // job.training.processes_per_batch)
        rows = Rows(job.data, job.scores, job.training.seed)
        job = fitted(job, rows, arguments[0])
        complete = run(job, rows, stop)
        if not complete and dist.get_rank() == 0:
            give(arguments[0], stop.why(job))
    except Exception as error:
        if exhausted(error):
            return fail(arguments, out_of_memory(job, error))
        if is_cut_off(error):
            return CUT_OFF  # the process that has ended says why, or whoever started it
        if not isinstance(error, (RevelaError, OSError)):  # its traceback goes to the log
            give(arguments[0], f"{type(error).__name__}: {error}")
            raise
        if dist.get_rank() == 0 or isinstance(error, OWN_ERRORS):
            fail(arguments, " ".join(str(error).split()))
        return 1
    dist.destroy_process_group()
    return 0 if complete else RESUBMIT


def fail(arguments: list[str], message: str) -> int:
    """Says why the run fails, to its log and as data beside the job's file."""
    print(f"error: {message}", file=sys.stderr)
    if len(arguments) == 1:
        give(arguments[0], message)
    return 1


def fitted(job: Job, rows: Rows, task: str) -> Job:
    """The job with gradient checkpointing on or off, once models and text are known to do and to fit into memory.

    task: the job's file.
    """
    examine(job.training, job.retriever, job.lm)
    if job.lm:
        check_chunks(rows.table, load_tokenizer(job.lm), job.data)
    memory = decide(job, rows.table)
    if dist.get_rank() == 0:
        lines = [memory.line, tokens_line(job.training, rows.table, job.retriever, job.lm)]
        print(*lines, sep="\n", file=sys.stderr)
        note(task, "\n".join(f"{job.cell}: {line}" for line in lines))
    return job.model_copy(update={"gradient_checkpointing": memory.checkpointing})


def run(job: Job, rows: Rows, stop: StopRequest) -> bool:
    """Trains a cell, from its newest checkpoint if there is one, and exports it. False: stopped before the end."""
    settings, method, started = job.training, Cell.parse(job.cell).needs, time.monotonic()
    first, processes = dist.get_rank() == 0, dist.get_world_size()
    steps = count_steps(settings, rows, processes)
    objective = method.load_objective()
    if job.start:
        check_backbones(job.start, job.retriever, job.lm)
        objective = beginning_with(job.start, objective)
    engine = prepare(objective, settings, job.retriever, job.lm, steps)
    if job.gradient_checkpointing:
        recompute(engine.module)
    start = weights_of(engine)  # of which checkpoints know nothing
    checkpoints = Checkpoints(job.checkpoints, fingerprint(job) if first else {})
    done = checkpoints.restore(engine) or {"step": 0, "elapsed": 0.0, "commits": []}
    commits = list(dict.fromkeys([*done["commits"], git_commit()]))
    log = Log(checkpoints.log, steps) if first else None
    record = checkpoints.folder / FILE if first else None
    watch = Watch(engine.module, first_of_several_documents(rows.table), record, watched(steps))
    watch(done["step"])
    speedometer = Speedometer(method.load_operations(), engine.module)
    for step in train(engine, settings, rows, range(done["step"] + 1, steps + 1)):
        elapsed = done["elapsed"] + time.monotonic() - started
        speed = speedometer.read(step)
        (stops,) = sum_over_processes([stop.requested()])
        if log:
            log.write(
                {
                    "step": step.number,
                    **step.means,
                    "lr": step.learning_rate,
                    "grad_norm": step.gradient_norm,
                    **speed,
                    "elapsed": elapsed,
                    "gpu_hours": processes * torch.cuda.is_available() * elapsed / 3600,
                }
            )
        if step.number < steps and (stops or step.number % job.checkpoint_every == 0):
            checkpoints.save(engine, step.number, elapsed=elapsed, commits=commits)
        if step.number < steps and stops:
            if log:
                log.close()
                print(
                    f"stopped after step {step.number}/{steps}, which is saved; start it again to go on",
                    file=sys.stderr,
                )
            return False
        watch(step.number)
        speedometer.start()

    if log:
        log.close()
    records = [checkpoints.log, *(checkpoints.folder / name for name in (FILE, GAIN, TENSORBOARD))]
    export(job, engine, start, records, steps=steps, commits=commits, wall_seconds=elapsed)
    if first:
        checkpoints.remove()
    return True


class StopRequest:
    """Whether the run was told to stop by SIGTERM, or its time is up.

    started, deadline: by `time.monotonic`.
    """

    def __init__(self):
        self.signalled, self.started, self.deadline = False, time.monotonic(), math.inf
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_) -> None:
        self.signalled = True

    def why(self, job: Job) -> str:
        """A sentence on the stop."""
        why = "told to stop by SIGTERM"  # this process, or another one of the run
        if not self.signalled and time.monotonic() >= self.deadline:
            why = f"its time is up (time_budget_minutes: {job.time_budget_minutes:g})"
        return f"{job.cell}: {why}; a checkpoint is saved, so give the same command again to go on"

    def requested(self) -> bool:
        return self.signalled or time.monotonic() >= self.deadline


def join_processes() -> None:
    """Joins the processes of this run that torchrun started; without torchrun this process is the only one."""
    if OF_TORCHRUN <= os.environ.keys():
        # torchrun puts its processes into sessions of their own, where they would outlive it if it is killed.
        end_with_parent(signal.SIGKILL)
    else:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if os.environ["WORLD_SIZE"] == "1":
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group(backend)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled now; gloo does as well
    deepspeed.init_distributed(backend, auto_mpi_discovery=False)
    warnings.simplefilter("ignore", FutureWarning)  # DeepSpeed and PEFT call what will go; that is theirs to mend


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
