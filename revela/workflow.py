"""The one place that knows Snakemake from the inside.

Users type `snakemake`; the rest of the project starts it (`snakemake`), asks it for plans (`dry_run`), and needs two things
that Snakemake does not offer:

- `command_line`: while a Snakefile is parsed, Snakemake 9 does not say which targets, executor and options were given
  (`workflow.dag_settings` and the executor are set afterwards), so what was typed is parsed once more. Wrong targets are
  explained and clusters are asked for before anything is planned.
- `patch_slurm_executor`: the executor plugin for SLURM forgets all jobs while the controller does not answer, and does
  not count a job that was preempted or lost its node as failed.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from revela.root import root
from revela.study.base import ConfigError

IN_FULL = "REVELA_JOBS_IN_FULL"  # in the environment of a run whose jobs are printed with their files, not in words

# --- plans


@dataclass(frozen=True)
class Job:
    """A job that Snakemake would run."""

    rule: str
    wildcards: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    benchmark: str | None = None

    @property
    def name(self) -> str:
        return "/".join(self.wildcards.values()) or self.rule

    @property
    def kind(self) -> tuple[str, str]:
        """Jobs of one kind are measured by each other: of the same rule, and for cells of the same method."""
        cell = self.wildcards.get("cell", "")
        return self.rule, cell.split("/")[0]


def snakemake(*arguments: str) -> list[str]:
    """The command by which the project's rules make files in the working directory."""
    return [sys.executable, "-m", "snakemake", "--snakefile", str(root() / "Snakefile"), *arguments]


def dry_run(targets: Iterable[str], configfile: str, *, whole: bool = False) -> list[Job]:
    """The jobs that Snakemake would run for targets, or all that they ever needed. ConfigError if it refuses."""
    arguments = snakemake("--dry-run", "--nolock", *targets, "--configfile", configfile)
    arguments += ["--forceall"] * whole
    environment = os.environ | {IN_FULL: "1"}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError((done.stdout + done.stderr).strip().splitlines()[-1])
    return parse_jobs(done.stdout)


def parse_jobs(printed: str) -> list[Job]:
    """The jobs of what a dry run prints."""
    jobs = []
    for block in re.split(r"^\[\w{3} \w{3} .*\]$", printed, flags=re.MULTILINE)[1:]:
        named = re.search(r"^(?:local)?rule (\w+):$", block, re.MULTILINE)
        if not named:
            continue
        facts = dict(re.findall(r"^    ([a-z]+): (.*)$", block, re.MULTILINE))
        files = {key: tuple(filter(None, facts.get(key, "").split(", "))) for key in ("input", "output")}
        wildcards = dict(pair.split("=", 1) for pair in facts["wildcards"].split(", ")) if "wildcards" in facts else {}
        if files["output"]:  # targets without a file of their own cost nothing
            jobs.append(Job(named[1], wildcards, files["input"], files["output"], facts.get("benchmark")))
    return jobs


# --- what Snakemake does not tell a Snakefile


def command_line() -> argparse.Namespace | None:
    """What was typed after `snakemake`, profile included; None where Snakemake was not started as a command.

    The jobs of a run are started by the same command.
    """
    from snakemake.cli import parse_args

    if Path(sys.argv[0]).name not in ("snakemake", "__main__.py"):
        return None
    with contextlib.redirect_stderr(io.StringIO()):  # Snakemake has parsed it before, and warned where it had to
        return parse_args(sys.argv[1:])[1]


# --- what the executor for SLURM does not do


def patch_slurm_executor() -> None:
    """Has the executor wait where it would give up or wait for ever.

    While the controller does not answer, jobs are taken to be as they were, and none is submitted for ten minutes. A
    job that was preempted or lost its node, and that SLURM did not put back into the queue, has failed. Where SLURM
    keeps no accounts, squeue is asked, for sacct knows of no job.
    """
    import snakemake_executor_plugin_slurm as slurm

    ask, submit = slurm.query_job_status, slurm.Executor.run_job
    queue = f"squeue --noheader --format=%i|%T --user={getpass.getuser()}"

    async def query_job_status(command, logger):
        states, seconds = await ask(command, logger)
        if states is None:
            return {}, 0.0
        ended = {job for job, state in states.items() if state in ("PREEMPTED", "NODE_FAIL")}
        if ended:
            queued, _ = await ask(queue, logger)
            ended = set() if queued is None else ended - queued.keys()
        return states | dict.fromkeys(ended, "FAILED"), seconds

    def run_job(executor, job):
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            ping = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=False)
            if "is UP" in ping.stdout:
                break
            time.sleep(5)
        submit(executor, job)

    slurm.query_job_status, slurm.Executor.run_job = query_job_status, run_job
    if not _slurm_keeps_accounts():
        slurm.Executor.get_status_command = lambda executor: "squeue"
        slurm.is_query_tool_available = lambda tool: False  # sacct, for the nodes of jobs that lost theirs


def _slurm_keeps_accounts() -> bool:
    """Whether SLURM has a database of jobs, which sacct reads; the command is there either way."""
    done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False)
    kept = re.search(r"^AccountingStorageType\s*=\s*(\S+)", done.stdout, re.MULTILINE)
    return not kept or kept[1] not in ("(null)", "accounting_storage/none")
