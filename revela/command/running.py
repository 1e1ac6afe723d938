"""Snakemake at work on a study: it is started, followed by bars, and where a job fails its error is found."""

from __future__ import annotations

import fcntl
import glob
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from revela.command.display import Display
from revela.errors import RevelaError
from revela.files import naming
from revela.root import root
from revela.study import reason
from revela.study.layout import Layout
from revela.training import devices
from revela.workflow import snakemake

PROFILE = root() / "workflow/profiles/local"
# How a failed job's log ends: with the project's line, or with the last line of a traceback.
ERROR = re.compile(r"error: (.*)|(?:\[rank\d+\]: )?((?:\w+\.)*\w*(?:Error|Exception): .*)")


class RunError(RevelaError):
    """A run of the workflow that failed, or that may not start. The message is one line."""


def run(config: str | Path, layout: Layout, targets: Sequence[str], *, cores: int, log: Path | None = None) -> None:
    """Lets Snakemake make targets of a study, and shows where it stands.

    Args:
        config: The configuration of the study.
        layout: The study's paths.
        targets: What to make.
        cores: CPU cores.
        log: Takes Snakemake's own output; by default `snakemake.log` in the configuration's folder.

    Raises:
        RunError: Another run is at work, or a job failed: the message is that job's.
    """
    gpus = max(1, len(devices.visible()))  # of which a profile knows nothing
    command = snakemake("--profile", str(PROFILE), "--cores", str(cores), "--resources", f"gpu={gpus}")
    command += ["--configfile", str(config), "--nolock", "--", *targets]
    log = log or Path(config).with_name("snakemake.log")
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
            with naming(log):
                for line in _watch(process, layout):
                    written.write(line + b"\n")
                    written.flush()
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)  # training saves a checkpoint on it
            process.wait()
            raise
    if process.wait() != 0:
        raise RunError(_reason(layout, started) or f"{_last_line(log)} (log: {log})")


def report(config: str | Path, output: str | Path, *, log: Path) -> None:
    """Has Snakemake pack what was made into a report. RunError with its last line where it cannot."""
    command = snakemake("--profile", str(PROFILE), "--configfile", str(config), "--nolock", "--report", str(output))
    with log.open("wb") as written:
        done = subprocess.run(command, stdout=written, stderr=written, check=False)
    if done.returncode:
        raise RunError(f"{_last_line(log)} (log: {log})")


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
    last = lines[-1] if lines else "Snakemake said nothing"
    if last.endswith("No space left on device"):  # of a file that is not named
        return f"{last}: give room to {log.parent} or {os.environ.get('TMPDIR', '/tmp')} (TMPDIR)"
    return last


def _watch(process: subprocess.Popen, layout: Layout) -> Iterator[bytes]:
    """Snakemake's lines, as they come; the terminal shows what they tell."""
    from rich.console import Console

    rest = b""
    with Display(Console(stderr=True), layout) as display:
        while read := os.read(process.stdout.fileno(), 1 << 16):
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                display.read(line)
                yield line


def _glob(pattern: str) -> list[Path]:
    return [Path(name) for name in glob.glob(pattern, recursive=True)]
