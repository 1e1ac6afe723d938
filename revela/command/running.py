"""Snakemake at work on a study: it is started, followed by bars, and where a job fails its error is found."""

from __future__ import annotations

import fcntl
import glob
import os
import re
import select
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from revela.errors import RevelaError
from revela.provenance import CHECKOUT
from revela.study import reason
from revela.study.layout import LOG, Layout
from revela.workflow import snakemake

PROFILE = CHECKOUT / "workflow/profiles/local"
# How a failed job's log ends: with the project's line, or with the last line of a traceback.
ERROR = re.compile(r"error: (.*)|(?:\[rank\d+\]: )?((?:\w+\.)*\w*(?:Error|Exception): .*)")
# How Snakemake announces a job: by its message, or by its rule where that has none.
JOB = re.compile(rb"Job \d+: (.+)|(?:local)?rule (\w+):")
# What a job tells at once: about its memory.
NOTE = re.compile(rb"\S+: memory: ")
PROGRESS = re.compile(rb"(\d+) of (\d+) steps")


class RunError(RevelaError):
    """A run of the workflow that failed, or that may not start. The message is one line."""


def run(config: str | Path, layout: Layout, targets: Sequence[str], *, cores: int) -> None:
    """Lets Snakemake make targets of a study. Its own output goes to `snakemake.log` in the configuration's folder.

    On a terminal, bars show the jobs and the steps of training; elsewhere each job is a line.

    Args:
        config: The configuration of the study.
        layout: The study's paths.
        targets: What to make.
        cores: CPU cores.

    Raises:
        RunError: Another run is at work, or a job failed: the message is that job's.
    """
    command = snakemake("--profile", str(PROFILE), "--cores", str(cores))
    command += ["--configfile", str(config), "--nolock", "--", *targets]
    log = Path(config).with_name("snakemake.log")
    with log.open("ab") as written:
        try:
            fcntl.flock(written, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Snakemake inherits the lock, which ends with it
        except BlockingIOError:
            raise RunError(f"{log.parent}: another run is at work here") from None
        written.truncate(0)
        os.utime(written.fileno())
        started = os.fstat(written.fileno()).st_mtime  # by the clock of files, which lags behind that of `time`
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "pass_fds": [written.fileno()]}
        process = subprocess.Popen(command, **pipes, start_new_session=True)
        try:
            for line in _watch(process, layout):
                written.write(line + b"\n")
                written.flush()
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)  # training saves a checkpoint on it
            process.wait()
            raise
    if process.wait() != 0:
        raise RunError(_reason(layout, started) or f"{_last_line(log)} (log: {log})")


def _reason(layout: Layout, started: float) -> str | None:
    """The error of the job that failed last, with its log; None where nothing written since `started` holds one.

    Jobs hand it up. One that could not even begin has it in its log alone.
    """
    if said := next(reason.given(layout.log("**", "*"), started), None):
        return said
    logs = [path for path in _glob(layout.log("**", "*")) if path.stat().st_mtime >= started]
    for path in sorted(logs, key=os.path.getmtime, reverse=True):
        for line in reversed(path.read_text(encoding="utf-8", errors="replace").splitlines()):
            if found := ERROR.match(line):
                return f"{found[1] or found[2]} (log: {path})"
    return None


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1] if lines else "Snakemake said nothing"


def _watch(process: subprocess.Popen, layout: Layout) -> Iterator[bytes]:
    """Snakemake's lines, while bars follow the jobs and the training."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console, training, rest = Console(stderr=True), None, b""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        jobs = progress.add_task("jobs", total=None)
        while True:
            if select.select([process.stdout], [], [], 0.2)[0]:
                read = os.read(process.stdout.fileno(), 1 << 16)
                if not read:
                    return
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    yield line
                    if found := JOB.match(line):
                        job = (found[1] or found[2]).decode(errors="replace")
                        progress.update(jobs, description=job)
                        if not console.is_terminal:
                            console.print(job, markup=False)
                    if NOTE.match(line):
                        console.print(line.decode(errors="replace"), markup=False, highlight=False, soft_wrap=True)
                    if found := PROGRESS.match(line):
                        progress.update(jobs, completed=int(found[1]), total=int(found[2]))
            if steps := _training_steps(layout):
                training = progress.add_task("steps of training", total=None) if training is None else training
                progress.update(training, completed=steps)


def _training_steps(layout: Layout) -> int:
    """Steps in the log of the training that is running; 0 if none is."""
    try:
        return sum(path.read_bytes().count(b"\n") for path in _glob(f"{layout.checkpoints('**')}/{LOG}"))
    except FileNotFoundError:  # it has just ended
        return 0


def _glob(pattern: str) -> list[Path]:
    return [Path(name) for name in glob.glob(pattern, recursive=True)]
